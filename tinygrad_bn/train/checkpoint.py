"""Checkpoints: a folder each, whole or not there at all.

    step-00000690/
      model.safetensors       the state dict of the model, with PyTorch's names and layouts
      optimizer.safetensors   the arrays of the optimizer's state dict
      state.json              everything else, and the sizes and SHA-256 of the two files

A checkpoint is written under another name, flushed to the disk, and renamed. Whoever is killed, at
any moment, leaves whole checkpoints, and perhaps a rest that the next one to write removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import random_numbers
from ..backend import to_device
from ..files import write_whole
from ..graph import Tensor
from ..nn import Module
from ..nn.files import read_safetensors, write_safetensors
from ..optim import Optimizer
from ..optim.lr_scheduler import LRScheduler

_REST = ".unfinished-"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where in `folder` the checkpoint after this many steps is."""
    return folder / f"step-{step:08d}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or damaged, the newest first."""
    return sorted(folder.glob("step-" + "[0-9]" * 8), reverse=True)


def save_checkpoint(
    path: Path, model: Module, optimizer: Optimizer, schedule: LRScheduler, more: Mapping[str, Any]
) -> None:
    """Write the checkpoint `path`: what the training needs to go on, the random state, and `more`,
    which JSON must be able to hold.

    If it cannot be written, an OSError says why, and there is what was there before.
    """
    arrays, state = _taken(model, optimizer, schedule)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(_REST + path.name)
    try:
        remove_rests(path.parent)
        unfinished.mkdir()
        for name, values in arrays.items():
            write_safetensors(unfinished / f"{name}.safetensors", values)
        files = {file.name: _fingerprint(file) for file in sorted(unfinished.iterdir())}
        content = json.dumps({**state, "more": more, "files": files}, allow_nan=False)
        write_whole(unfinished / "state.json", content.encode())
        _flush_folder(unfinished)
        if path.exists():  # a damaged one: a rename replaces no folder that holds something
            remove_checkpoint(path)
        os.replace(unfinished, path)
        _flush_folder(path.parent)
    finally:
        remove_rests(path.parent)


def load_checkpoint(
    path: Path, model: Module, optimizer: Optimizer, schedule: LRScheduler
) -> dict[str, Any]:
    """Go on from a checkpoint; returns `more`.

    One that is not as it was written is a ValueError that says what is damaged. One of another
    model is a RuntimeError that lists the keys, and one of another optimizer a ValueError.
    """
    arrays, state = read_checkpoint(path)
    try:
        model.load_state_dict(arrays["model"])
    except RuntimeError as error:
        raise RuntimeError(f"{path}: {error}") from error
    saved = {}
    for name, value in {**arrays["optimizer"], **state["optimizer"]["counts"]}.items():
        number, _, what = name.partition(".")
        saved.setdefault(int(number), {})[what] = value
    groups = state["optimizer"]["param_groups"]
    optimizer.load_state_dict({"state": saved, "param_groups": groups})
    schedule.load_state_dict(state["schedule"])
    generator, keys = state["random"]
    keys = {device: np.array(numbers, np.uint32) for device, numbers in keys.items()}
    random_numbers.set_random_state((generator, keys))
    return state["more"]


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """The arrays and the state of a checkpoint, once all is as it was written; else a ValueError
    says what is damaged."""
    try:
        state = json.loads((path / "state.json").read_bytes())
        for name, fingerprint in state["files"].items():
            if (found := _fingerprint(path / name)) != fingerprint:
                raise ValueError(f"{name}: got {found}, wants {fingerprint}")
        return {Path(name).stem: read_safetensors(path / name) for name in state["files"]}, state
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint. Whoever is killed meanwhile leaves no half of it under its name."""
    rest = path.with_name(f"{_REST}removed-{path.name}")
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


def remove_rests(folder: Path) -> None:
    """Remove what was not finished here."""
    for rest in folder.glob(f"{_REST}*"):
        shutil.rmtree(rest, ignore_errors=True)


def _fingerprint(file: Path) -> str:
    content = file.read_bytes()
    return f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where a folder can be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
