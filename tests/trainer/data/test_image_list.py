from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.image import decode_image
from schemas.manifest import InputSpec
from tests.support.bundles import COLOURS, write_solid
from trainer.data.dataset import DataSource
from trainer.data.detect import open_source
from trainer.errors import DataError
from trainer.models.input_size import with_size
from trainer.recipe import DataConfig, Source
from trainer.recipes.registry import find_recipe

SPEC = InputSpec(height=6, width=6, channels=3)
COUNT = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos, 0 to 5, red, green and blue in turn."""
    for i in range(COUNT):
        write_solid(tmp_path / "photos" / f"photo {i}.png", list(COLOURS)[i % 3], (10, 7 + i))
    return tmp_path


def labels(i: int) -> str:
    return list(COLOURS)[i % 3]


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def source(place: Path, **settings: Any) -> DataSource:
    return open_source(DataConfig(source=Source.CSV, validation=0.2, **settings).with_input(SPEC), place)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename,label", "photos/photo {i}.png,{label}"),
        ("id,breed", "photo {i},{label}"),
        ("Bild;Sorte", "photos\\photo {i}.png;{label}"),
        ('"image","what it shows"', '"photo {i}.png","{label}"'),
        ("label,path", "{label},/kaggle/input/photo {i}.png"),
        (",image_id,category", "{i},photo {i}.png,{label}"),
        ("", "photo {i}.png,{label}"),
    ],
)
def test_a_list_names_photos_and_labels_in_columns_of_any_names(folder: Path, header: str, row: str) -> None:
    write(folder / "labels.csv", *filter(None, [header]), *(row.format(i=i, label=labels(i)) for i in range(COUNT)))
    for place in (folder, folder / "labels.csv"):
        data = source(place).load()
        assert data.labels == ("blue", "green", "red")
        assert [data.labels[label] for label in data.train.labels] == [labels(i) for i in range(COUNT)]
        image = (folder / "photos" / "photo 3.png").read_bytes()
        assert np.array_equal(data.train.images[3], decode_image(image, SPEC))
        assert data.train.name(3) == "photos/photo 3.png"


def test_columns_of_0_and_1_are_classes(folder: Path) -> None:
    rows = [f"photo {i},{','.join(str(float(labels(i) == name)) for name in COLOURS)}" for i in range(COUNT)]
    write(folder / "truth.csv", f"image,{','.join(COLOURS)}", *rows)
    data = source(folder).load()
    assert [data.labels[label] for label in data.train.labels] == [labels(i) for i in range(COUNT)]
    write(folder / "truth.csv", f"image,{','.join(COLOURS)}", *rows, "photo 0,1,1,0")
    with pytest.raises(DataError, match=r"Columns 2, 3, 4 .* could be the label"):
        source(folder).load()


def test_numbers_that_are_names_of_photos_in_several_folders_are_not_the_column_of_photos(tmp_path: Path) -> None:
    rows = []
    for i, name in enumerate(COLOURS):
        for part in ("train", "valid", "test"):
            write_solid(tmp_path / part / name / f"{i}.png", name)
            rows.append(f"{i},{part}/{name}/{i}.png,{name},{part},Color {name}")
    write(tmp_path / "colours.csv", "class id,filepaths,labels,data set,scientific name", *rows)
    data = source(tmp_path).load()
    assert data.labels == tuple(sorted(COLOURS))
    assert [len(part) for part in data.parts] == [3, 3, 3]


def test_numbers_take_the_given_names_and_a_changed_list_is_read_again(folder: Path) -> None:
    write(folder / "train.csv", "file,y", *(f"photo {i}.png,{i % 2}" for i in range(COUNT)))
    data = source(folder, labels=("even", "odd")).load()
    assert (data.labels, data.train.labels.tolist()) == (("even", "odd"), [0, 1, 0, 1, 0, 1])
    write(folder / "train.csv", "file,y", *(f"photo {i}.png,{1 - i % 2}" for i in range(COUNT)))
    assert source(folder, labels=("even", "odd")).load().train.labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_splits_come_from_a_column_or_from_the_names_of_the_lists(folder: Path) -> None:
    usage = ["train", "val", "test"] * 2
    write(folder / "all.csv", "path,split,class", *(f"photo {i}.png,{usage[i]},{labels(i // 3)}" for i in range(COUNT)))
    by_column = source(folder).load()
    (folder / "all.csv").unlink()
    for name in ("train", "val", "test"):
        listed = [f"photo {i}.png,{labels(i // 3)}" for i in range(COUNT) if usage[i] == name]
        write(folder / f"{name}.csv", "path,class", *listed)
    write(folder / "sample_submission.csv", "path,class", "photo 0.png,red")
    by_name = source(folder).load()
    for data in (by_column, by_name):
        assert data.validation is not None
        assert data.test is not None
        names = [[part.name(i) for i in range(len(part))] for part in (data.train, data.validation, data.test)]
        assert names == [[f"photos/photo {i}.png" for i in pair] for pair in ((0, 3), (1, 4), (2, 5))]
        assert data.test.labels.tolist() == [data.labels.index("red"), data.labels.index("green")]


def test_an_ambiguous_label_column_names_the_setting(folder: Path) -> None:
    write(folder / "list.csv", "path,animal,colour", *(f"photo {i}.png,pet,{labels(i)}" for i in range(COUNT)))
    with pytest.raises(DataError, match=r"Columns 2, 3 of list\.csv could be the label\. Set data\.label_column"):
        source(folder).load()
    assert source(folder, label_column="colour").load().labels == ("blue", "green", "red")
    assert source(folder, label_column="2").load().labels == ("pet",)


def test_another_label_column_of_the_same_list_is_read_again(folder: Path) -> None:
    write(folder / "list.csv", "path,a,b", *(f"photo {i}.png,{i % 2},{1 - i % 2}" for i in range(COUNT)))
    for column, first in (("a", 0), ("b", 1)):
        assert source(folder, label_column=column).load().train.labels[0] == first


def test_files_that_are_missing_or_named_twice_are_listed(folder: Path) -> None:
    write_solid(folder / "more" / "photo 1.png", "red")
    write(folder / "list.csv", "path,label", *(f"photo {i}.png,{labels(i)}" for i in range(COUNT)), "gone.png,red")
    with pytest.raises(
        DataError, match=r"2 of 7 files .*gone\.png: It is listed, but there .*photo 1\.png: Several files have this"
    ):
        source(folder).load()


def test_the_size_of_a_backbone_follows_the_listed_photos(folder: Path) -> None:
    write(folder / "list.csv", "path,label", *(f"photo {i}.png,{labels(i)}" for i in range(COUNT)))
    recipe = find_recipe("photos", "default")
    config = recipe.data.model_copy(update={"source": Source.CSV})
    _, (reason,) = with_size(recipe.model_copy(update={"data": config}), folder)
    assert "the median image (9 pixels on its shorter side)" in reason
