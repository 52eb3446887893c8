"""Data-parallel training: every rank has the model, and its share of each batch."""

import hashlib
import warnings
from typing import Any

import numpy as np

from ..backend import array_of, to_device
from ..graph import Tensor, at_place
from .agreement import check_same
from .communicators import ALONE, Communicator, communicator
from .mpi import launched


class DataParallel:
    """Ranks that train one model together.

    >>> from tinygrad_bn import functional as F, nn, ones, optim, tensor
    >>> model, comm = nn.Linear(2, 2), communicator()
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> parallel = DataParallel(model, optimizer, comm)
    >>> x, y = ones(3, 2), tensor([0, 0, 1])  # a batch, the same on all ranks
    >>> mine = comm.share(len(x))
    >>> optimizer.zero_grad()
    >>> loss = F.cross_entropy(model(x[mine]), y[mine], reduction="sum") / len(x)
    >>> loss.backward()
    >>> (mean_loss,) = parallel.sum_gradients(loss)
    >>> optimizer.step()

    A loss is the sum over the rows of the rank, divided by the number of rows on all ranks: so the
    gradients add up to those of the whole batch, also where shares differ, and one has no row.
    Several backward passes before a step accumulate, and are sent once.
    """

    def __init__(self, model: Any, optimizer: Any, comm: Communicator | None = None) -> None:
        """Give all ranks the parameters and buffers of rank 0 (of `model.state_dict()`). All ranks
        make it together; `comm`: None is `communicator()`."""
        self.model, self.optimizer = model, optimizer
        self.comm = communicator() if comm is None else comm
        if self.comm is ALONE and comm is None and launched():
            what = "mpiexec has started several processes, but distributed.init() was not called"
            warnings.warn(f"{what}: each trains alone", stacklevel=2)
        if self.comm.size == 1:
            return
        state = model.state_dict()
        check_same(self.comm, self._described(state))
        for tensor in state.values():
            self.comm.bcast_(tensor.data)
        model.load_state_dict(state)

    def sum_gradients(self, *numbers: float | Tensor) -> tuple[float | Tensor, ...]:
        """Make each gradient the sum of those on all ranks (a rank that has none adds 0). All ranks
        together, before the optimizer steps.

        `numbers`, at most four, of Python or Tensors of one, are sent along, in the dtype of the
        gradients: returns their sums. (With several ranks a GPU is waited for.)
        """
        given = [n.detach() if isinstance(n, Tensor) else n for n in numbers]
        if self.comm.size == 1:
            return tuple(given)
        first, *others = [flat for _, flat in self.optimizer.flats()]
        sums = first.all_reduce(self.comm, [array_of(number) for number in given])
        for flat in others:
            flat.all_reduce(self.comm, [])
        pairs = zip(sums, given)
        return tuple(
            [at_place(s.astype(n.dtype)) if isinstance(n, Tensor) else float(s) for s, n in pairs]
        )

    def _described(self, state: dict[str, Tensor]) -> dict[str, str]:
        """What must be alike before arrays are sent: names, order, dtypes and shapes."""
        listed = enumerate(state.items())
        described = {name: f"{k}: {t.dtype}{list(t.shape)}" for k, (name, t) in listed}
        names = {id(p): name for name, p in self.model.named_parameters()}
        groups = [[names.get(id(p), "") for p in g["params"]] for g in self.optimizer.param_groups]
        return described | {"what the optimizer steps": str(groups)}

    def check_equal(self) -> None:
        """A RankError that names a parameter or buffer that is not the same, bit for bit, on all
        ranks. All ranks together."""
        if self.comm.size == 1:
            return
        state = self.model.state_dict()
        check_same(self.comm, {name: _fingerprint(tensor) for name, tensor in state.items()})


def _fingerprint(tensor: Tensor) -> str:
    array = np.ascontiguousarray(to_device(tensor.data, "cpu"))
    return hashlib.blake2b(array, digest_size=16).hexdigest()
