"""Describes a network as a table of its layers, their output shapes and their parameters."""

import torch
from torch import Tensor, nn

from trainer.models.layers import Shape


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def summary(network: nn.Module, shape: Shape) -> str:
    """Returns a table of the modules without submodules, in the order in which they run."""
    rows: list[tuple[str, str, str, str]] = []

    def note(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            size = " x ".join(str(length) for length in output.shape[1:])
            rows.append((name, type(module).__name__, size, f"{parameter_count(module):,}"))

        handles.append(module.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in network.named_modules():
        if not list(module.children()):
            note(name, module)
    network.eval()(torch.zeros(1, shape.channels, shape.height, shape.width))
    for handle in handles:
        handle.remove()
    return _table(rows) + f"\n\n{parameter_count(network):,} parameters\n"


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    header = ("layer", "kind", "output (channels x height x width)", "parameters")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(4)]
    lines = [
        f"{layer:<{widths[0]}}  {kind:<{widths[1]}}  {size:<{widths[2]}}  {count:>{widths[3]}}"
        for layer, kind, size, count in [header, *rows]
    ]
    return "\n".join(lines)
