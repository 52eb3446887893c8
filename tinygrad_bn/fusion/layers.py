"""Layers of x ← relu(batch_norm(x Wᵀ + b)) as one op, however many.

Where layers are small, most of the time goes into recording ops and walking back through them.
Every layer's z = x Wᵀ + b, μ, σ² and y are outputs of the op, with places in the graph; so this,
too, is right at every order.
"""

import numpy as np

from ..kernels import cpu_dense
from ..ops import linear, matmul, sum_to, transpose
from ..primitive import op
from . import norm_relu


def layers_grads(gs, outs, *arrays, needs, eps):
    """From the last layer to the first, the gradients at its W, b, γ, β and at its input."""
    (x, *parameters), g, found = arrays, None, []
    for k in reversed(range(len(eps))):
        first = 4 * k
        z, mu, var, y = outs[first : first + 4]
        g_z, g_mu, g_var, g_y = gs[first : first + 4]
        weight, bias, gamma, beta = parameters[first : first + 4]
        needs_x, *needs_parameters = needs[first : first + 5]
        below = outs[first - 1] if k else x
        g, dgamma, dbeta = norm_relu.normalize_grads(
            (_sum(g, g_y), g_mu, g_var),
            (y, mu, var),
            z,
            gamma,
            beta,
            needs=(True, *needs_parameters[2:]),
            axes=(0,),
            eps=eps[k],
        )
        g = _sum(g, g_z)
        dweight = matmul(transpose(g), below) if needs_parameters[0] else None
        dbias = sum_to(g, shape=bias.shape) if needs_parameters[1] else None
        found = [dweight, dbias, dgamma, dbeta, *found]
        g = matmul(g, weight) if k or needs_x else None
    return [g, *found]


def _sum(a, b):
    return b if a is None else a if b is None else a + b


@op("linear, normalize, relu, …", joint=layers_grads, variadic=True)
def layers(xp, *arrays, eps):
    """z, μ, σ², y of each layer, one after the other, for a list of x (N, n) and of each layer W
    (m, n), b (m,), γ (m,), β (m,), of which all but W may be None; `eps`: ε of each layer."""
    (x, *parameters), outputs = arrays, []
    for k in range(len(eps)):
        weight, bias, gamma, beta = parameters[4 * k : 4 * k + 4]
        z = linear.forward(xp, x, weight, bias)
        x, mu, var = norm_relu.normalize_forward(z, gamma, beta, axes=(0,), eps=eps[k])
        outputs += [z, mu, var, x]
    return tuple(outputs)


def small_layers_grads(gs, outs, *arrays, needs, eps):
    """As `layers_grads`, by one compiled call if nothing is to be recorded."""
    (g, g_hidden), (y, hidden), (x, *parameters) = gs, outs, arrays
    if g_hidden is None and type(g) is np.ndarray:
        return cpu_dense.run_grads(g, y, hidden, x, parameters, needs, eps)
    widths = tuple([len(weight) for weight in parameters[::4]])
    gs = [None] * (4 * len(eps) - 1) if g_hidden is None else inner_values(g_hidden, len(x), widths)
    outs = inner_values(hidden, len(x), widths)
    return layers_grads([*gs, g], [*outs, y], *arrays, needs=needs, eps=eps)


def inner_values(hidden, samples, widths):
    """z, μ, σ², y of each layer but the last y, as `layers` gives them."""
    shapes = [(rows, m) for m in widths for rows in (samples, 1, 1, samples)]
    pieces = cpu_dense.hidden_slices(samples, widths)
    return [hidden[piece].reshape(*shape) for piece, shape in zip(pieces, shapes)]


@op("linear, normalize, relu, …", joint=small_layers_grads, variadic=True)
def small_layers(xp, *arrays, eps):
    """y of the last layer, and all else that `layers` gives in one flat array, for its arguments on
    the CPU if `cpu_dense.suits` them."""
    x, *parameters = arrays
    return cpu_dense.run(x, parameters, eps)
