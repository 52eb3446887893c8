"""The folder of a training run: who may train in it, and what is in it before the first step."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

from ..files import free_path, write_whole
from .checkpoint import remove_rests, rests
from .config import Config, as_toml, read_config


class TakenError(FileExistsError):
    """The folder holds something, or another process trains there."""


def check_free(folder: Path) -> None:
    """A TakenError unless a run may begin there."""
    if folder.exists() and _holds_something(folder):
        goes_on = (folder / "config.toml").exists()
        hint = "--resume goes on with it" if goes_on else "wants one that is new, or empty"
        raise TakenError(f"{folder} is there already; {hint}")


@contextlib.contextmanager
def new_folder(config: Config, folder: Path | None) -> Iterator[bytes]:
    """The path of a folder for a new run (None: one in runs/), in which no other may train in the
    block."""
    with contextlib.ExitStack() as stack:
        usual = Path("runs") / f"{config.data}-{config.model}-{config.norm}"
        while True:  # two that are started at the same time may find the same to be free
            chosen = free_path(usual) if folder is None else folder
            try:
                chosen.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_alone_in(chosen))
                if _holds_something(chosen):
                    raise TakenError(f"{chosen}: another process was faster")
                break
            except TakenError:
                if folder is not None:
                    raise
        remove_rests(chosen)
        write_whole(chosen / "config.toml", as_toml(config).encode())
        yield os.fsencode(chosen)


@contextlib.contextmanager
def old_folder(folder: Path) -> Iterator[bytes]:
    """The settings of the run in a folder, as JSON; in the block no other may train there."""
    if not (folder / "config.toml").exists():
        raise FileNotFoundError(f"{folder} holds no config.toml, so no run")
    with _alone_in(folder):
        remove_rests(folder)
        remove_rests(folder / "checkpoints")
        config = Config(**read_config(folder / "config.toml"))
        yield json.dumps(dataclasses.asdict(config)).encode()


def renew(folder: Path, config: Config) -> None:
    """What is to be there while a run goes on."""
    write_whole(folder / "config.toml", as_toml(config).encode())
    (folder / "summary.json").unlink(missing_ok=True)  # of an end that is none any more


def _holds_something(folder: Path) -> bool:
    """Whether there is more than what a killed process did not finish."""
    return {*folder.iterdir()} > {*rests(folder)}


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """In the block no other process may train in this folder (where the system has flock)."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TakenError(f"{folder}: another process is training there") from error
        yield
    finally:
        os.close(descriptor)
