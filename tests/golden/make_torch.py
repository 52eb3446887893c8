"""Values that come from PyTorch, kept as data so that the tests need no PyTorch.

Run, where NumPy, PyTorch and safetensors are: python tests/golden/make_torch.py [norms ...]

For each torch_GROUP.py next to it (or those named) it writes GROUP.npz, the arrays, and GROUP.json,
PyTorch's version and the cases; recorder.py says what they hold. On another processor the last bits
of the results may differ.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import recorder
import torch

FOLDER = Path(__file__).resolve().parent


def record(group):
    """The cases of a group by name, and their arrays: what its files hold."""
    recorder.cases.clear()
    recorder.arrays.clear()
    torch.set_num_threads(1)
    importlib.import_module(f"torch_{group}").make()
    arrays = {name: recorder.pack(fields) for name, fields in recorder.arrays.items()}
    return {case["name"]: case for case in recorder.cases}, arrays


def main():
    for group in sys.argv[1:] or sorted(p.stem[len("torch_") :] for p in FOLDER.glob("torch_*.py")):
        cases, arrays = record(group)
        np.savez_compressed(FOLDER / f"{group}.npz", **arrays)
        lines = ",\n".join(json.dumps(case) for case in cases.values())
        text = f'{{"torch": "{torch.__version__}", "cases": [\n{lines}\n]}}\n'
        (FOLDER / f"{group}.json").write_text(text)
        print(f"{group}: {len(cases)} cases")


if __name__ == "__main__":
    main()
