"""Build the wheel, install it into an empty environment with NumPy alone, train ten steps there."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent

TRAIN = """
import sys
import tinygrad_bn as tg
from tinygrad_bn import functional as F, nn

tg.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
optimizer = tg.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
x = tg.randn(64, 2)
target = (x.data[:, 0] * x.data[:, 1] > 0).astype(int)
losses = []
for _ in range(10):
    loss = F.cross_entropy(net(x), tg.tensor(target))
    losses.append(loss.item())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
assert losses[-1] < 0.8 * losses[0], losses
extras = {"numba", "cupy", "matplotlib", "sklearn", "tqdm", "pygraphviz"} & set(sys.modules)
assert not extras, extras
print(f"ten steps from the wheel: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
"""

LIST_FILES = "import importlib.metadata as m; print(*m.files('tinygrad_bn'))"


def run(*command, **options) -> str:
    command = list(map(str, command))
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("tinygrad_bn-*.whl")
        venv.create(folder / "venv", with_pip=True)
        python = next((folder / "venv").glob("[bS]*/python*"))  # bin, or Scripts on Windows
        run(python, "-m", "pip", "install", "--quiet", wheel)
        installed = run(python, "-m", "pip", "list", "--format=freeze").split()
        assert {line.split("==")[0] for line in installed} <= {
            "numpy", "pip", "setuptools", "tinygrad_bn"
        }, installed  # fmt: skip
        files = run(python, "-c", LIST_FILES, cwd=folder)
        assert "py.typed" in files, "not in the wheel"
        assert "diagram/pages/static/page.css" in files, "not in the wheel"
        print(run(python, "-W", "error", "-c", TRAIN, cwd=folder), end="")


if __name__ == "__main__":
    main()
