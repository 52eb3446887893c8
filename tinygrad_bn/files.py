"""Files that are written whole or not at all, and names that are free."""

import contextlib
import errno
import itertools
import os
import secrets
import shutil
from pathlib import Path

UNFINISHED = ".unfinished-"  # how the names begin of what a killed process may leave


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, once it is on the disk: what fails is an
    OSError that names the path, and leaves no half of a file."""
    if path.exists() and not path.is_file():  # renamed over /dev/null, a file would take its place
        raise FileExistsError(errno.EEXIST, "exists, and is no regular file", str(path))
    part = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # it has moved, or cannot be removed either
            part.unlink()


def free_path(path: Path) -> Path:
    """`path` if nothing is there, or else the first of NAME-2, NAME-3, … that is free."""
    numbered = (path.with_name(f"{path.name}-{k}") for k in itertools.count(2))
    return next(each for each in itertools.chain([path], numbered) if not each.exists())
