import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.image import encode_png
from trainer.data.detect import check_data_option, open_source, recipe_for_path
from trainer.data.digits import DigitsSource
from trainer.data.split import split
from trainer.data.torchvision_datasets import CIFAR10_SET, MNIST_SET, PublishedSet, PublishedSource
from trainer.errors import DataError, RecipeError
from trainer.recipe import Source, with_settings
from trainer.recipes.registry import RECIPES, find_recipe


def test_digits_are_1797_grey_images_of_8x8_over_the_whole_range() -> None:
    data = DigitsSource().load()
    images = data.train.images[:]
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert data.labels == tuple("0123456789")
    assert set(np.unique(images)) <= {round(value * 255 / 16) for value in range(17)}


def test_mnist_is_read_from_the_data_folder(real_data: Path) -> None:
    data = open_source(find_recipe("mnist", "default").data, real_data).load()
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert data.test is not None
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert data.labels == tuple("0123456789")
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_cut_mnist_file_is_one_sentence(real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (real_data / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000])
    with pytest.raises(DataError, match="mnist"):
        PublishedSource(MNIST_SET, tmp_path).load()


def test_mnist_files_that_are_no_idx_files_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"not an idx file")
    with pytest.raises(DataError, match="Put the published files there"):
        PublishedSource(MNIST_SET, tmp_path).load()


@pytest.mark.parametrize("published", [MNIST_SET, CIFAR10_SET], ids=lambda published: published.name)
def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path, published: PublishedSet) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DataError, match=f"{published.name} could not be read"):
        PublishedSource(published, tmp_path / "data").load()


def test_published_images_are_resized_where_a_size_is_set(real_data: Path, tmp_path: Path) -> None:
    config = with_settings(find_recipe("mnist", "default"), {"data.input": "10,12,3"}).data
    for start in ("decoded in", "decoded before"):
        data = open_source(config, real_data, cache=tmp_path).load()
        assert data.train.images.shape == (60_000, 10, 12, 3)
        assert data.notes[0] == "images resized to 10x12 (stretch)"
        assert data.notes[1].startswith(start)


# What each source needs beside the recipe's own settings: sources differ in what they bring with them.
DIVIDED = {"data.test": "0.2", "data.validation": "0.2"}
NEEDED: dict[Source, dict[str, Any]] = {
    Source.DIGITS: DIVIDED,
    Source.CSV: {"data.test": 0},
    Source.FOLDER: {**DIVIDED, "data.input": "12,12,3"},
    Source.NPZ: DIVIDED,
}


def lay_out(source: Source, folder: Path) -> Path:
    """Writes data of two classes for this kind of source."""
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    if source is Source.FOLDER:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (folder / f"class {label}").mkdir(exist_ok=True)
            (folder / f"class {label}" / f"{i}.png").write_bytes(encode_png(image))
    elif source is Source.CSV:
        for part in ("", "_test"):
            np.savetxt(folder / f"input{part}.csv", images.reshape(40, -1), "%d", ",")
            np.savetxt(folder / f"labels{part}.csv", labels, "%d")
    elif source is Source.NPZ:
        np.savez(folder / "data.npz", images=images, labels=labels)
    return folder


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("source", NEEDED)
def test_every_recipe_takes_every_source(tmp_path: Path, name: str, source: Source) -> None:
    settings = {"data.source": source, "data.labels": "", "data.validation": 0.1, **NEEDED[source]}
    recipe = with_settings(find_recipe(name, "default"), settings)
    data = split(open_source(recipe.data, lay_out(source, tmp_path)).load(), recipe.data)
    assert len(data.labels) == (10 if source is Source.DIGITS else 2)
    assert all(len(part) for part in (data.train, data.validation, data.test))
    assert data.train.images.shape[1:] == data.input.shape == (recipe.data.input.spec or data.input).shape


def test_a_source_without_a_test_split_needs_its_share(tmp_path: Path) -> None:
    recipe = with_settings(find_recipe("mnist", "default"), {"data.source": "npz"})
    with pytest.raises(DataError, match=r"data has no test split of its own\. .* --set data\.test=0\.2"):
        split(open_source(recipe.data, lay_out(Source.NPZ, tmp_path)).load(), recipe.data)


def test_photos_need_a_size(tmp_path: Path) -> None:
    recipe = with_settings(find_recipe("digits", "default"), {"data.source": "folder"})
    with pytest.raises(RecipeError, match=r"--set data\.input=64,64,3"):
        open_source(recipe.data, tmp_path)


@pytest.mark.parametrize(
    ("source", "name"), [(Source.FOLDER, "photos"), (Source.NPZ, "photos"), (Source.CSV, "cats-dogs")]
)
def test_data_is_known_by_its_content_and_gets_the_recipe_made_for_it(
    tmp_path: Path, source: Source, name: str
) -> None:
    recipe = recipe_for_path(lay_out(source, tmp_path))
    assert (recipe.name, recipe.data.source) == (name, source)
    if source is Source.FOLDER:  # else the size follows the photos, as tests/trainer/models/test_input_size.py shows
        recipe = with_settings(recipe, NEEDED[source])
    assert len(split(open_source(recipe.data, tmp_path).load(), recipe.data).labels) == 2


def test_rows_without_a_test_split_are_divided_as_photos_are(tmp_path: Path) -> None:
    for file in lay_out(Source.CSV, tmp_path).glob("*_test.csv"):
        file.unlink()
    recipe = recipe_for_path(tmp_path)
    assert len(split(open_source(recipe.data, tmp_path).load(), recipe.data).test) == 4


@pytest.mark.parametrize("within", ["", "train"])
def test_photos_are_read_beside_a_table_of_something_else(tmp_path: Path, within: str) -> None:
    (tmp_path / within).mkdir(exist_ok=True)
    lay_out(Source.FOLDER, tmp_path / within)
    (tmp_path / "notes.csv").write_text("day,weather\nmonday,rain\n")
    check_data_option(Source.FOLDER, tmp_path)


def test_folders_of_listed_photos_are_not_taken_for_classes(tmp_path: Path) -> None:
    for part in ("part 1", "part 2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"{part}.png").write_bytes(encode_png(np.zeros((9, 9, 3), np.uint8)))
    (tmp_path / "list.csv").write_text("image,label\npart 1,cat\npart 2,dog\n")
    with pytest.raises(RecipeError, match=r"add --set data\.source=csv"):
        check_data_option(Source.FOLDER, tmp_path)


@pytest.mark.parametrize(("place", "source"), [("MNIST/raw", "mnist"), ("cifar-10-batches-py", "cifar10")])
def test_published_files_are_known_by_their_folder(tmp_path: Path, place: str, source: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert recipe_for_path(tmp_path).data.source == source


def test_refuses_data_of_an_unknown_format(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RecipeError, match=r"is neither a recipe \(digits, .*\) nor data: a folder"):
            recipe_for_path(place)
