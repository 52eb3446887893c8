"""What a run's settings say, made: the model, the optimizer, the schedule of the learning rate."""

import math
from collections.abc import Iterable

from .. import optim, random_numbers
from ..backend import device
from ..graph import Tensor
from ..nn import Module
from ..optim import lr_scheduler
from .config import Config
from .datasets import Dataset
from .models import MODELS, Between


def make_model(config: Config, data: Dataset, where: str) -> Module:
    """The network for these data, on device `where`, with the first weights of its seed."""
    config = config.filled()
    random_numbers.manual_seed(config.seed)
    with device(where):
        return MODELS[config.model](
            data.x.shape[1:],
            len(data.classes),
            Between(config.norm, config.impl, config.activation),
            width=config.width,
            depth=config.depth,
            dropout=config.dropout,
        )


def make_optimizer(config: Config, parameters: Iterable[Tensor]) -> optim.Optimizer:
    config = config.filled()
    how = {"lr": config.lr, "weight_decay": config.weight_decay}
    return {
        "sgd": lambda: optim.SGD(parameters, **how, momentum=config.momentum),
        "adam": lambda: optim.Adam(parameters, **how),
        "adamw": lambda: optim.AdamW(parameters, **how),
    }[config.optimizer]()


def make_schedule(config: Config, optimizer: optim.Optimizer) -> lr_scheduler.LRScheduler:
    lower = [math.ceil(share * config.epochs) for share in (1 / 2, 3 / 4)]
    return {
        "constant": lambda: lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, config.epochs),
        "step": lambda: lr_scheduler.MultiStepLR(optimizer, lower),
    }[config.schedule]()
