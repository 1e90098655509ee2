import torch

from trainer.augment import augment
from trainer.recipe import AugmentConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dot(count: int = 64, size: int = 15) -> torch.Tensor:
    """White pixel in the centre of black images."""
    images = torch.zeros(count, 1, size, size)
    images[:, :, size // 2, size // 2] = 1
    return images


def centres(images: torch.Tensor) -> torch.Tensor:
    """[batch, 2]: row and column of each image's centre of mass."""
    size = images.shape[-1]
    mass = images.sum(dim=(1, 2, 3))
    rows = (images.sum(dim=(1, 3)) * torch.arange(size)).sum(dim=1) / mass
    columns = (images.sum(dim=(1, 2)) * torch.arange(size)).sum(dim=1) / mass
    return torch.stack([rows, columns], dim=1)


def test_nothing_asked_for_changes_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert augment(images, AugmentConfig(), seeded()) is images


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    images, config = torch.rand(4, 3, 8, 8), AugmentConfig(translate=2, rotate=20, scale=0.2)
    assert torch.equal(augment(images, config, seeded(1)), augment(images, config, seeded(1)))
    assert not torch.equal(augment(images, config, seeded(1)), augment(images, config, seeded(2)))


def test_a_shift_is_at_most_as_many_pixels_as_said_and_differs_by_image() -> None:
    moved = centres(augment(dot(), AugmentConfig(translate=3), seeded())) - 7
    assert moved.abs().max() <= 3 + 1e-4
    assert moved.abs().max() > 2
    assert moved.std(dim=0).min() > 0.5


def test_rotation_keeps_the_centre_and_moves_the_rim() -> None:
    assert torch.allclose(
        centres(augment(dot(), AugmentConfig(rotate=45), seeded())), torch.full((64, 2), 7.0), atol=1e-3
    )
    rim = torch.zeros(64, 1, 15, 15)
    rim[:, :, 7, 13] = 1
    at = centres(augment(rim, AugmentConfig(rotate=30), seeded())) - 7
    radius, angle = at.norm(dim=1), torch.atan2(at[:, 0], at[:, 1]).rad2deg().abs()
    assert torch.allclose(radius, torch.full((64,), 6.0), atol=0.5)
    assert 20 < angle.max() <= 32


def test_rotation_keeps_shapes_on_an_image_that_is_not_square() -> None:
    bar = torch.zeros(1, 1, 20, 40)
    bar[:, :, 5:15, 15:25] = 1  # a square of 100 pixels
    turned = augment(bar.repeat(32, 1, 1, 1), AugmentConfig(rotate=45), seeded())
    assert torch.allclose(turned.sum(dim=(1, 2, 3)), torch.full((32,), 100.0), rtol=0.05)


def test_scale_changes_the_area_within_its_bounds() -> None:
    square = torch.zeros(64, 1, 32, 32)
    square[:, :, 8:24, 8:24] = 1
    area = augment(square, AugmentConfig(scale=0.2), seeded()).sum(dim=(1, 2, 3)) / 256
    assert area.min() >= 0.8**2 - 0.05
    assert area.max() <= 1.2**2 + 0.05
    assert area.max() - area.min() > 0.3
