"""Batch norm whose batch is spread over several processes."""

from typing import Any

from ..backend import array_of
from ..distributed import Communicator, communicator
from ..distributed.norm import batch_norm
from ..ops import relu
from .module import Module
from .norm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm of (N, C, …) by the statistics of the rows that all ranks have: to each it is as
    if it had all of them.

    Its running statistics, too, are the same on all ranks. In training the ranks must call it
    together, also those that have no rows (an input (0, C, …)); in evaluation, or alone, it is
    what the other batch norms are.
    """

    ranks = tuple(range(2, 65))  # NumPy's arrays have at most 64 axes

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Communicator | None = None,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        impl: str = "fused",
    ) -> None:
        """`process_group`: the ranks; None is `distributed.communicator()` when it is called. All
        else is as of `BatchNorm1d`."""
        kind = {"device": device, "dtype": dtype, "bias": bias, "impl": impl}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **kind)
        self.process_group = process_group

    def _by(self, norm, input):
        comm = self.process_group or communicator()
        by_batch = self.training or self.running_mean is None
        if comm.size == 1 or not by_batch:
            return super()._by(norm, input)
        self._check_shape(input)
        found = batch_norm(input, self.weight, self.bias, self.eps, self.impl, comm)
        if found is None:  # no rank has a row
            return super()._by(norm, input)
        y, mu, var, m = found
        self.observe(array_of(mu), array_of(var), m)
        return y

    def forward_relu(self, input):
        return relu(self(input))

    @staticmethod
    def convert_sync_batchnorm(module: Module, process_group: Communicator | None = None) -> Module:
        """As `nn.convert_sync_batchnorm`."""
        return convert_sync_batchnorm(module, process_group)


def convert_sync_batchnorm(module: Module, process_group: Communicator | None = None) -> Module:
    """The module, in which a SyncBatchNorm of these ranks is in the place of each batch norm, with
    its parameters, statistics and hooks: so an optimizer may have been made before. If `module` is
    a batch norm itself, the answer is another module.

    >>> from tinygrad_bn import nn
    >>> model = convert_sync_batchnorm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    >>> [type(module).__name__ for module in model.children()]
    ['Linear', 'SyncBatchNorm']
    """
    return _converted(module, process_group, {})


def _converted(module: Module, process_group: Communicator | None, twins: dict) -> Module:
    """`twins`: the SyncBatchNorm of each batch norm so far, which may stand in several places."""
    if isinstance(module, _BatchNorm):
        if module not in twins:
            twin = twins[module] = SyncBatchNorm.__new__(SyncBatchNorm)
            twin.__dict__.update(module.__dict__, process_group=process_group)
            for home in ("_parameters", "_buffers", "_modules"):
                twin.__dict__[home] = dict(module.__dict__[home])
        return twins[module]
    for name, child in module.named_children():
        setattr(module, name, _converted(child, process_group, twins))
    return module
