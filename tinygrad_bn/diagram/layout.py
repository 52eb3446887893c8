"""DOT text to a picture, by Graphviz, and files that are whole or not there.

pygraphviz carries Graphviz in its wheel; without it the `dot` program serves as well. The layout
runs in a process of its own, for it cannot be interrupted otherwise.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIME_LIMIT = 20  # seconds

_BY_PYGRAPHVIZ = """
import sys
sys.path.append(sys.argv[1])
import pygraphviz
text = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(pygraphviz.AGraph(text).draw(prog="dot", format=sys.argv[2]))
"""


def render(dot: str, file_format: str) -> bytes:
    """The picture of a DOT text as "svg", "png" or "pdf".

    RuntimeError: there is no Graphviz, it took longer than 20 s, or it failed.
    """
    command = _command(file_format)
    try:
        done = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"the layout took longer than {TIME_LIMIT} s and was stopped; draw a smaller graph, or "
            "save it as .dot"
        ) from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"Graphviz: {reason[-1] if reason else f'exit {done.returncode}'}")
    return done.stdout


def _command(file_format: str) -> list[str]:
    """A command that reads DOT and writes the picture."""
    package = importlib.util.find_spec("pygraphviz")
    if package is not None:
        folder = str(Path(package.origin).parents[1])
        return [sys.executable, "-I", "-c", _BY_PYGRAPHVIZ, folder, file_format]
    program = shutil.which("dot")
    if program is not None:
        return [program, f"-T{file_format}"]
    raise RuntimeError(
        'the layout of a picture needs Graphviz: pip install "tinygrad_bn[viz]" (.dot goes without)'
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: what fails leaves no half of a file."""
    with tempfile.TemporaryDirectory(prefix=".diagram-", dir=path.parent) as folder:
        part = Path(folder) / "part"
        part.write_bytes(content)
        os.replace(part, path)
