"""Random changes to a batch, on its device, from an explicit generator: the same seed gives the same images.

No method reads a value back from the device, because that would make the host wait for a GPU at every step.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainer.recipe import AugmentConfig, Flip

Targets = tuple[tuple[Tensor, Tensor | float], ...]
"""(labels [batch], share of the image that has these labels): one entry, or two for a mixture. Shares sum to 1."""


class Augmenter:
    """Changes the images of a training split of `count` images; the generator lives on the images' device."""

    def __init__(self, config: AugmentConfig, count: int, generator: torch.Generator) -> None:
        self._config = config
        self._generator = generator
        self._trivial = _trivial_augment() if config.trivial else None
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
        images = self._move(self._flip(images, index, epoch))
        if config.crop or config.aspect:
            images = self._crop(images)
        if self._trivial is not None:
            images = self._change_trivially(images)
        if config.colour:
            images = self._colour(images)
        if config.cutout:
            images = self._cutout(images)
        if config.erase:
            images = self._erase(images)
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
            images = _mirrored(images, self._mirrored_first[index] ^ (epoch % 2 == 1), axis=3)
        elif self._config.flip is Flip.RANDOM:
            images = _mirrored(images, self._uniform(len(images)) < 0.5, axis=3)
        if self._config.vertical_flip:
            images = _mirrored(images, self._uniform(len(images)) < 0.5, axis=2)
        return images

    def _move(self, images: Tensor) -> Tensor:
        config, (height, width) = self._config, images.shape[2:]
        config.check_size(height, width)
        if config.rotate or config.scale:
            return self._affine(images)
        return self._translate(images) if config.translate else images

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
        """Enlarges a random part of at least (1 - crop) of the area, of another shape by up to aspect.

        Source: Szegedy et al., 2015.
        """
        batch = len(images)
        side = (1 - self._uniform(batch) * self._config.crop).sqrt()
        stretch = self._spread(batch, math.log1p(self._config.aspect) / 2).exp() if self._config.aspect else 1
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
        right, down = self._spread(batch, 1.0) * (1 - width), self._spread(batch, 1.0) * (1 - height)
        zero = torch.zeros_like(side)
        maps = torch.stack([width, zero, right, zero, height, down], dim=1).reshape(batch, 2, 3)
        return self._resample(images, maps)

    def _change_trivially(self, images: Tensor) -> Tensor:
        """Changes each image by one random operation of random strength (TrivialAugment; Müller & Hutter, 2021).

        torchvision draws from PyTorch's global generator, which is seeded here by the step's own seed.
        """
        assert self._trivial is not None  # noqa: S101 - as the caller checks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._generator.initial_seed())
            changed = [self._trivial(image) for image in (images * 255).round().byte()]
        return torch.stack(changed).to(images.dtype) / 255

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

    def _erase(self, images: Tensor) -> Tensor:
        """Fills a rectangle of 2% to 33% of the area with noise (random erasing; Zhong et al., 2020)."""
        count, (height, width) = len(images), images.shape[2:]
        area = 0.02 + 0.31 * self._uniform(count).reshape(-1, 1)
        stretch = self._spread(count, math.log(10 / 3) / 2).exp().reshape(-1, 1)
        size = [
            (part * side).round().long().clamp(min=1)
            for part, side in ((area.sqrt() * stretch, height), (area.sqrt() / stretch, width))
        ]
        chosen = (self._uniform(count) < self._config.erase).reshape(-1, 1, 1, 1)
        noise = torch.rand(images.shape, device=self._generator.device, generator=self._generator).to(images.dtype)
        return torch.where(chosen & self._box(count, (height, width), size), noise, images)

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


def _mirrored(images: Tensor, chosen: Tensor, axis: int) -> Tensor:
    return torch.where(chosen.reshape(-1, 1, 1, 1), images.flip(axis), images)


def _trivial_augment() -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide  # noqa: PLC0415 - few runs need it

    transform: Callable[[Tensor], Tensor] = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    return transform
