"""`capture`: a training step that a GPU repeats by itself.

The step of a small network is hundreds of kernels, launched one by one for longer than they run.
CUDA can note down the kernels of a step, as a graph, and launch all of them at once, on the memory
that they had. What Python does in the step is then done only once, when it is captured. So a replay
is held against the step itself before it is trusted.
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..backend import Setting, array_of, device_of, is_array, module_on
from ..engine import listed
from ..graph import at_place
from ..recording import capturing
from .fitting import CaptureError, Fitting, constants, kind_of
from .replay import Captured
from .state import State

__all__ = ["CaptureError", "capture"]


def capture(step: Callable, example_inputs: Any, state: Any) -> Callable:
    """A function that does what `step(*inputs)` does; on a GPU, by one launch of a CUDA graph.

    `step`: takes Tensors; returns Tensors, or tuples, lists or dicts of them, or None. For instance
    it clears the gradients, goes forward and backward, steps an optimizer, and returns the loss.
    `example_inputs`: Tensors or arrays, one or a sequence, of the shapes and dtypes of all later
    inputs: an epoch's last batch, if it is smaller, is one for the plain step. `state`: the
    Modules, Optimizers and Tensors that the step reads and moves, one or any number (so also
    `net.parameters()`). They lie on one device; inputs may come from the host, and nothing waits
    for them.

    On a GPU the step is called here three times: twice to see what it does, and once for the graph.
    This is replayed twice, and must have done the same. A `CaptureError` tells what it cannot do:
    a value that is read (`item()`), a number of Python's that differs from step to step, gradients
    that the step does not clear, something that it moves and that is not in `state`. Captured or
    not, the state is then as it was before.

    A replay moves running statistics, draws other random bits for dropout, and follows the learning
    rates and step counts of the optimizers; whatever else Python computes is as it was captured.
    The gradients that it leaves last until the next call. A call that does not fit (another batch
    size, a parameter that was replaced, another mode) is a `CaptureError`, and moves nothing.

    On the CPU nothing is called here, and what the step does is not checked. A call checks its
    inputs and calls the step. What this moved stays moved if it then returns something else than
    Tensors, which is a `CaptureError`.

    What the function returns has no history (`requires_grad` is False). On a GPU it is the same
    Tensors each time, whose values last until the next call. To keep a loss, take its number,
    `losses.append(train(x, y).item())`, which waits for the GPU; or a copy,
    `losses.append(tg.tensor(train(x, y)))`, which does not.

    >>> import tinygrad_bn as tg
    >>> net = tg.nn.Linear(2, 1)
    >>> optimizer = tg.optim.SGD(net.parameters(), lr=0.1)
    >>> def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = tg.functional.mse_loss(net(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = tg.ones(8, 2), tg.ones(8, 1)
    >>> train = tg.capture(step, (x, y), state=(net, optimizer))
    >>> train(x, y).item() > train(x, y).item()
    True
    """
    if not callable(step):
        raise TypeError(f"step: got {kind_of(step)}, wants a function")
    if capturing.get() is not None or _in_step.get():
        raise CaptureError("capture: called within a step that is being captured")
    state, examples = State(state), listed(example_inputs)
    found = {*map(device_of, state.arrays())}
    if len(found) > 1:
        raise ValueError(f"state: lies on {' and '.join(sorted(found))}, wants one device")
    of_examples = {device_of(array_of(x)) for x in examples if is_array(array_of(x))} - {"cpu"}
    fits = Fitting(min(found or of_examples or {"cpu"}), examples)
    xp, here = module_on(fits.device)
    with here:
        on_cpu = fits.device == "cpu"
        function = _checked(step, fits) if on_cpu else Captured(xp, step, state, fits, examples)
    function.__name__ = type(step).__name__  # of a step that has no name
    functools.update_wrapper(function, step, updated=())
    takes = f"Captured on {fits.device}. Takes, by position, Tensors or arrays: {fits}."
    function.__doc__ = f"{inspect.cleandoc(step.__doc__ or '')}\n\n{takes}".lstrip()
    return function


_in_step: ContextVar[bool] = ContextVar("in_step", default=False)  # a captured one, on the CPU


def _checked(step: Callable, fits: Fitting) -> Callable:
    """The step on the CPU, which checks its inputs."""

    def call(*inputs: Any) -> Any:
        arrays = fits.arrays(inputs)
        with Setting(_in_step, True):
            return constants(step(*map(at_place, arrays)))

    return call
