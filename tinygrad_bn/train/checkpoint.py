"""Checkpoints: a folder each, whole or not there at all.

    step-00000690/
      model.safetensors       the state dict of the model, with PyTorch's names and layouts
      optimizer.safetensors   the arrays of the optimizer's state dict
      state.json              everything else, and sizes and SHA-256 of all three

A checkpoint is written under another name, flushed to the disk, and renamed. Whoever is killed, at
any moment, leaves whole checkpoints, and perhaps a rest that the next one to write removes.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import random_numbers
from ..backend import to_device
from ..files import UNFINISHED, free_path, write_whole
from ..graph import Tensor
from ..nn import Module
from ..nn.files import parse_safetensors, write_safetensors
from ..optim import Optimizer
from ..optim.lr_scheduler import LRScheduler

# What write_whole did not finish, or what is or was to be a checkpoint.
_RESTS = re.compile(re.escape(UNFINISHED) + r"([0-9a-f]{16}|(removed-)?step-[0-9]+)")
_ARRAYS = ("model.safetensors", "optimizer.safetensors")
FILES = ("state.json", *_ARRAYS)


class DamagedError(ValueError):
    """A checkpoint is not as it was written."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where in `folder` the checkpoint after this many steps is."""
    return folder / f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or damaged, the newest first."""
    steps = {path: path.name.removeprefix("step-") for path in folder.glob("step-*")}
    numbered = [path for path, step in steps.items() if step.isdecimal() and len(step) >= 8]
    return sorted(numbered, key=lambda path: int(steps[path]), reverse=True)


def save_checkpoint(
    path: Path, model: Module, optimizer: Optimizer, schedule: LRScheduler, more: Mapping[str, Any]
) -> None:
    """Write the checkpoint `path`: what the training needs to go on, the random state, and `more`,
    which JSON must be able to hold.

    If it cannot be written, an OSError says why, and there is what was there before.
    """
    arrays, state = _taken(model, optimizer, schedule)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        remove_rests(path.parent)
        unfinished.mkdir()
        for name, values in arrays.items():
            write_safetensors(unfinished / f"{name}.safetensors", values)
        files = {name: _fingerprint((unfinished / name).read_bytes()) for name in _ARRAYS}
        state = {**state, "more": more, "files": files}
        content = {"state": state, "fingerprint": _fingerprint(_dumped(state))}
        write_whole(unfinished / "state.json", _dumped(content))
        _flush_folder(unfinished)
        if path.exists():  # a damaged one: a rename replaces no folder that holds something
            remove_checkpoint(path)
        os.replace(unfinished, path)
        _flush_folder(path.parent)
    finally:
        remove_rests(path.parent)


def load_checkpoint(
    path: Path,
    model: Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    files: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Go on from a checkpoint; returns `more`. `files`: as of `read_checkpoint`.

    One that is not as it was written is a DamagedError. One of another model is a RuntimeError that
    lists the keys, and one of another optimizer a ValueError.
    """
    arrays, state = read_checkpoint(path, files)
    try:
        model.load_state_dict(arrays["model"])
    except RuntimeError as error:
        raise RuntimeError(f"{path}: {error}") from error
    try:
        optimizer.load_state_dict(_optimizer_state(arrays["optimizer"], state["optimizer"]))
        schedule.load_state_dict(state["schedule"])
        generator, keys = state["random"]
        keys = {device: np.array(numbers, np.uint32) for device, numbers in keys.items()}
        random_numbers.set_random_state((generator, keys))
        return state["more"]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: {error!r}: wants what save_checkpoint writes") from error


def _optimizer_state(arrays: Mapping[str, np.ndarray], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict whose arrays and counts are named NUMBER.NAME."""
    state = {}
    for name, value in {**arrays, **saved["counts"]}.items():
        number, _, what = name.partition(".")
        state.setdefault(int(number), {})[what] = value
    return {"state": state, "param_groups": saved["param_groups"]}


def checkpoint_files(path: Path) -> dict[str, bytes]:
    """What the files of a checkpoint hold, whole or not, by their names."""
    try:
        return {name: (path / name).read_bytes() for name in FILES}
    except OSError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def read_checkpoint(
    path: Path, files: Mapping[str, bytes] | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """The arrays and the state of a checkpoint, once all is as it was written; else a DamagedError
    says what is not. `files`: what it holds, if it was another process that has read them."""
    files = checkpoint_files(path) if files is None else files
    try:
        content = json.loads(files["state.json"])
        state, wanted = content["state"], {"state.json": content["fingerprint"]}
        found = {"state.json": _fingerprint(_dumped(state))}
        found |= {name: _fingerprint(files[name]) for name in _ARRAYS}
        wanted |= {name: state["files"][name] for name in _ARRAYS}
        for name in wanted:
            if found[name] != wanted[name]:
                raise ValueError(f"{name}: got {found[name]}, wants {wanted[name]}")
        arrays = {Path(n).stem: parse_safetensors(files[n], path / n) for n in _ARRAYS}
        return arrays, state
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def put_aside(path: Path) -> None:
    """Give a damaged checkpoint a name under which it is no checkpoint any more."""
    os.replace(path, free_path(path.with_name(f"damaged-{path.name}")))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint. Whoever is killed meanwhile leaves no half of it under its name."""
    rest = path.with_name(f"{UNFINISHED}removed-{path.name}")
    os.replace(path, rest)
    shutil.rmtree(rest, ignore_errors=True)


def _taken(model: Module, optimizer: Optimizer, schedule: LRScheduler) -> tuple[dict, dict]:
    """Arrays for safetensors files, and the rest for JSON."""
    arrays, counts, saved = {}, {}, optimizer.state_dict()
    for number, entries in saved["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                arrays[f"{number}.{name}"] = value.cpu().numpy()
            else:
                counts[f"{number}.{name}"] = value
    generator, keys = random_numbers.random_state()
    state = {
        "optimizer": {"counts": counts, "param_groups": saved["param_groups"]},
        "schedule": schedule.state_dict(),
        "random": [generator, {d: to_device(k, "cpu").tolist() for d, k in keys.items()}],
    }
    parameters = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
    return {"model": parameters, "optimizer": arrays}, state


def rests(folder: Path) -> list[Path]:
    """What was not finished in a folder."""
    return [path for path in folder.glob(f"{UNFINISHED}*") if _RESTS.fullmatch(path.name)]


def remove_rests(folder: Path) -> None:
    """Remove what was not finished in a folder; what cannot be removed is left to the next."""
    for rest in rests(folder):
        if rest.is_dir():
            shutil.rmtree(rest, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                rest.unlink()


def _dumped(state: Mapping[str, Any]) -> bytes:
    """As JSON, which read and dumped again is the same."""
    return json.dumps(state, allow_nan=False).encode()


def _fingerprint(content: bytes) -> str:
    return f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where a folder can be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
