"""Weights on disk, as safetensors: nothing anywhere is unpickled."""

from pathlib import Path

from safetensors.torch import save
from torch import nn


def save_weights(network: nn.Module, path: Path) -> None:
    """The network's state by name, buffers included."""
    path.write_bytes(save({name: value.contiguous() for name, value in network.state_dict().items()}))
