"""Stops at the first NaN or infinity in the loss or a gradient, and names the step and the tensor."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.errors import NonFiniteError

NamedParameters = Sequence[tuple[str, nn.Parameter]]


def largest_gradients(parameters: NamedParameters) -> Tensor:
    """Returns float32 [parameters]: each parameter's largest |gradient|, or 0 for a parameter without a gradient.

    A NaN or infinity in a gradient makes its entry NaN or infinite.
    """
    gradients = [parameter.grad for _, parameter in parameters if parameter.grad is not None]
    largest = iter(torch._foreach_norm(gradients, float("inf")))
    zero = parameters[0][1].new_zeros(())
    return torch.stack([zero if parameter.grad is None else next(largest) for _, parameter in parameters]).float()


def check_step(step: int, loss: float, gradients: Sequence[float], parameters: NamedParameters) -> None:
    """Raises NonFiniteError for a loss or gradient that is not finite; gradients are from largest_gradients."""
    bad = [name for (name, _), value in zip(parameters, gradients, strict=True) if not math.isfinite(value)]
    if not math.isfinite(loss):
        also = f", and so is the gradient of {bad[0]}" if bad else ""
        raise NonFiniteError(with_advice(f"The training loss is {loss} at step {step}{also}"))
    if bad:
        raise NonFiniteError(with_advice(f"The gradient of {bad[0]} is not finite at step {step}"))


def with_advice(fault: str) -> str:
    return f"{fault}. Lower optimizer.learning_rate, or set optimizer.gradient_clip or precision=fp32."
