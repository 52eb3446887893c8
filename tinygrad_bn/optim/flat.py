"""Parameters, their gradients and what an optimizer remembers of them, end to end in flat arrays.

A step over a network's parameters one by one costs more than its backward pass when layers are
small. Laid end to end in one array, they are stepped by a few operations, however many they are.
"""

import copy
import itertools
from typing import Any

import numpy as np

from ..backend import array_module, copied, describe, device_of, on_device_of
from ..graph import Leaf, Tensor
from ..kernels.cuda_copy import copy_all
from ..memory import extent
from ..recording import write
from ..reduction import accumulator

_NUMBERS = 4  # that are sent along with gradients


def sharing(parameters: list[Tensor]) -> tuple[int, int] | None:
    """The positions of two parameters that have memory in common, the earlier first; or None.

    Only where the addresses of two overlap (of the columns of a matrix, say) are they compared one
    by one, for which a GPU is waited for.
    """
    filled = [(k, p) for k, p in enumerate(parameters) if p.size]
    spans = sorted([(p.device, *extent(p.data), k) for k, p in filled])
    for n, (device, _, last, j) in enumerate(spans):
        for other, first, _, k in itertools.islice(spans, n + 1, None):
            if other != device or first > last:
                break
            a, b = parameters[j].data, parameters[k].data
            with on_device_of(a):
                if array_module([a]).shares_memory(a, b):
                    return min(j, k), max(j, k)
    return None


class Flat:
    """Parameters of one dtype and device, end to end in `data`, of which their arrays become views.

    `grad`: an array for their gradients, where backward writes them (`Leaf.home`), complete after
    `gather`. It begins `message`, in which processes tell each other something besides. `state`:
    arrays of its kind by name, which an optimizer keeps from step to step. All are float32 for
    float16 parameters. `steps`: how often the state of each parameter was moved; parameters of one
    count are stepped together.

    The parameters get new memory: what looked at the old one does not see the steps. So parameters
    that share memory cannot be tied here; `sharing` finds them.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.edges = [0, *itertools.accumulate(p.size for p in parameters)]
        self.steps = [0] * len(parameters)
        self.leaves: list[Leaf | None] = [None] * len(parameters)  # that have a home here
        self.state: dict[str, Any] = {}
        with on_device_of(parameters[0].data):
            self.xp = array_module([parameters[0].data])
            self.data = self.xp.zeros(self.edges[-1], parameters[0].dtype)
            room = self.edges[-1] + len(parameters) + _NUMBERS
            self.message = self.xp.zeros(room, accumulator(parameters[0].dtype))
        self.grad = self.message[: self.edges[-1]]
        self.views, self.homes = (
            [flat[i:j].reshape(p.shape) for i, j, p in zip(self.edges, self.edges[1:], parameters)]
            for flat in (self.data, self.grad)
        )
        self.gather()

    def __deepcopy__(self, memo: dict) -> "Flat":
        twin = Flat([copy.deepcopy(p, memo) for p in self.parameters])
        twin.steps = list(self.steps)
        twin.state = {name: copied(array) for name, array in self.state.items()}
        return twin

    def gather(self) -> list[range]:
        """Bring in the gradients, and parameters whose array was replaced. Returns which parameters
        have a gradient: ranges of neighbours whose state was moved equally often."""
        runs, start, stop = [], 0, 0
        elsewhere: dict[int, Any] = {}  # gradients that backward did not write here
        for k, (p, view, home) in enumerate(zip(self.parameters, self.views, self.homes)):
            if p.data is not view:
                if (p.shape, p.dtype, p.device) != (view.shape, view.dtype, device_of(view)):
                    raise RuntimeError(
                        f"a parameter became {describe(p.data)} after the optimizer was made for "
                        f"{describe(view)}; make the optimizer after moving the model"
                    )
                write(view, p.data)
                p.data = view
            leaf = p.node
            if leaf is None:
                continue  # frozen
            if not (leaf.is_at_home and leaf.home is home):
                gradient = p.grad
                self._lend(k, leaf)
                if gradient is None:
                    continue  # unused in the loss
                elsewhere[k] = gradient.data
            if k != stop or self.steps[k] != self.steps[start]:
                runs.append(range(start, stop))
                start = k
            stop = k + 1
        runs = [run for run in (*runs, range(start, stop)) if run]
        with on_device_of(self.data):
            # (CuPy would copy a table of their addresses to the device.)
            for run in runs if elsewhere and self.xp is np else ():
                if elsewhere.keys() >= set(run):  # all in one operation
                    parts = [elsewhere.pop(k).ravel() for k in run]
                    self.xp.concatenate(parts, out=self.grad[self.where(run)])
            copy_all([(self.homes[k], gradient) for k, gradient in elsewhere.items()])
        return runs

    def all_reduce(self, comm: Any, numbers: list) -> list[np.ndarray]:
        """Sum the gradients, and up to four numbers, over the ranks of a communicator; a parameter
        that has a gradient on any rank has one then on all. Returns the sums of the numbers."""
        if len(numbers) > _NUMBERS:
            raise ValueError(f"numbers: got {len(numbers)}, wants at most {_NUMBERS}")
        count, owners = len(self.parameters), np.zeros(len(self.parameters), self.grad.dtype)
        for run in self.gather():
            owners[run.start : run.stop] = 1
        tail = self.message[self.edges[-1] :]
        with on_device_of(self.message):
            for k in np.flatnonzero(owners == 0):
                self.homes[k][...] = 0
            tail[:count] = self.xp.asarray(owners)
            tail[count:] = 0
            for k, number in enumerate(numbers, start=count):
                tail[k] = number
            comm.allreduce_(self.message)
        told = comm.read(tail)
        for k in np.flatnonzero(told[:count]):
            if (leaf := self.parameters[k].node) is not None:
                leaf.gradient, leaf.is_at_home = None, True
        return [told[k] for k in range(count, count + len(numbers))]

    def forget(self) -> None:
        """Make all gradients None."""
        for p in self.parameters:
            if (leaf := p.node) is not None:
                leaf.gradient, leaf.is_at_home = None, False

    def _lend(self, k: int, leaf: Leaf) -> None:
        """Give parameter k's leaf its home, of which one that it had before loses hold."""
        before, self.leaves[k] = self.leaves[k], leaf
        if before is not None and before is not leaf and before.home is self.homes[k]:
            before.home, before.is_at_home = None, False
        leaf.home = self.homes[k]

    def where(self, run: range) -> slice:
        """Where neighbouring parameters stand in the flat arrays."""
        return slice(self.edges[run.start], self.edges[run.stop])

    def kept(self, name: str) -> Any:
        """The state of this name, an array like `grad`. It begins at 0."""
        if name not in self.state:
            with on_device_of(self.data):
                self.state[name] = self.xp.zeros_like(self.grad)
        return self.state[name]

    def count(self, run: range) -> int:
        """One more step of the state of these parameters, which had equally many. Returns how many
        it were with this one."""
        before = self.steps[run.start : run.stop]
        if before.count(before[0]) < len(run):
            raise RuntimeError(f"parameters were stepped together, and then {before} times each")
        steps = before[0] + 1
        self.steps[run.start : run.stop] = [steps] * len(run)
        return steps

    def state_of(self, k: int, names: tuple[str, ...]) -> dict[str, Any]:
        """Copies of what is kept of parameter k."""
        where, shape = self.where(range(k, k + 1)), self.parameters[k].shape
        return {name: copied(self.kept(name)[where].reshape(shape)) for name in names}

    def restore(self, k: int, steps: int, arrays: dict[str, Any]) -> None:
        """Make `arrays`, of parameter k's shape and device, its state; what is not there is 0."""
        self.steps[k] = steps
        for name in self.state.keys() | arrays.keys():
            kept = self.kept(name)[self.where(range(k, k + 1))]
            with on_device_of(self.data):
                kept[...] = arrays[name].ravel() if name in arrays else 0
