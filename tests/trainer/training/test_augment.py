import pytest
import torch

from trainer.errors import RecipeError
from trainer.recipe import AugmentConfig, Flip
from trainer.training.augment import Augmenter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(images: torch.Tensor, config: AugmentConfig, generator: torch.Generator, epoch: int = 0) -> torch.Tensor:
    return Augmenter(config, len(images), generator)(images, torch.arange(len(images)), epoch)


def dot(count: int = 64, size: int = 15) -> torch.Tensor:
    """White pixel in the centre of black images."""
    images = torch.zeros(count, 1, size, size)
    images[:, :, size // 2, size // 2] = 1
    return images


def centres(images: torch.Tensor) -> torch.Tensor:
    """Returns [batch, 2]: row and column of each image's centre of mass."""
    size = images.shape[-1]
    mass = images.sum(dim=(1, 2, 3))
    rows = (images.sum(dim=(1, 3)) * torch.arange(size)).sum(dim=1) / mass
    columns = (images.sum(dim=(1, 2)) * torch.arange(size)).sum(dim=1) / mass
    return torch.stack([rows, columns], dim=1)


def test_images_do_not_change_without_augmentation() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert augment(images, AugmentConfig(), seeded()) is images


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    images, config = torch.rand(4, 3, 8, 8), AugmentConfig(translate=2, rotate=20, scale=0.2)
    assert torch.equal(augment(images, config, seeded(1)), augment(images, config, seeded(1)))
    assert not torch.equal(augment(images, config, seeded(1)), augment(images, config, seeded(2)))


@pytest.mark.parametrize("rotate", [0.0, 1e-6], ids=["whole-pixels", "resampled"])
def test_a_shift_stays_within_its_limit_and_differs_by_image(rotate: float) -> None:
    moved = centres(augment(dot(), AugmentConfig(translate=3, rotate=rotate), seeded())) - 7
    assert moved.abs().max() <= 3 + 1e-4
    assert moved.abs().max() > 2
    assert moved.std(dim=0).min() > 0.5
    assert bool(torch.equal(moved, moved.round())) is (rotate == 0)


def test_a_shift_mirrors_the_image_at_the_border() -> None:
    images = torch.full((32, 3, 8, 8), 0.5)
    assert torch.equal(augment(images, AugmentConfig(translate=2), seeded()), images)


@pytest.mark.parametrize("translate", [0.1, 0.5, 1.4])
def test_a_shift_by_less_than_a_pixel_and_a_half_is_one_by_one_pixel(translate: float) -> None:
    moved = centres(augment(dot(), AugmentConfig(translate=translate), seeded())) - 7
    assert set(moved.flatten().tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("rotate", [0.0, 5.0])
def test_a_shift_by_the_whole_image_is_refused(rotate: float) -> None:
    images = torch.rand(2, 3, 8, 12)
    augment(images, AugmentConfig(translate=7, rotate=rotate), seeded())
    message = "augment.translate=8 shifts images of 8x12 pixels out of the picture. Set it below 8."
    with pytest.raises(RecipeError, match=message):
        augment(images, AugmentConfig(translate=8, rotate=rotate), seeded())


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


def arrows(count: int = 200) -> torch.Tensor:
    """Dark on the left, bright on the right."""
    return torch.linspace(0, 1, 8).repeat(count, 1, 8, 1)


def test_random_flip_mirrors_about_half_of_the_images() -> None:
    images = arrows()
    flipped = augment(images, AugmentConfig(flip=Flip.RANDOM), seeded())
    mirrored = flipped[:, 0, 0, 0] == 1
    assert 60 < int(mirrored.sum()) < 140
    assert torch.equal(flipped[mirrored], images[mirrored].flip(3))
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def test_alternating_flip_shows_every_image_both_ways_in_two_epochs() -> None:
    augmenter = Augmenter(AugmentConfig(flip=Flip.ALTERNATING), 200, seeded())
    index = torch.arange(200)
    first, second, third = (augmenter(arrows(), index, epoch) for epoch in range(3))
    assert torch.equal(first, second.flip(3))
    assert torch.equal(first, third)
    assert 60 < int((first[:, 0, 0, 0] == 1).sum()) < 140
    shuffled = index.flip(0)
    assert torch.equal(augmenter(arrows(), shuffled, 0), first[shuffled])


def test_a_crop_keeps_at_least_the_given_part_of_the_image() -> None:
    ramp = torch.linspace(0, 1, 32).repeat(128, 1, 32, 1)
    cropped = augment(ramp, AugmentConfig(crop=0.75, reflect=True), seeded())
    span = cropped[:, 0, 0, -1] - cropped[:, 0, 0, 0]
    assert span.min() >= 0.5 - 0.05
    assert span.max() <= 1
    assert span.std() > 0.05


def test_colour_changes_brightness_and_stays_in_range() -> None:
    images = torch.rand(64, 3, 8, 8, generator=seeded(5))
    changed = augment(images, AugmentConfig(colour=0.5), seeded())
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
@pytest.mark.parametrize("side", [1, 4, 5, 7])
def test_cutout_blackens_one_square_of_its_side_in_each_image(shape: tuple[int, int], side: int) -> None:
    holes = augment(torch.ones(256, 3, *shape), AugmentConfig(cutout=side), seeded()) == 0
    assert torch.equal(holes[:, 0], holes[:, 2])
    heights, widths = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(holes[:, 0].sum(dim=(1, 2)), heights * widths)
    assert heights.max() == widths.max() == side
    assert min(heights.min(), widths.min()) >= side // 2  # the rest is outside the image
    assert len({tuple(hole.flatten().tolist()) for hole in holes[:, 0]}) > 100


@pytest.mark.parametrize("shape", [(16, 16), (12, 30)])
def test_the_box_of_cutmix_has_odd_and_even_sides(shape: tuple[int, int]) -> None:
    images = torch.stack([torch.zeros(1, *shape), torch.ones(1, *shape)])
    augmenter, sides = Augmenter(AugmentConfig(cutmix=1), 2, seeded()), set()
    for _ in range(400):
        mixed, _ = augmenter.mix(images, torch.arange(2))
        rows = (mixed[0, 0] == 1).any(dim=1)
        if not rows[0] and not rows[-1]:  # the whole box is inside the image
            sides.add(int(rows.sum()))
    assert sides >= {3, 4, 5, 6}


@pytest.mark.parametrize(
    "config",
    [AugmentConfig(mixup=1), AugmentConfig(cutmix=1), AugmentConfig(mixup=1, cutmix=1)],
    ids=["mixup", "cutmix", "either"],
)
def test_each_label_of_a_mixture_has_the_share_of_its_image(config: AugmentConfig) -> None:
    labels = torch.arange(10)
    images = (labels / 10).reshape(-1, 1, 1, 1).expand(10, 1, 16, 16)
    augmenter = Augmenter(config, 10, seeded())
    for _ in range(20):
        mixed, targets = augmenter.mix(images, labels)
        expected = torch.stack([each / 10 * share for each, share in targets]).sum(dim=0)
        assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected, atol=1e-5)


def test_with_mixup_and_cutmix_about_half_of_the_batches_get_each() -> None:
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    augmenter = Augmenter(AugmentConfig(mixup=1, cutmix=1), 2, seeded())
    batches = [augmenter.mix(images, torch.arange(2))[0] for _ in range(400)]
    blended = sum(bool(((batch > 0) & (batch < 1)).any()) for batch in batches)
    assert 60 < blended < 140  # half of the batches, and of these half mix an image with another one


def test_without_mixup_and_cutmix_images_keep_their_label() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    assert Augmenter(AugmentConfig(), 4, seeded()).mix(images, labels) == (images, ((labels, 1.0),))


def test_a_vertical_flip_mirrors_about_half_of_the_images_top_to_bottom() -> None:
    images = arrows().transpose(2, 3)
    flipped = augment(images, AugmentConfig(vertical_flip=True), seeded())
    mirrored = flipped[:, 0, 0, 0] == 1
    assert 60 < int(mirrored.sum()) < 140
    assert torch.equal(flipped[mirrored], images[mirrored].flip(2))
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def test_a_crop_of_another_aspect_ratio_stretches_within_its_limit() -> None:
    rows, columns = torch.linspace(0, 1, 64).reshape(1, 1, 64, 1), torch.linspace(0, 1, 64).reshape(1, 1, 1, 64)
    ramps = torch.cat([rows.expand(1, 1, 64, 64), columns.expand(1, 1, 64, 64)], dim=1).repeat(200, 1, 1, 1)
    cropped = augment(ramps, AugmentConfig(crop=0.5, aspect=1 / 3, reflect=True), seeded())
    height = cropped[:, 0, -1, 0] - cropped[:, 0, 0, 0]
    width = cropped[:, 1, 0, -1] - cropped[:, 1, 0, 0]
    assert max((width / height).max(), (height / width).max()) <= 4 / 3 + 0.05
    assert (width / height).max() > 1.2
    assert (width / height).min() < 1 / 1.2


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_changes_images_differently_and_repeats_with_the_seed(channels: int) -> None:
    images = torch.rand(1, channels, 16, 16, generator=seeded(5)).repeat(32, 1, 1, 1)
    config = AugmentConfig(trivial=True)
    before = torch.get_rng_state()
    changed = augment(images, config, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(changed, augment(images, config, seeded(1)))
    assert not torch.equal(changed, augment(images, config, seeded(2)))
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 10
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_erasing_fills_a_rectangle_of_some_images_with_noise() -> None:
    erased = augment(torch.full((400, 3, 32, 32), 2.0), AugmentConfig(erase=0.25), seeded()) != 2
    areas = erased[:, 0].float().mean(dim=(1, 2))
    assert 60 < int((areas > 0).sum()) < 140
    assert areas.max() <= 0.33 + 0.03
    for hole in erased[areas > 0, 0]:
        assert int(hole.sum()) == int(hole.any(dim=0).sum()) * int(hole.any(dim=1).sum())
