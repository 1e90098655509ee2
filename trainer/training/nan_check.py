"""Numbers that are none end a run, at the first of them and by its name: what follows is worth nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.errors import NonFiniteError

Named = Sequence[tuple[str, nn.Parameter]]


def largest_gradients(parameters: Named) -> Tensor:
    """float [parameters]: the largest |gradient| of each, and so no finite number where one is none; 0 without one."""
    there = [parameter.grad for _, parameter in parameters if parameter.grad is not None]
    largest = iter(torch._foreach_norm(there, float("inf")))
    nothing = parameters[0][1].new_zeros(())
    return torch.stack([nothing if parameter.grad is None else next(largest) for _, parameter in parameters]).float()


def check_step(step: int, loss: float, gradients: Sequence[float], parameters: Named) -> None:
    """Raises NonFiniteError, naming step and tensor. gradients are largest_gradients of these parameters."""
    wrong = [
        name for (name, _), value in zip(parameters, gradients, strict=True) if value - value != 0
    ]  # not so for inf and nan alone
    if loss - loss != 0:
        through = f", and so is the gradient of {wrong[0]}" if wrong else ""
        raise NonFiniteError(advice(f"The training loss is {loss} at step {step}{through}"))
    if wrong:
        raise NonFiniteError(advice(f"The gradient of {wrong[0]} is no finite number at step {step}"))


def advice(what: str) -> str:
    return f"{what}; lower optimizer.learning_rate, or set optimizer.gradient_clip or precision=fp32."
