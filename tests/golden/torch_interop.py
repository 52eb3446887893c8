"""Files of safetensors that PyTorch writes, and what its models answer that wrote them.

interop/...      a model of interop_models.py after three steps of training: `file`, the bytes that
                 safetensors.torch.save_model wrote, and the state_dict_keys; then, for `input`, the
                 output `evaluated` in evaluation mode, the output `trained` in training mode, and
                 after/BUFFER, what the buffers are then

The package safetensors is needed, too.
"""

import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from interop_models import MODELS, train
from recorder import describe, draw, random_stream, store


def make():
    for name, (build, shape) in MODELS.items():
        one_model(f"interop/{name}", build, shape)


def one_model(name, build, shape):
    torch.manual_seed(0)
    random, model = random_stream(name), build(torch)

    def batch():
        if name == "interop/tokens":
            return torch.tensor(random.integers(0, 11, shape))
        return torch.tensor(draw(random, shape)).to(next(model.parameters()).dtype)

    train(torch, model, [batch() for _ in range(3)])
    values = {"file": written(model), "input": batch()}
    with torch.no_grad():
        values["evaluated"] = model.eval()(values["input"])
        values["trained"] = model.train()(values["input"])
    store(name, values | {f"after/{key}": value for key, value in model.named_buffers()})
    describe(name, {}, state_dict_keys=list(model.state_dict()))


def written(model):
    """The bytes of the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        safetensors.torch.save_model(model, str(path))
        return np.frombuffer(path.read_bytes(), np.uint8)
