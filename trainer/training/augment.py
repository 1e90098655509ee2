"""Random changes to a batch, on its device, from an explicit generator: the same seed gives the same images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.recipe import AugmentConfig, Flip


@dataclass(frozen=True)
class Mixed:
    """A batch whose images are each a mixture of two: of `labels` by `share`, of `others` by the rest."""

    images: Tensor
    labels: Tensor
    others: Tensor
    share: Tensor


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
        """images float [batch, channels, height, width] in 0..1 -> the same shape, each changed on its own.

        index [batch] is each image's position in the split; epoch counts from 0.
        """
        config = self._config
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

    def mix(self, images: Tensor, labels: Tensor) -> Mixed | None:
        """Mixup (Zhang et al., 2018) or CutMix (Yun et al., 2019) of each image with another of the batch.

        None where neither is asked for. With both, each batch draws which.
        """
        config = self._config
        if not (config.mixup or config.cutmix):
            return None
        use_mixup = bool(config.mixup) and (not config.cutmix or self._coin())
        alpha = config.mixup if use_mixup else config.cutmix
        order = torch.randperm(len(images), device=images.device, generator=self._generator)
        share = self._beta(alpha)
        if use_mixup:
            return Mixed(images * share + images[order] * (1 - share), labels, labels[order], share)
        inside = self._box(1, images.shape[2], images.shape[3], (1 - share).sqrt())
        mixed = torch.where(inside, images[order], images)
        return Mixed(mixed, labels, labels[order], 1 - inside.float().mean())

    def _flip(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        if self._config.flip is Flip.ALTERNATING:
            mirrored = self._mirrored_first[index] ^ (epoch % 2 == 1)
        else:
            mirrored = self._uniform(len(images)) < 0.5
        return torch.where(mirrored.reshape(-1, 1, 1, 1), images.flip(3), images)

    def _translate(self, images: Tensor) -> Tensor:
        """By whole pixels, so that nothing is blurred; what comes in at the border mirrors what is there."""
        _, _, height, width = images.shape
        reach = round(self._config.translate)
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
        # From output to input, in coordinates that run over -1..1.
        maps = torch.stack(rows, dim=1).reshape(batch, 2, 3)
        return self._resample(images, maps)

    def _crop(self, images: Tensor) -> Tensor:
        """A random part of at least (1 - crop) of the area, of the image's own aspect, enlarged to the whole."""
        batch = len(images)
        side = (1 - self._uniform(batch) * self._config.crop).sqrt()
        right, down = (self._spread(batch, 1.0) * (1 - side) for _ in range(2))
        nothing = torch.zeros_like(side)
        maps = torch.stack([side, nothing, right, nothing, side, down], dim=1).reshape(batch, 2, 3)
        return self._resample(images, maps)

    def _resample(self, images: Tensor, maps: Tensor) -> Tensor:
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        padding = "reflection" if self._config.reflect else "zeros"
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)

    def _colour(self, images: Tensor) -> Tensor:
        """Brightness, contrast and saturation, each by up to 1 +- colour."""
        brightness, contrast, saturation = (
            1 + self._spread(len(images), self._config.colour).reshape(-1, 1, 1, 1) for _ in range(3)
        )
        images = images * brightness
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * contrast + mean
        grey = images.mean(dim=1, keepdim=True)
        return ((images - grey) * saturation + grey).clamp(0, 1)

    def _cutout(self, images: Tensor) -> Tensor:
        """One black square an image, of cutout pixels a side (DeVries & Taylor, 2017)."""
        _, _, height, width = images.shape
        side = torch.tensor(self._config.cutout, device=images.device)
        inside = self._box(len(images), height, width, side / math.sqrt(height * width))
        return images.masked_fill(inside, 0)

    def _box(self, count: int, height: int, width: int, side: Tensor) -> Tensor:
        """bool [count, 1, height, width], true inside a box of `side` of each length, with its centre anywhere."""

        def span(length: int) -> Tensor:
            centre = self._integers(length, count).reshape(-1, 1)
            half = (side * length / 2).round().clamp(min=1)
            at = torch.arange(length, device=self._generator.device)
            return (at >= centre - half) & (at < centre + half)

        return (span(height)[:, :, None] & span(width)[:, None, :])[:, None]

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, device=self._generator.device, generator=self._generator)

    def _spread(self, count: int, largest: float) -> Tensor:
        return (self._uniform(count) * 2 - 1) * largest

    def _integers(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), device=self._generator.device, generator=self._generator)

    def _coin(self) -> bool:
        return bool(self._uniform(1) < 0.5)

    def _beta(self, alpha: float) -> Tensor:
        """A draw from Beta(alpha, alpha), as a quotient of two gammas."""
        concentration = torch.full((2,), alpha, device=self._generator.device)
        first, second = torch._standard_gamma(concentration, generator=self._generator)
        share: Tensor = first / (first + second)
        return share
