from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.csv import CsvSource
from trainer.errors import DataError
from trainer.recipe import DataConfig, Source

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


def source(folder: Path, **settings: Any) -> CsvSource:
    return CsvSource(folder, DataConfig(source=Source.CSV, validation=0.2, **{"labels": NAMES, **settings}))


def test_rows_become_images_in_the_order_of_height_width_channels(folder: Path) -> None:
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.test is not None
    assert np.array_equal(data.test.images, images(2))
    assert data.labels == NAMES
    assert data.input == InputSpec(height=4, width=4, channels=3)
    assert data.notes[0] == "input.csv: 4 images of 4x4 RGB, no header, values 0 to 255"


@pytest.mark.parametrize(
    ("train", "test"), [("X_train y_train", "X_test y_test"), ("train_images train_labels", "test_images test_labels")]
)
def test_reads_pairs_of_files_under_the_names_of_other_tools(folder: Path, train: str, test: str) -> None:
    for own, other in zip(("input", "labels", "input_test", "labels_test"), f"{train} {test}".split(), strict=True):
        (folder / f"{own}.csv").rename(folder / f"{other}.csv")
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.test is not None
    assert data.test.labels.tolist() == [1, 0]


def test_skips_a_header_and_reports_it(folder: Path) -> None:
    text = (folder / "input.csv").read_text()
    (folder / "input.csv").write_text(",".join(f"pixel{i}" for i in range(48)) + "\n" + text)
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert "a header" in data.notes[0]


def test_scales_values_from_0_to_1_and_reports_it(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(np.round(images(count) / 255, 5)))
    data = source(folder).load()
    assert np.array_equal(data.train.images, images(4))
    assert data.notes[0].endswith("values 0 to 1")


def test_the_test_split_is_read_with_the_value_range_of_the_training_images(folder: Path) -> None:
    """A file with only black and white could, by itself, have bytes of 0 and 1."""
    (folder / "input.csv").write_text(rows(np.round(images(4) / 255, 5)))
    (folder / "input_test.csv").write_text(rows(images(2) // 128))
    data = source(folder).load()
    assert data.test is not None
    assert np.array_equal(data.test.images, images(2) // 128 * 255)
    (folder / "input_test.csv").write_text(rows(images(2)))
    with pytest.raises(DataError, match=r"different ranges of values: input\.csv 0 to 1 and input_test\.csv 0 to 255"):
        source(folder).load()


def test_uses_the_value_range_of_the_settings(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(images(count).astype(int) - 128))
    data = source(folder, value_range=(-128, 127)).load()
    assert np.array_equal(data.train.images, images(4))
    assert "values -128 to 127" in data.notes[0]
    with pytest.raises(DataError, match=r"line 1, column \d+: '-\d+' is outside 0 to 1"):
        source(folder, value_range=(0, 1)).load()


def test_a_header_of_numbers_as_pandas_writes_it_is_detected_or_set(folder: Path) -> None:
    for file in folder.iterdir():
        text = file.read_text()
        columns = len(text.splitlines()[0].split(","))
        file.write_text(",".join(str(i) for i in range(columns)) + "\n" + text)
    for header in (None, True):
        data = source(folder, header=header).load()
        assert np.array_equal(data.train.images, images(4))
        assert data.train.labels.tolist() == [0, 1, 1, 0]
    (folder / "input.csv").write_text("pixel," + rows(images(4)))
    with pytest.raises(DataError, match=r"line 1, column 1: 'pixel' is not a number"):
        source(folder, header=False).load()


def test_a_byte_order_mark_is_no_header(folder: Path) -> None:
    content = (folder / "input.csv").read_bytes()
    (folder / "input.csv").write_bytes(b"\xef\xbb\xbf" + content)
    assert np.array_equal(source(folder).load().train.images, images(4))


def test_a_wrong_row_far_down_is_named_by_its_line_in_the_file(folder: Path) -> None:
    """The wrong value is beyond the first block, after an empty line, and among fractions that follow bytes."""
    row = ",".join(["7"] * 48)
    for wrong, message in (
        ("7.5," * 47 + "256", "column 48: '256' is outside"),
        ("7,x", "column 2: 'x'"),
        ("7", "has 1 val"),
    ):
        (folder / "input.csv").write_text((row + "\n") * 60_000 + "\n" + wrong + "\n" + row + "\n")
        (folder / "labels.csv").write_text("0\n1\n" * 30_001)
        with pytest.raises(DataError, match=f"line 60002.*{message}"):
            source(folder).load()


def test_distinguishes_square_grey_from_square_colour_images(folder: Path) -> None:
    for name, count in (("input", 4), ("input_test", 2)):
        (folder / f"{name}.csv").write_text(rows(images(count, side=5, channels=1)))
    assert source(folder).load().input == InputSpec(height=5, width=5, channels=1)


def test_uses_the_shape_of_the_settings(folder: Path) -> None:
    data = source(folder, shape=(8, 2, 3)).load()
    assert data.train.images.shape == (4, 8, 2, 3)
    with pytest.raises(DataError, match=r"48 values a row, but 5x5 RGB needs 75. Set data\.shape"):
        source(folder, shape=(5, 5, 3)).load()


def test_images_are_resized_by_the_shared_function(folder: Path) -> None:
    spec = InputSpec(height=3, width=6, channels=1)
    data = source(folder, input=spec).load()
    assert np.array_equal(data.train.images[0], fit_pixels(images(4)[0], spec))
    assert data.input == spec


def test_without_names_the_class_indices_are_the_names(folder: Path) -> None:
    assert source(folder, labels=()).load().labels == ("0", "1")


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("input.csv", None, "is missing"),
        ("input.csv", "", "holds no rows"),
        ("input.csv", "1,2,3\n4,five,6\n", "line 2, column 2: 'five' is not a number"),
        ("input.csv", "1,2,3\n4,5\n", "line 2 has 2 values, and the lines before it 3"),
        ("input.csv", "1,2,3\n4,256,6\n", "line 2, column 2: '256' is outside 0 to 255"),
        ("input.csv", "a,b,c\n1,2,3\n4,-5,200\n", "line 3, column 2: '-5' is outside 0 to 255"),
        ("input.csv", "99,2,3\n4,nan,6\n", "line 2, column 2: 'nan' is outside"),
        ("input.csv", "1,2\n3,4\n", "is not a square grey or RGB image"),
        ("input.csv", "1,2,16\n3,4,5\n", "The value range is ambiguous: the values go from 1 to 16. Set the values of"),
        ("labels.csv", "0\n1\n1\n", "2 images and labels.csv 3 labels"),
        ("labels.csv", "0\n2\n", "go from 0 to 2, but there are 2 names"),
        ("labels.csv", "0\n0.5\n", "line 2, column 1: the label 0.5 is not a whole number"),
        ("labels.csv", "0\n\n-1\n", "go from -1 to 0, but there are 2 names"),
        ("labels.csv", "0,1\n1,1\n", "line 2, column 1: 2 values per image, which are not one-hot"),
    ],
)
def test_names_a_fault_with_its_place(tmp_path: Path, file: str, content: str | None, fault: str) -> None:
    (tmp_path / "input.csv").write_text("100,0,0\n0,0,0\n")
    (tmp_path / "labels.csv").write_text("0\n1\n")
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(DataError) as caught:
        source(tmp_path).load()
    assert fault in str(caught.value)


def test_refuses_splits_of_different_shapes(folder: Path) -> None:
    (folder / "input.csv").write_text("100,0,0\n" * 4)
    with pytest.raises(DataError, match=r"different shapes: input\.csv 1x1 RGB and input_test\.csv 4x4 RGB"):
        source(folder).load()


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "input.csv").write_bytes(b"1,2,3\n\xff\xfe,5,6\n" * 2)
    with pytest.raises(DataError, match=r"input\.csv"):
        source(folder).load()


def numbered(count: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[int]]:
    """Grey images of 4x4 whose first pixel is their position, with labels from 1 to 3."""
    pixels = images(count, channels=1).reshape(count, -1)
    pixels[:, 0] = np.arange(count)
    return pixels, [1 + i % 3 for i in range(count)]


def lines(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], separator: str) -> list[str]:
    return [separator.join(map(str, row)) for row in pixels]


def with_decimal_commas(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: list[int], *, quoted: bool
) -> list[str]:
    separator, mark = (",", '"') if quoted else (";", "")
    content = [separator.join(["label", *(f"pixel{i}" for i in range(pixels.shape[1]))])]
    for row, label in zip(pixels, labels, strict=True):
        values = [f"{mark}{value / 255:.4f}{mark}".replace(".", ",") for value in row]
        content.append(separator.join([str(label), *values]))
    return content


@pytest.mark.parametrize(
    "layout",
    [
        "label,first",
        "last;label",
        "tabs",
        "quotes",
        "single quotes",
        "spaces",
        "index",
        "no header",
        "string",
        "string in brackets",
        "string of commas",
        "string in single quotes",
        "decimal commas",
        "decimal commas in quotes",
        "pairs with names",
    ],
)
def test_reads_the_layouts_that_other_tools_write(tmp_path: Path, layout: str) -> None:
    pixels, labels = numbered(9)
    header = [f"pixel{i}" for i in range(16)]
    text = lines(pixels, ",")
    if layout == "label,first":
        content = [",".join(["label", *header]), *(f"{y},{x}" for x, y in zip(text, labels, strict=True))]
    elif layout == "last;label":
        content = [";".join([*header, "Class"])]
        content += [f"{x};{y}" for x, y in zip(lines(pixels, ";"), labels, strict=True)]
    elif layout == "tabs":
        content = ["\t".join(["digit", *header])]
        content += [f"{y}\t{x}" for x, y in zip(lines(pixels, "\t"), labels, strict=True)]
    elif layout in {"quotes", "single quotes"}:
        mark = '"' if layout == "quotes" else "'"
        content = [",".join(f"{mark}{name}{mark}" for name in ["label", *header])]
        content += [
            f"{mark}{y}{mark},{mark}{x}{mark}" for x, y in zip(lines(pixels, f"{mark},{mark}"), labels, strict=True)
        ]
    elif layout.startswith("decimal commas"):
        content = with_decimal_commas(pixels, labels, quoted=layout.endswith("quotes"))
    elif layout == "spaces":
        content = [f"{y} {x}" for x, y in zip(lines(pixels, " "), labels, strict=True)]
    elif layout == "index":
        content = [",".join(["", "label", *header])]
        content += [f"{i},{y},{x}" for i, (x, y) in enumerate(zip(text, labels, strict=True))]
    elif layout == "no header":
        content = [f"{y},{x}" for x, y in zip(text, labels, strict=True)]
    elif layout.startswith("string"):
        form = {"string": "{}", "brackets": '"[{}]"', "commas": '"{}"', "quotes": "'{}'"}[layout.rpartition(" ")[2]]
        text = lines(pixels, ", " if '"' in form else " ")
        content = ["emotion,pixels", *(f"{y},{form.format(x)}" for x, y in zip(text, labels, strict=True))]
    else:
        (tmp_path / "labels.csv").write_text("".join(f"class {y}\n" for y in labels))
        content = text
    name = "input.csv" if layout.startswith("pairs") else "train.csv"
    (tmp_path / name).write_text("\n".join(content) + "\n")
    settings = {"label_column": "1"} if layout in {"spaces", "no header"} else {}
    data = source(tmp_path, labels=(), **settings).load()
    assert data.labels == tuple(f"class {i}" if layout.startswith("pairs") else str(i) for i in (1, 2, 3))
    assert data.train.labels.tolist() == [y - 1 for y in labels]
    assert np.array_equal(np.asarray(data.train.images).reshape(9, 16), pixels)


LABELS, PIXELS = "label", [f"pixel{i}" for i in range(16)]
SURROUNDINGS = {  # the separator, the lines before the rows, what is before and after each row, the lines after them
    "bars": (" | ", [" | ".join([LABELS, *PIXELS])], "", "", []),
    "remarks": (",", ["# digits", "", ",".join(["# label", *PIXELS]), "% three classes"], "", "", ["// end"]),
    "the separator as Excel notes it": (";", ["sep=;", ";".join([LABELS, *PIXELS])], "", "", []),
    "last commas": (",", [",".join([LABELS, *PIXELS])], "", ",", []),
    "names of rows, as R writes them": (",", [",".join([LABELS, *PIXELS])], "row,", "", []),
}


@pytest.mark.parametrize("kind", SURROUNDINGS)
def test_skips_what_surrounds_the_rows(tmp_path: Path, kind: str) -> None:
    separator, above, before, after, below = SURROUNDINGS[kind]
    pixels, labels = numbered(9)
    rows = [f"{before}{y}{separator}{x}{after}" for x, y in zip(lines(pixels, separator), labels, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join([*above, *rows, *below]))
    data = source(tmp_path, labels=()).load()
    assert data.labels == ("1", "2", "3")
    assert np.array_equal(np.asarray(data.train.images).reshape(9, 16), pixels)


def test_usage_divides_the_rows_of_a_file(tmp_path: Path) -> None:
    pixels, labels = numbered(9)
    usage = ["Training", "PublicTest", "PrivateTest"] * 3
    rows_ = zip(lines(pixels, " "), labels, usage, strict=True)
    (tmp_path / "faces.csv").write_text("emotion,pixels,Usage\n" + "".join(f"{y},{x},{u}\n" for x, y, u in rows_))
    data = source(tmp_path / "faces.csv", labels=()).load()
    assert data.validation is not None
    assert data.test is not None
    positions = [np.asarray(part.images)[:, 0, 0, 0].tolist() for part in (data.train, data.validation, data.test)]
    assert positions == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert data.name == "faces"


def test_kaggle_s_files_without_labels_are_left_out(tmp_path: Path) -> None:
    pixels, labels = numbered(9)
    header = ",".join(f"pixel{i}" for i in range(16))
    text = lines(pixels, ",")
    (tmp_path / "train.csv").write_text(
        f"label,{header}\n" + "".join(f"{y},{x}\n" for x, y in zip(text, labels, strict=True))
    )
    (tmp_path / "test.csv").write_text("\n".join([header, *text]))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n2,0\n")
    data = source(tmp_path, labels=()).load()
    assert (len(data.train), data.test) == (9, None)
    assert [note.split(":")[0] for note in data.notes[1:3]] == ["left out sample_submission.csv", "left out test.csv"]


@pytest.mark.parametrize("string", [True, False])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("names", "expected"),
    [(["dog", "cat", "cow"], ("cat", "cow", "dog")), (["y_1", "y_2", "y_3"], ("0", "1", "2")), ([], ("0", "1", "2"))],
)
def test_reads_one_hot_columns_beside_the_pixels(
    tmp_path: Path, names: list[str], expected: tuple[str, ...], first: bool, string: bool
) -> None:
    pixels, labels = numbered(9)
    header = ["pixels"] if string else [f"pixel{i}" for i in range(16)]
    rows = [(names, header)] if names else []
    for x, label in zip(lines(pixels, " " if string else ","), labels, strict=True):
        rows.append(([str(int(label == number)) for number in (1, 2, 3)], [x]))
    content = [",".join([*one_hot, *rest] if first else [*rest, *one_hot]) for one_hot, rest in rows]
    (tmp_path / "train.csv").write_text("\n".join(content))
    data = source(tmp_path, labels=()).load()
    assert data.labels == expected
    own = names if expected[0] == "cat" else ["0", "1", "2"]
    assert [data.labels[label] for label in data.train.labels] == [own[label - 1] for label in labels]
    assert np.array_equal(np.asarray(data.train.images).reshape(9, 16), pixels)


def test_a_cell_may_hold_the_pixels_of_a_large_image(tmp_path: Path) -> None:
    """Python's csv module refuses cells of more than 128 KiB."""
    pixels = images(2, side=128)
    content = ["label,pixels", *(f"{i},{' '.join(map(str, image.ravel()))}" for i, image in enumerate(pixels))]
    (tmp_path / "train.csv").write_text("\n".join(content))
    assert np.array_equal(source(tmp_path).load().train.images, pixels)


def test_an_ambiguous_label_column_names_the_setting(tmp_path: Path) -> None:
    pixels, labels = numbered(9)
    pixels[:, -1] = np.arange(9)
    content = [f"{y},{x}" for x, y in zip(lines(pixels, ","), labels, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(content))
    with pytest.raises(DataError, match=r"Columns 1, 17 of train\.csv could be the label\. Set data\.label_column"):
        source(tmp_path).load()


def test_labels_that_are_not_utf_8_keep_their_letters(tmp_path: Path) -> None:
    """Decoding with replacement characters would make one class of two."""
    content = [",".join(["label", *(f"p{i}" for i in range(16))])]
    content += [f"{name},{x}" for name, x in zip(("größe", "grüße"), lines(numbered(2)[0], ","), strict=True)]
    (tmp_path / "train.csv").write_bytes("\n".join(content).encode("cp1252"))
    assert source(tmp_path, labels=()).load().labels == ("größe", "grüße")


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("label,p1\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"train\.csv is UTF-16 text\. Save it as UTF-8"):
        source(tmp_path).load()


@pytest.mark.parametrize(
    ("content", "advice"),
    [(b"label,p1\r1,2\r", "Save it with line feeds"), (b"\x1f\x8b\x08\0\0\n\0\0", "is not text. Unpack it")],
)
def test_a_file_without_lines_of_text_is_named(tmp_path: Path, content: bytes, advice: str) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.csv .*{advice}"):
        source(tmp_path).load()


def test_a_wrong_value_among_decimal_commas_is_named_by_its_place(folder: Path) -> None:
    (folder / "input.csv").write_text("0,5;0,25;1,0\n0,5;x;1,0\n")
    with pytest.raises(DataError, match=r"line 2, column 2: 'x' is not a number"):
        source(folder).load()
