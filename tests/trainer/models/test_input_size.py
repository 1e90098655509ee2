from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.manifest import InputSpec, Interpolation, Resize
from trainer.errors import RecipeError
from trainer.models.input_size import with_size
from trainer.network_config import BackboneConfig
from trainer.recipe import Recipe, with_settings
from trainer.recipes.registry import find_recipe


def recipe(**settings: str) -> Recipe:
    photos = find_recipe("photos", "default").model_copy(update={"network": BackboneConfig(name="efficientnet_lite0")})
    return with_settings(
        photos, {"data.input": "null"} | {key.replace("__", "."): value for key, value in settings.items()}
    )


def photos(folder: Path, *sizes: tuple[int, int]) -> Path:
    for i, size in enumerate(sizes):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", size).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.mark.parametrize(("shorter", "side"), [(20, 128), (64, 128), (65, 160), (100, 224), (111, 224), (500, 224)])
def test_takes_twice_the_shorter_side_between_128_and_the_size_of_the_weights(
    tmp_path: Path, shorter: int, side: int
) -> None:
    place = photos(tmp_path, (shorter, 2 * shorter), (shorter + 10, shorter), (3000, 4))
    config, reasons = with_size(recipe(), place)
    assert config.input.spec == InputSpec(
        height=side, width=side, channels=3, resize=Resize.CROP, interpolation=Interpolation.BICUBIC
    )
    assert f"input size {side}x{side}, " in reasons[0]


def test_keeps_what_the_settings_give(tmp_path: Path) -> None:
    place = photos(tmp_path, (300, 300), (300, 300))
    config, _ = with_size(recipe(data__input__resize="pad"), place)
    assert config.input.spec is not None
    assert config.input.spec.resize is Resize.PAD
    assert config.input.spec.height == 224
    config, reasons = with_size(recipe(data__input="160,96,3"), place)
    assert config.input.spec == InputSpec(
        height=160, width=96, channels=3, resize=Resize.CROP, interpolation=Interpolation.BICUBIC
    )
    assert not reasons


def test_unreadable_photos_do_not_count(tmp_path: Path) -> None:
    place = photos(tmp_path, (60, 60), (60, 60))
    (place / "a" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    config, _ = with_size(recipe(), place)
    assert config.input.height == 128


def test_grey_arrays_stay_grey(tmp_path: Path) -> None:
    images = np.zeros((8, 28, 28), np.uint8)
    np.savez(tmp_path / "grey.npz", train_images=images, train_labels=np.arange(8) % 2)
    config, _ = with_size(recipe(data__source="npz"), tmp_path / "grey.npz")
    assert config.input.spec is not None
    assert config.input.spec.shape == (128, 128, 1)


def test_a_network_of_fixed_size_gets_that_size(tmp_path: Path) -> None:
    place = photos(tmp_path, (60, 60), (60, 60))
    config, _ = with_size(recipe(network="test_vit"), place)
    assert config.input.height == 160


def test_published_sets_need_an_explicit_size(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.input=128,128,3"):
        with_size(recipe(data__source="digits"), tmp_path)


def test_setting_the_sides_keeps_the_way_of_resizing() -> None:
    changed = with_settings(recipe(data__input__resize="pad"), {"data.input": "64,48,3"})
    assert changed.data.input.spec == InputSpec(height=64, width=48, channels=3, resize=Resize.PAD)
    with pytest.raises(RecipeError, match="height and width must both be set"):
        with_settings(recipe(), {"data.input.height": "64"})
