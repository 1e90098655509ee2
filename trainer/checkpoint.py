"""Weights on disk, as safetensors: nothing anywhere is unpickled."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn


def save_weights(network: nn.Module, path: Path) -> None:
    """The network's state by name, buffers included."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
