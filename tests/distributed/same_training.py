"""The same twenty steps by one process and by several ranks: a program too, `mpiexec -n 4 python
same_training.py`, which prints how far the ranks are from one process."""

import json

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn, optim
from tinygrad_bn import functional as F
from tinygrad_bn.distributed import ALONE
from tinygrad_bn.distributed.agreement import gather_texts
from tinygrad_bn.train.models import MODELS, Between

ROWS, CLASSES = 48, 5
SHAPES = {"mlp": (20,), "convnet": (2, 8, 8)}


def cuts_of(size):
    """Where the rows are cut for so many ranks: evenly, one row for the first, none for it."""
    return {
        "even": [ROWS * k // size for k in range(size + 1)],
        "uneven": [0, *(1 + (ROWS - 1) * k // (size - 1) for k in range(size))],
        "one empty": [0, *(ROWS * k // (size - 1) for k in range(size))],
    }


CUTS = [cuts_of(2)["uneven"], cuts_of(4)["one empty"]]  # in threads; all of them by MPI


def to_float64(model):
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.dtype == np.float32:
                tensor.data = tensor.data.astype(np.float64)
    return model


def trained(comm, kind, cuts, impl="fused", steps=20):
    """(losses, parameters and running statistics end to end) of a network after some steps with
    batches of 48 rows, of which each rank has those between its cuts. Ranks begin with other
    weights: those of rank 0 count."""
    tg.manual_seed(comm.rank)
    model = MODELS[kind](SHAPES[kind], CLASSES, Between("batch", impl), width=8, depth=2)
    model = nn.convert_sync_batchnorm(to_float64(model), comm)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    parallel, losses = distributed.DataParallel(model, optimizer, comm), []
    mine = slice(cuts[comm.rank], cuts[comm.rank + 1])
    for step in range(steps):
        random = np.random.default_rng(step)
        x = random.standard_normal((ROWS, *SHAPES[kind]))
        y = random.integers(0, CLASSES, ROWS)
        optimizer.zero_grad()
        outputs = model(tg.tensor(x[mine]))
        loss = F.cross_entropy(outputs, tg.tensor(y[mine]), reduction="sum") / ROWS
        loss.backward()
        losses.append(parallel.sum_gradients(loss)[0].item())
        optimizer.step()
    parallel.check_equal()
    state = [tensor.cpu().numpy().ravel() for tensor in model.state_dict().values()]
    return np.array(losses), np.concatenate(state)


def main():
    comm = distributed.init(timeout=60)
    for kind in SHAPES:
        losses, parameters = trained(ALONE, kind, [0, ROWS])
        for impl in ("fused", "composed"):
            for name, cuts in cuts_of(comm.size).items():
                found = trained(comm, kind, cuts, impl)
                apart = [float(np.abs(a - b).max()) for a, b in zip(found, (losses, parameters))]
                case = f"{kind}, {impl}, {name}"
                told = gather_texts(comm, json.dumps([case, *apart]))
                if comm.rank == 0:
                    print(*told, sep="\n")


if __name__ == "__main__":
    main()
