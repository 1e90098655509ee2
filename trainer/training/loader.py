"""Batches of a split on the device: from images that lie there already, or copied from the host batch by batch."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer.data.dataset import Images, LabelledImages
from trainer.models.layers import as_input

# Largest share of a GPU's free memory for the images of a split; the network and its activations need the rest.
RESIDENT_SHARE = 0.5


class Batches(Protocol):
    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images and labels at the positions `index`, int64 [batch] on the CPU.

        Images are float [batch, channels, height, width] in 0..1, channels_last like the bytes they come from.
        """
        ...


def batches_on(device: torch.device, data: LabelledImages) -> Batches:
    """Copies the whole split to a GPU that has room for it; otherwise each batch is copied when it is needed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if _fits(data.images, free):
            return ResidentImages.on(device, data)
    return GatheredImages(data, device)


@dataclass(frozen=True)
class ResidentImages:
    """A split on the device. Images stay uint8, a quarter of the memory of float32."""

    images: Tensor
    labels: Tensor

    @classmethod
    def on(cls, device: torch.device, data: LabelledImages) -> "ResidentImages":
        return cls(_copy(data.images, device), torch.from_numpy(data.labels).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        index = index.to(self.labels.device, non_blocking=True)
        return as_input(self.images[index]), self.labels[index]


@dataclass(frozen=True)
class GatheredImages:
    """A split on the host, in memory or in a mapped file. Only one batch at a time is copied."""

    data: LabelledImages
    device: torch.device

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        # The GPU copies from pinned memory while this thread prepares the next batch.
        pinned = self.device.type == "cuda"
        positions = index.numpy()
        images = torch.empty(len(index), *self.data.images.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        self.data.images.gather(positions, into=images.numpy())
        labels = torch.from_numpy(self.data.labels[positions])
        if pinned:
            labels = labels.pin_memory()
        return as_input(images.to(self.device, non_blocking=True)), labels.to(self.device, non_blocking=True)


def _fits(images: Images, free_bytes: int) -> bool:
    return images.nbytes <= RESIDENT_SHARE * free_bytes


def _copy(images: Images, device: torch.device) -> Tensor:
    """Copies block by block, so that the host never holds all images."""
    copied = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for block in images.blocks():
        copied[start : start + len(block)] = torch.from_numpy(block)
        start += len(block)
    return copied
