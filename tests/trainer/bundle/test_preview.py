from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import colour_images
from trainer.bundle.preview import augmented_batch, describe_augmentation, write_show
from trainer.data.split import Splits, split
from trainer.errors import WriteError
from trainer.recipe import AugmentConfig, DataConfig, Flip, Source


@pytest.fixture(scope="module")
def data() -> Splits:
    return split(colour_images.colours(90), DataConfig(source=Source.NPZ, validation=0.2, test=0.2, split_seed=0))


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_draws_as_many_images_as_requested_and_present(tmp_path: Path, data: Splits) -> None:
    assert write_show(tmp_path / "few.png", colour_images.recipe(), data, 3) == 3
    assert write_show(tmp_path / "all.png", colour_images.recipe(), data, 1000) == len(data.train) == 54
    assert len(pixels(tmp_path / "all.png")) > 3 * len(pixels(tmp_path / "few.png"))


def test_each_augmented_image_is_below_its_original(tmp_path: Path, data: Splits) -> None:
    """Black squares that cover the image leave no colour in the lower rows."""
    whole = colour_images.recipe(augment=AugmentConfig(cutout=40))
    write_show(tmp_path / "black.png", whole, data, 8)
    write_show(tmp_path / "plain.png", colour_images.recipe(augment=AugmentConfig()), data, 8)
    black, plain = pixels(tmp_path / "black.png"), pixels(tmp_path / "plain.png")
    colourful = [(np.ptp(picture.astype(int), axis=2) > 100).any(axis=1).mean() for picture in (black, plain)]
    assert 0.35 < colourful[0] / colourful[1] < 0.65


def test_the_seed_chooses_the_images(tmp_path: Path, data: Splits) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_show(tmp_path / f"{name}.png", colour_images.recipe(seed=seed), data, 8)
    first, same, other = (pixels(tmp_path / f"{name}.png") for name in "abc")
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_mixed_images_have_both_labels(data: Splits) -> None:
    part = data.train.take(np.array([int(np.flatnonzero(data.train.labels == label)[0]) for label in range(3)]))
    seen, ((labels, share), (others, _)) = augmented_batch(part, AugmentConfig(mixup=5.0), seed=0)
    assert labels.tolist() == [0, 1, 2] != others.tolist()
    expected = part.images[:] * float(share) + part.images[others.numpy()] * (1 - float(share))
    assert np.abs(seen - expected).max() <= 1


def test_every_augmentation_is_described() -> None:
    assert describe_augmentation(AugmentConfig()) == "no augmentation"
    assert describe_augmentation(AugmentConfig(flip=Flip.RANDOM, rotate=12, scale=0.15, mixup=0.2)) == (
        "flip=random, rotate=12.0, scale=0.15, mixup=0.2"
    )
    for name, default in AugmentConfig():
        value = {bool: True, int: 1, float: 0.5}.get(type(default), "random")
        changed = AugmentConfig.model_validate({name: value})
        assert describe_augmentation(changed) != "no augmentation"


def test_an_unwritable_picture_is_one_sentence(tmp_path: Path, data: Splits) -> None:
    with pytest.raises(WriteError, match="could not be written"):
        write_show(tmp_path / "nowhere" / "show.png", colour_images.recipe(), data, 2)
