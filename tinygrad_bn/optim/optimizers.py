"""SGD, Adam and AdamW, as PyTorch defines them."""

from collections.abc import Iterable, Mapping

from ..graph import Tensor
from ..ops import maximum, sqrt
from .base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch defines it.

    g ← ∂ℓ/∂p + weight_decay · p;  v ← momentum · v + (1 − dampening) · g, at first v ← g;
    p ← p − lr · v (nesterov: lr · (g + momentum · v)).

    >>> import tinygrad_bn as tg
    >>> p = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([p], lr=0.5)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        params: Iterable[Tensor | dict],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def _check(self, options):
        super()._check(options)
        if options["nesterov"] and (not options["momentum"] or options["dampening"]):
            raise ValueError("nesterov: wants a momentum above 0 and no dampening")

    def _keeps(self, options):
        return ("momentum_buffer",) if options["momentum"] else ()

    def _numbers(self, options, step):
        return options["lr"], 1.0 if step == 1 else 1 - options["dampening"]

    def _direction(self, options, p, g, numbers, v=None):
        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        if v is None:
            return g
        v *= options["momentum"]
        v += numbers[0] * g if options["dampening"] else g
        return g + options["momentum"] * v if options["nesterov"] else v


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), as PyTorch defines it: a step divided by the gradients' size.

    g ← ∂ℓ/∂p + weight_decay · p;  m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  and at step t
    m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (amsgrad: of the largest v so far);  p ← p − lr · m̂/(√v̂ + eps).
    """

    saves_steps = True
    fixed: Mapping = {"maximize": False, "decoupled_weight_decay": False}

    def __init__(
        self,
        params: Iterable[Tensor | dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
        )

    def _keeps(self, options):
        return ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * bool(options["amsgrad"]))

    def _numbers(self, options, step):
        beta1, beta2 = options["betas"]
        return options["lr"], 1 - beta1**step, 1 - beta2**step

    def _direction(self, options, p, g, numbers, *state):
        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        return self._standardized(options, g, numbers, *state)

    def _standardized(self, options, g, numbers, m, v, largest=None):
        (beta1, beta2), (correction1, correction2) = options["betas"], numbers
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        if largest is not None:
            largest[...] = v = maximum(largest, v)
        return m / correction1 / (sqrt(v / correction2) + options["eps"])


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as PyTorch defines it.

    The decay is no part of the gradient: p ← p − lr · (m̂/(√v̂ + eps) + weight_decay · p).
    """

    fixed: Mapping = {"maximize": False, "decoupled_weight_decay": True}

    def __init__(
        self,
        params: Iterable[Tensor | dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def _direction(self, options, p, g, numbers, *state):
        direction = self._standardized(options, g, numbers, *state)
        return direction + options["weight_decay"] * p if options["weight_decay"] else direction
