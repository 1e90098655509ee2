"""Random changes to a batch, on its device, from an explicit generator: the same seed gives the same images.

No method reads a value back from the device, because that would make the host wait for a GPU at every step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainer.errors import RecipeError
from trainer.recipe import AugmentConfig, Flip

Targets = tuple[tuple[Tensor, Tensor | float], ...]
"""(labels [batch], share of the image that has these labels): one entry, or two for a mixture. Shares sum to 1."""


class Augmenter:
    """Changes the images of a training split of `count` images; the generator lives on the images' device."""

    def __init__(self, config: AugmentConfig, count: int, generator: torch.Generator) -> None:
        self._config = config
        self._generator = generator
        # Alternating flip: half of the images, drawn once, are mirrored in even epochs and the others in odd ones, so
        # that two epochs show every image both ways (Keller Jordan, arXiv 2404.00498).
        alternating = config.flip is Flip.ALTERNATING
        self._mirrored_first = self._uniform(count if alternating else 0) < 0.5

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """images float [batch, channels, height, width] in 0..1 -> the same shape, each image changed on its own.

        index [batch] is each image's position in the split; epoch counts from 0. Raises RecipeError for a shift that
        moves the whole image away.
        """
        config = self._config
        height, width = images.shape[2:]
        if config.translate >= min(height, width):
            raise RecipeError(
                f"augment.translate={config.translate:g} shifts images of {height}x{width} pixels out of the picture. "
                f"Set it below {min(height, width)}."
            )
        if config.flip is not Flip.OFF:
            images = self._flip(images, index, epoch)
        if config.rotate or config.scale:
            images = self._affine(images)
        elif config.translate:
            images = self._translate(images)
        if config.crop:
            images = self._crop(images)
        if config.colour:
            images = self._colour(images)
        if config.cutout:
            images = self._cutout(images)
        return images

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        """Mixes each image with another one of the batch, if the recipe asks for it.

        Mixup is by Zhang et al. (2018), CutMix by Yun et al. (2019). With both, each batch draws which one it gets.
        """
        config = self._config
        if not (config.mixup or config.cutmix):
            return images, ((labels, 1.0),)
        order = torch.randperm(len(images), device=images.device, generator=self._generator)
        mixed, share = self._mixup(images, order) if config.mixup else self._cutmix(images, order)
        if config.mixup and config.cutmix:
            coin, (other, other_share) = self._uniform(1)[0] < 0.5, self._cutmix(images, order)
            mixed, share = torch.where(coin, mixed, other), torch.where(coin, share, other_share)
        return mixed, ((labels, share), (labels[order], 1 - share))

    def _mixup(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mixture and the share of the first image in it."""
        share = self._beta(self._config.mixup)
        return images * share + images[order] * (1 - share), share

    def _cutmix(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mixture and the share of the first image in it."""
        height, width = images.shape[2:]
        ratio = (1 - self._beta(self._config.cutmix)).sqrt()
        inside = self._box(1, (height, width), [(ratio * side).round().clamp(min=1) for side in (height, width)])
        return torch.where(inside, images[order], images), 1 - inside.float().mean()

    def _flip(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        if self._config.flip is Flip.ALTERNATING:
            mirrored = self._mirrored_first[index] ^ (epoch % 2 == 1)
        else:
            mirrored = self._uniform(len(images)) < 0.5
        return torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(3), images)

    def _translate(self, images: Tensor) -> Tensor:
        """Shifts by whole pixels, which blurs nothing, and by at least one; the border mirrors the image."""
        _, _, height, width = images.shape
        reach = max(1, round(self._config.translate))
        padded = functional.pad(images, (reach,) * 4, mode="reflect")
        down, right = self._integers(2 * reach + 1, len(images)), self._integers(2 * reach + 1, len(images))
        rows = down.reshape(-1, 1) + torch.arange(height, device=images.device)
        columns = right.reshape(-1, 1) + torch.arange(width, device=images.device)
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)

    def _affine(self, images: Tensor) -> Tensor:
        """Rotation, scale and shift as one bilinear resampling."""
        config, (batch, _, height, width) = self._config, images.shape
        angle, scale = self._spread(batch, math.radians(config.rotate)), 1 + self._spread(batch, config.scale)
        right = self._spread(batch, 2 * config.translate / width)
        down = self._spread(batch, 2 * config.translate / height)
        cosine, sine, ratio = torch.cos(angle) / scale, torch.sin(angle) / scale, height / width
        rows = [cosine, -sine * ratio, right, sine / ratio, cosine, down]
        # grid_sample maps output positions to input positions, both in -1..1.
        maps = torch.stack(rows, dim=1).reshape(batch, 2, 3)
        return self._resample(images, maps)

    def _crop(self, images: Tensor) -> Tensor:
        """Enlarges a random part of at least (1 - crop) of the area, with the image's aspect ratio."""
        batch = len(images)
        side = (1 - self._uniform(batch) * self._config.crop).sqrt()
        right, down = (self._spread(batch, 1.0) * (1 - side) for _ in range(2))
        zero = torch.zeros_like(side)
        maps = torch.stack([side, zero, right, zero, side, down], dim=1).reshape(batch, 2, 3)
        return self._resample(images, maps)

    def _resample(self, images: Tensor, maps: Tensor) -> Tensor:
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        padding = "reflection" if self._config.reflect else "zeros"
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)

    def _colour(self, images: Tensor) -> Tensor:
        """Multiplies brightness, contrast and saturation by random factors within 1 +- colour."""
        brightness, contrast, saturation = (
            1 + self._spread(len(images), self._config.colour).reshape(-1, 1, 1, 1) for _ in range(3)
        )
        images = images * brightness
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * contrast + mean
        grey = images.mean(dim=1, keepdim=True)
        return ((images - grey) * saturation + grey).clamp(0, 1)

    def _cutout(self, images: Tensor) -> Tensor:
        """Blackens one square of cutout x cutout pixels in each image (DeVries & Taylor, 2017)."""
        side = self._config.cutout
        return images.masked_fill(self._box(len(images), images.shape[2:], [side, side]), 0)

    def _box(self, count: int, shape: Sequence[int], size: Sequence[Tensor | int]) -> Tensor:
        """Returns bool [count, 1, height, width], true inside a box of `size` pixels around a random centre.

        The part of a box that reaches over the border is lost.
        """
        spans = []
        for length, extent in zip(shape, size, strict=True):
            start = self._integers(length, count).reshape(-1, 1) - extent // 2
            at = torch.arange(length, device=self._generator.device)
            spans.append((at >= start) & (at < start + extent))
        rows, columns = spans
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, device=self._generator.device, generator=self._generator)

    def _spread(self, count: int, largest: float) -> Tensor:
        return (self._uniform(count) * 2 - 1) * largest

    def _integers(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), device=self._generator.device, generator=self._generator)

    def _beta(self, alpha: float) -> Tensor:
        """Draws from Beta(alpha, alpha), as the quotient of two gammas."""
        concentration = torch.full((2,), alpha, device=self._generator.device)
        first, second = torch._standard_gamma(concentration, generator=self._generator)
        share: Tensor = first / (first + second)
        return share
