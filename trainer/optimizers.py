"""The optimizer, the learning rate's course over a run, and the average of the weights along it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.head import slow_body
from trainer.recipe import OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName


def build_optimizer(network: nn.Module, config: OptimizerConfig, body_rate: float = 1.0) -> torch.optim.Optimizer:
    """Weight decay goes to matrices and filters alone: shrinking biases and norms only hurts (He et al., 2019).

    Each group's `rate` is a factor on the run's learning rate, which the loop sets; body_rate is another one, for all
    but the last layer.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "rate": config.bias_rate},
    ]
    groups = slow_body(groups, network, body_rate)
    rate = config.learning_rate
    if config.name is OptimizerName.SGD:
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=nesterov, fused=True)
    if config.name is OptimizerName.ADAM:
        return torch.optim.Adam(groups, lr=rate, fused=True)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def learning_rate_factor(config: ScheduleConfig, progress: float) -> float:
    """Factor on the learning rate at progress 0..1 of the run: 0..1, 1 at the end of the warm-up."""
    if config.name is ScheduleName.CONSTANT:
        return 1.0
    if progress < config.warm_up:
        return progress / config.warm_up
    left = (1 - progress) / (1 - config.warm_up) if config.warm_up < 1 else 1.0
    return left if config.name is ScheduleName.TRIANGULAR else (1 - math.cos(math.pi * left)) / 2


State = tuple[Tensor, ...] | list[Tensor]


def moving_average(decay: float) -> Callable[[State, State, Tensor | int], None]:
    """Exponential moving average of a network's state, as AveragedModel takes it (Polyak & Juditsky, 1992).

    The decay starts low and grows to its value, so that the first epochs do not weigh the random start.
    """

    @torch.no_grad()
    def update(average: State, current: State, updates: Tensor | int) -> None:
        if average[0].is_floating_point():
            kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(average, current, 1 - kept)
        else:  # batch norm's counters
            torch._foreach_copy_(average, current)

    return update
