"""The norms. Each says where its axes are; `norm.composed` or `norm.fused` does the work."""

import math
from collections.abc import Sequence

import numpy as np

from .. import ops, recording
from ..backend import array_module, describe, device_of, is_floating
from ..norm import IMPLEMENTATIONS, running
from ..norm.axes import FAMILY, Arrangement, arrange
from ..reduction import accumulator
from ..tensor import integers, named
from .arguments import Array, array_of, as_given, choice, number, whole

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    impl: str = "fused",
) -> Array:
    """Batch norm of `input` (N, C, …): each channel by its mean and variance over N and the rest.

    In training the statistics are the batch's, and `running_mean`, `running_var` (each (C,), or
    both None) are moved towards them by `momentum`; else the running ones are used. `weight` and
    `bias` are γ and β, (C,) or None. `impl`: "fused" is one op with the analytic gradient,
    "composed" is made of primitives. Beside a float16 or bfloat16 input all of these are float32.
    (Ioffe & Szegedy 2015.)

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import functional as F
    >>> x = tg.tensor([[1.0], [2.0], [3.0]])
    >>> F.batch_norm(x, None, None, training=True)
    tensor([[-1.2247],
            [ 0.    ],
            [ 1.2247]])
    """
    given = all_given(input, running_mean, running_var, weight, bias)
    return batch_norm_by(implementation(impl), given, training, momentum, eps)


def instance_norm(
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    impl: str = "fused",
) -> Array:
    """Instance norm of `input` (N, C, …): each channel of each sample over its own places.

    `use_input_stats` says whether by the input's statistics, which then move `running_mean` and
    `running_var` by their average over N, or by these. All else is as in `batch_norm`. (Ulyanov,
    Vedaldi & Lempitsky 2016.)
    """
    given, norm = all_given(input, running_mean, running_var, weight, bias), implementation(impl)
    return batch_norm_by(norm, given, use_input_stats, momentum, eps, "instance_norm")


def layer_norm(
    input: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    impl: str = "fused",
) -> Array:
    """Layer norm of `input` (…, *normalized_shape): each sample over its own features.

    `weight` and `bias` are γ and β, of shape `normalized_shape`, or None; float32 beside a float16
    or bfloat16 input. (Ba, Kiros & Hinton 2016.)

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import functional as F
    >>> F.layer_norm(tg.tensor([[1.0, 2.0, 3.0]]), 3)
    tensor([[-1.2247,  0.    ,  1.2247]])
    """
    return _featurewise("layer_norm", input, normalized_shape, weight, bias, eps, impl)


def rms_norm(
    input: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    eps: float | None = None,
    impl: str = "fused",
) -> Array:
    """RMS norm of `input` (…, *normalized_shape): each sample by its root mean square.

    As `layer_norm`, without the mean and without β. `eps`: None is the machine epsilon of the dtype
    of the statistics: the input's, but float32 for float16 and bfloat16. (Zhang & Sennrich 2019.)
    """
    input = as_given(input)
    if eps is None and is_floating(getattr(input, "dtype", None)):
        eps = float(np.finfo(accumulator(input.dtype)).eps)
    return _featurewise("rms_norm", input, normalized_shape, weight, None, eps, impl)


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    impl: str = "fused",
) -> Array:
    """Group norm of `input` (N, C, …): each of `num_groups` groups of channels of each sample.

    `weight` and `bias` are γ and β, (C,) or None; float32 beside a float16 or bfloat16
    input. (Wu & He 2018.)
    """
    given, norm = all_given(input, None, None, weight, bias), implementation(impl)
    input, eps = checked(given, 2, "(N, C, …)", eps)
    channels, num_groups = input.shape[1], whole("num_groups", num_groups, 1)
    if channels % num_groups:
        raise ValueError(f"num_groups: got {num_groups!r}, wants a divisor of {channels} channels")
    check_beside(given, (channels,))
    check_several(input, input.size // num_groups, "group")
    arrangement = arrange(FAMILY["group_norm"], input.shape, groups=num_groups)
    return _normalized("group_norm", given, arrangement, eps, norm)[0]


# --- What they share ----------------------------------------------------------------------------

_NAMES = ("input", "running_mean", "running_var", "weight", "bias")


def all_given(*values):
    """What was given, numbers and lists as arrays, in the order of `_NAMES`."""
    return tuple([as_given(value) for value in values])


def implementation(impl):
    return IMPLEMENTATIONS[choice("impl", impl, *IMPLEMENTATIONS)]


def checked(given, rank, wants, eps):
    """The input, if it is floating point with `rank` axes at least, and ε."""
    input = given[0]
    if not is_floating(getattr(input, "dtype", None)) or len(input.shape) < rank:
        raise TypeError(f"input: got {describe(input)}, wants floating point of shape {wants}")
    return input, number("eps", eps, 0)


def check_beside(given, shape):
    """γ, β and running statistics must have this shape, the input's device, and its dtype (float32
    beside float16 and bfloat16)."""
    input, *vectors = map(array_of, given)
    wanted = shape, np.dtype(accumulator(input.dtype)), device_of(input)
    for name, array in zip(_NAMES[1:], vectors):
        if array is not None and (array.shape, array.dtype, device_of(array)) != wanted:
            wants = f"{wanted[1]}{list(shape)} beside an input of {describe(input)}"
            raise ValueError(f"{name}: got {describe(array)}, wants {wants}")


def check_several(input, values, per):
    if values == 1:
        got = f"one value per {per} (shape {list(input.shape)})"
        raise ValueError(f"input: got {got}, wants more: one value has no variance")


def _featurewise(name, input, normalized_shape, weight, bias, eps, impl):
    """Layer norm and RMS norm: over the last axes, which `normalized_shape` names."""
    given, norm = all_given(input, None, None, weight, bias), implementation(impl)
    shape = integers((normalized_shape,))
    input, eps = checked(given, max(len(shape), 1), f"(…, {str(list(shape))[1:-1]})", eps)
    if not shape or input.shape[-len(shape) :] != shape:
        wants = f"the last axes of {describe(input)}"
        raise ValueError(f"normalized_shape: got {list(shape)}, wants {wants}")
    check_beside(given, shape)
    arrangement = arrange(FAMILY[name], input.shape, features=len(shape))
    return _normalized(name, given, arrangement, eps, norm)[0]


def batch_norm_by(norm, given, by_input, momentum, eps, name="batch_norm"):
    """Batch norm (or instance norm, by `name`) by a module with `normalize` and
    `normalize_inference`: by the input's statistics, which move the running ones; or by these.
    `given`: as `_NAMES`."""
    input, eps = checked(given, 2, "(N, C, …)", eps)
    _, running_mean, running_var, weight, bias = given
    arrangement = arrange(FAMILY[name], input.shape)
    if by_input:
        values = math.prod([arrangement.shape[i] for i in arrangement.axes])
        per = "channel in training" if name == "batch_norm" else "channel of a sample"
        check_several(input, values, per)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean, running_var: got only one of them, wants both or neither")
    if running_mean is None and not by_input:
        raise ValueError("running_mean: got None, wants the statistics that inference uses")
    check_beside(given, (input.shape[1],))
    if getattr(momentum, "shape", None) != () or isinstance(momentum, np.number):
        momentum = number("momentum", momentum, 0, 1)  # else an array: it was counted on a device
    if not by_input:
        vectors = (running_mean, running_var, weight, bias)
        mu, var, gamma, beta = (beside(v, arrangement) for v in vectors)
        return norm.normalize_inference(input, mu, var, gamma, beta, eps=eps)
    y, mu, var = _normalized(name, given, arrangement, eps, norm)
    if running_mean is not None and recording.statistics_move.get() and input.size:
        arrays = map(array_of, (running_mean, running_var, mu, var))
        running.move(*arrays, values, momentum)
    return y


def _normalized(name, given, arrangement: Arrangement, eps, norm):
    """(y, μ, σ²) of an input by its own statistics."""
    input, _, _, weight, bias = given
    gamma, beta = beside(weight, arrangement), beside(bias, arrangement)
    shape, axes, _ = arrangement
    x = input if shape == input.shape else ops.reshape(input, shape=shape)
    if input.size:
        member = FAMILY[name]
        y, mu, var = norm.normalize(x, gamma, beta, axes=axes, eps=eps, centred=member.centred)
        named("y", y), named(member.variance, var)  # which a single op cannot do itself
        if member.centred:
            named(member.mean, mu)
    else:  # no values have no statistics: the map is affine, and its gradients are 0
        mu, var = 0.0, array_module([array_of(x)]).ones((), x.dtype)
        y = norm.normalize_inference(x, mu, var, gamma, beta, eps=eps)
    return y if shape == input.shape else ops.reshape(y, shape=input.shape), mu, var


def beside(vector, arrangement: Arrangement):
    """γ or β, running μ or σ², in the shape in which it stands beside the input."""
    if vector is None or vector.shape == arrangement.affine[-len(vector.shape) :]:
        return vector
    return ops.reshape(vector, shape=arrangement.affine)
