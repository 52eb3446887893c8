"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: what fails is an OSError that names the
    path, and leaves no half of a file."""
    try:
        with tempfile.TemporaryDirectory(prefix=".diagram-", dir=path.parent) as folder:
            part = Path(folder) / "part"
            part.write_bytes(content)
            os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
