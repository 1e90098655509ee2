"""Batches of a split, on the device: from images that lie there already, or gathered on the host as they are needed."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.data.dataset import Images, LabelledImages
from trainer.models.layers import as_input

# Of a GPU's free memory, what the images of a split may take: the rest is for the network and its activations.
RESIDENT_SHARE = 0.5


class Batches(Protocol):
    @property
    def index_device(self) -> torch.device:
        """Where the positions that batch is given must lie."""
        ...

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """float [batch, channels, height, width] in 0..1 (channels_last, as the bytes lie already), and labels."""
        ...


def batches_on(device: torch.device, data: LabelledImages) -> Batches:
    """On a GPU with room for them the images are copied there once; else each batch is, as it is needed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if _fits(data.images, free):
            return ResidentImages.on(device, data)
    return GatheredImages(data, device)


@dataclass(frozen=True)
class ResidentImages:
    """A split on the device: images stay uint8, a quarter of float's memory."""

    images: Tensor
    labels: Tensor

    @classmethod
    def on(cls, device: torch.device, data: LabelledImages) -> "ResidentImages":
        return cls(_copied(data.images, device), torch.from_numpy(data.labels).to(device))

    @property
    def index_device(self) -> torch.device:
        return self.images.device

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return as_input(self.images[index]), self.labels[index]


@dataclass(frozen=True)
class GatheredImages:
    """A split on the host, in memory or in a mapped file, of which only a batch at a time is copied."""

    data: LabelledImages
    device: torch.device

    @property
    def index_device(self) -> torch.device:
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        # From pinned memory the GPU fetches by itself, while this thread goes on to the next batch.
        pinned = self.device.type == "cuda"
        positions = index.numpy()
        images = torch.empty(len(index), *self.data.images.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        self.data.images.gather(positions, into=images.numpy())
        labels = torch.from_numpy(self.data.labels[positions])
        if pinned:
            labels = labels.pin_memory()
        return as_input(images.to(self.device, non_blocking=True)), labels.to(self.device, non_blocking=True)


def _fits(images: Images, free: int) -> bool:
    """free is in bytes."""
    return images.nbytes <= RESIDENT_SHARE * free


def _copied(images: Images, device: torch.device) -> Tensor:
    """Block by block, so that the host never holds them all."""
    copied = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for block in images.blocks():
        copied[start : start + len(block)] = torch.from_numpy(block)
        start += len(block)
    return copied
