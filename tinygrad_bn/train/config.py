"""What a training run is told, by flags or by a TOML file."""

import argparse
import dataclasses
import difflib
import inspect
import json
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..functional.arguments import choice, number, whole
from ..norm import IMPLEMENTATIONS
from .datasets import DATASETS
from .models import ACTIVATIONS, MODELS, NORMS

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step")
MOST_EPOCHS = 10**6
_USUAL_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}


def _option(default: Any, help: str, *choices: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices or None})


@dataclass(frozen=True)
class Config:
    """A training run. Every field is a flag (`--batch-size`) and a key in TOML (`batch_size`).

    What is wrong is a ValueError that begins with the name of the field.
    """

    data: str | None = _option(None, "what to learn", *DATASETS)
    path: str | None = _option(None, "folder or file of data that do not come with the library")
    target: str | None = _option(None, "csv: the column that names the class (the last)")
    model: str = _option("mlp", "the network", *MODELS)
    norm: str = _option("batch", "after each of its layers", *NORMS)
    impl: str = _option("fused", "how norms are computed", *IMPLEMENTATIONS)
    activation: str = _option("relu", "after each norm", *ACTIVATIONS)
    width: int | None = _option(None, "units or channels of the first layer (mlp 64, else 16)")
    depth: int | None = _option(None, "hidden layers; resnet: blocks a stage (3; resnet 1)")
    dropout: float = _option(0.0, "before the last layer")
    epochs: int = _option(20, "times through the data")
    batch_size: int = _option(64, "samples a step, at most")
    accumulate: int = _option(
        1, "parts of a step's batch, computed one after the other: less memory"
    )
    optimizer: str = _option("sgd", "how to step", *OPTIMIZERS)
    lr: float | None = _option(None, "learning rate (sgd 0.1, else 0.001)")
    momentum: float = _option(0.9, "of sgd")
    weight_decay: float = _option(0.0, "of the optimizer")
    schedule: str = _option(
        "constant", "the learning rate over the epochs; step: a tenth after ½ and ¾", *SCHEDULES
    )
    shift: int = _option(0, "augment images: moved by up to this many pixels each way")
    flip: bool = _option(False, "augment images: mirrored half of the time")
    validation: float = _option(0.1, "share of the training data held out to find the best epoch")
    patience: int = _option(
        0, "stop when the validation loss was not lower for so many epochs (0: never)"
    )
    keep: int = _option(3, "how many of the last checkpoints to keep, besides the best")
    seed: int = _option(0, "of initial weights, order, augmentation, and of what is held out")
    device: str = _option("cpu", "cpu, cuda, cuda:1, …")
    capture: bool = _option(False, "on a GPU, repeat the step as a CUDA graph")
    prefetch: int = _option(2, "batches made ready in the background (0: none)")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
            if field.metadata["choices"]:
                choice(field.name, getattr(self, field.name), *field.metadata["choices"])
        for name in ("epochs", "batch_size", "accumulate", "keep"):
            whole(name, getattr(self, name), 1)
        if self.epochs > MOST_EPOCHS:
            raise ValueError(f"epochs: got {self.epochs:,}, wants at most {MOST_EPOCHS:,}")
        for name in ("shift", "patience", "prefetch", "seed"):
            whole(name, getattr(self, name), 0)
        for name in ("width", "depth"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        number("weight_decay", self.weight_decay, 0)
        for name in ("dropout", "momentum", "validation"):
            if not 0 <= number(name, getattr(self, name)) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wants a number in [0, 1)")
        if self.lr is not None and not number("lr", self.lr) > 0:
            raise ValueError(f"lr: got {self.lr!r}, wants a number above 0")
        if self.capture and self.device == "cpu":
            raise ValueError("capture: wants a GPU, and device is cpu")
        if self.capture and self.accumulate > 1:
            raise ValueError("capture: wants a step in one part, and accumulate is more")
        if self.patience and not self.validation:
            raise ValueError("patience: wants validation data, and validation is 0")

    def filled(self) -> "Config":
        """The same, with numbers for what depends on the optimizer and the model.

        >>> Config("disc").lr, Config("disc").filled().lr, Config("disc").filled().width
        (None, 0.1, 64)
        """
        usual = {"lr": _USUAL_RATES[self.optimizer]}
        sizes = inspect.signature(MODELS[self.model]).parameters
        usual |= {name: sizes[name].default for name in ("width", "depth")}
        missing = {name: value for name, value in usual.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)


FIELDS = tuple(field.name for field in dataclasses.fields(Config))


def _kinds(field: dataclasses.Field) -> tuple[type, ...]:
    """The types that a field may have; the first is that of its flag."""
    return typing.get_args(field.type) or (field.type,)


def _check_type(field: dataclasses.Field, value: Any) -> None:
    kind = _kinds(field)[0]
    allowed = (*_kinds(field), int) if kind is float else _kinds(field)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise ValueError(f"{field.name}: got {value!r:.60}, wants {words[kind]}")


def add_flags(parser: Any) -> None:
    """Give a parser of argparse, or a group of it, the flag of each field. A flag that is not given
    leaves nothing in the answer."""
    for field in dataclasses.fields(Config):
        kind, choices = _kinds(field)[0], field.metadata["choices"]
        flag = "--" + field.name.replace("_", "-")
        default = "" if field.default in (None, False) else f" ({field.default})"
        how = {"help": field.metadata["help"] + default, "default": argparse.SUPPRESS}
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **how)
        else:
            metavar = None if choices else "TEXT" if kind is str else "N"
            parser.add_argument(flag, type=kind, choices=choices, metavar=metavar, **how)


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. A ValueError names the file and what is wrong with it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise RuntimeError(
                'a TOML file needs tomli here: pip install "tinygrad_bn[train]"'
            ) from error
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, or no TOML
        raise ValueError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: got lists in lists, wants names and values") from error
    for name in given:
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"wants some of {', '.join(FIELDS)}"
            raise ValueError(f"{path}: got the unknown key {name!r:.60}; {hint}")
    return given


def as_toml(config: Config) -> str:
    """The settings as a TOML file, a line each; what is None is left out."""
    lines = [
        # A TOML string is one of JSON, but that JSON may leave DEL as it is
        f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, value in dataclasses.asdict(config).items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"
