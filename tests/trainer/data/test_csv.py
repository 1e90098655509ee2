from pathlib import Path

import numpy as np
import pytest

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.csv import CsvSource
from trainer.errors import DataError

NAMES = ("dog", "cat")


def rows(images: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    return "".join(",".join(str(value) for value in image.ravel()) + "\n" for image in images)


def images(count: int, side: int = 4, channels: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four training images and two for the test, 4x4 RGB."""
    (tmp_path / "input.csv").write_text(rows(images(4)))
    (tmp_path / "labels.csv").write_text("0\n1\n1\n0\n")
    (tmp_path / "input_test.csv").write_text(rows(images(2)))
    (tmp_path / "labels_test.csv").write_text("1\n0\n")
    return tmp_path


def source(folder: Path, **changes: object) -> CsvSource:
    return CsvSource(folder, "pets", **{"labels": NAMES, **changes})  # type: ignore[arg-type]


def test_rows_become_images_in_the_order_of_height_width_channels(folder: Path) -> None:
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.test is not None
    assert np.array_equal(data.test.images, images(2))
    assert data.labels == NAMES
    assert data.input == InputSpec(height=4, width=4, channels=3)
    assert data.told[0] == "input.csv: 4 images of 4x4 RGB, no header, values 0 to 255"


def test_a_header_is_passed_over_and_said(folder: Path) -> None:
    text = (folder / "input.csv").read_text()
    (folder / "input.csv").write_text(",".join(f"pixel{i}" for i in range(48)) + "\n" + text)
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert "a header" in data.told[0]


def test_values_from_0_to_1_are_scaled_and_said(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(np.round(images(count) / 255, 5)))
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.told[0].endswith("values 0 to 1")


def test_the_test_split_is_read_with_the_value_range_of_the_training_images(folder: Path) -> None:
    """A file of blacks and whites alone looks like bytes 0 and 1 where it is seen by itself."""
    (folder / "input.csv").write_text(rows(np.round(images(4) / 255, 5)))
    (folder / "input_test.csv").write_text(rows(images(2) // 128))
    data = source(folder).load()
    assert data.test is not None
    assert np.array_equal(data.test.images, images(2) // 128 * 255)
    (folder / "input_test.csv").write_text(rows(images(2)))
    with pytest.raises(DataError, match=r"input_test\.csv: line 1, column \d+: \d+ is outside 0 to 1"):
        source(folder).load()


def test_a_value_range_that_is_given_is_taken(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(images(count).astype(int) - 128))
    data = source(folder, value_range=(-128, 127)).load()
    assert np.array_equal(data.train.images, images(4))
    assert "values -128 to 127" in data.told[0]
    with pytest.raises(DataError, match=r"line 1, column \d+: -\d+ is outside 0 to 1"):
        source(folder, value_range=(0, 1)).load()


def test_a_header_of_numbers_can_be_said(folder: Path) -> None:
    """As pandas writes them; nothing tells them from a row."""
    for file in folder.iterdir():
        text = file.read_text()
        columns = len(text.splitlines()[0].split(","))
        file.write_text(",".join(str(i) for i in range(columns)) + "\n" + text)
    assert len(source(folder).load().train) == 5
    data = source(folder, header=True).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    (folder / "input.csv").write_text("pixel," + rows(images(4)))
    with pytest.raises(DataError, match=r"line 1, column 1: 'pixel' is no number"):
        source(folder, header=False).load()


def test_a_byte_order_mark_is_no_header(folder: Path) -> None:
    content = (folder / "input.csv").read_bytes()
    (folder / "input.csv").write_bytes(b"\xef\xbb\xbf" + content)
    assert np.array_equal(source(folder).load().train.images, images(4))


def test_a_wrong_row_far_down_is_named_by_its_line_in_the_file(folder: Path) -> None:
    """Beyond the first block, with an empty line before it, and among fractions after bytes."""
    row = ",".join(["7"] * 48)
    for wrong, said in (
        ("7.5," * 47 + "256", "column 48: 256 is outside"),
        ("7,x", "column 2: 'x'"),
        ("7", "has 1 val"),
    ):
        (folder / "input.csv").write_text((row + "\n") * 60_000 + "\n" + wrong + "\n" + row + "\n")
        with pytest.raises(DataError, match=f"line 60002.*{said}"):
            source(folder).load()


def test_grey_squares_are_told_from_colour_ones(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(images(count, side=5, channels=1)))
    assert source(folder).load().input == InputSpec(height=5, width=5, channels=1)


def test_a_shape_that_is_given_is_taken(folder: Path) -> None:
    data = source(folder, shape=(8, 2, 3)).load()
    assert data.train.images.shape == (4, 8, 2, 3)
    with pytest.raises(DataError, match=r"48 values a row, but 5x5 RGB needs 75; set data\.shape"):
        source(folder, shape=(5, 5, 3)).load()


def test_images_are_resized_by_the_shared_function(folder: Path) -> None:
    spec = InputSpec(height=3, width=6, channels=1)
    data = source(folder, input=spec).load()
    assert np.array_equal(data.train.images[0], fit_pixels(images(4)[0], spec))
    assert data.input == spec


def test_without_names_the_class_indices_are_the_names(folder: Path) -> None:
    assert source(folder, labels=()).load().labels == ("0", "1")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("input.csv", None, "is missing"),
        ("input.csv", "", "holds no rows"),
        ("input.csv", "1,2,3\n4,five,6\n", "line 2, column 2: 'five' is no number"),
        ("input.csv", "1,2,3\n4,5\n", "line 2 has 2 values, and the lines before it 3"),
        ("input.csv", "1,2,3\n4,256,6\n", "line 2, column 2: 256 is outside 0 to 255"),
        ("input.csv", "a,b,c\n1,2,3\n4,-5,6\n", "line 3, column 2: -5 is outside 0 to 255"),
        ("input.csv", "1,2,3\n4,nan,6\n", "line 2, column 2: nan is outside"),
        ("input.csv", "1,2\n3,4\n", "is no square image"),
        ("input.csv", "1,2,3\n", "holds images of 1x1 RGB"),
        ("labels.csv", "0\n1\n1\n", "4 images and labels.csv 3 labels"),
        ("labels.csv", "0\n1\n1\n2\n", "go up to 2, but there are 2 names"),
        ("labels.csv", "0\n1\n0.5\n1\n", "line 3, column 1: 0.5 is no class index"),
        ("labels.csv", "0\n1\n\n-1\n1\n", "line 4, column 1: -1 is no class index"),
        ("labels.csv", "0,1\n1,0\n1,0\n0,1\n", "has 2 values a row"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(folder: Path, file: str, content: str | None, said: str) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
        if file == "input.csv" and said.startswith("holds"):
            (folder / "labels.csv").write_text("0\n")
    with pytest.raises(DataError) as caught:
        source(folder).load()
    assert said in str(caught.value)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "input.csv").write_bytes(b"1,2,3\n\xff\xfe,5,6\n")
    with pytest.raises(DataError, match=r"input\.csv"):
        source(folder).load()
