import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from tests.support.http_requests import npy
from trainer.data.npz import NpzSource, open_archive
from trainer.errors import DataError
from trainer.recipe import DataConfig, Source

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])


def write(folder: Path, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "pets.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def source(path: Path, cache: Path | None = None, **settings: Any) -> NpzSource:
    return NpzSource(path, DataConfig(source=Source.NPZ, validation=0.2, **settings), cache)


@pytest.mark.parametrize("compressed", [False, True])
def test_images_and_labels_are_read_as_they_are(tmp_path: Path, compressed: bool) -> None:
    data = source(write(tmp_path, compressed, images=IMAGES, labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES)
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.labels == ("0", "1", "2")
    assert (data.name, data.input, data.test) == ("pets", InputSpec(height=4, width=5, channels=3), None)
    assert data.notes[0] == "images: 6 images of 4x5 RGB, values 0 to 255"


def test_kerass_names_and_columns_of_labels_do_as_well(tmp_path: Path) -> None:
    keras: dict[str, Any] = {
        "x_train": IMAGES[:4],
        "y_train": LABELS[:4, None],
        "x_test": IMAGES[4:],
        "y_test": LABELS[4:, None],
    }
    data = source(write(tmp_path, **keras)).load()
    assert np.array_equal(data.train.images, IMAGES[:4])
    assert data.test is not None
    assert np.array_equal(data.test.images, IMAGES[4:])
    assert data.test.labels.tolist() == [1, 0]


def test_grey_images_need_no_axis_of_channels(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=IMAGES[..., 0], labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES[..., :1])


def test_rows_of_values_are_square_images_or_of_the_given_shape(tmp_path: Path) -> None:
    square = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    data = source(write(tmp_path, images=square.reshape(6, -1), labels=LABELS)).load()
    assert np.array_equal(data.train.images, square)
    oblong = write(tmp_path, images=IMAGES.reshape(6, -1), labels=LABELS)
    assert np.array_equal(source(oblong, shape=(4, 5, 3)).load().train.images, IMAGES)
    with pytest.raises(DataError, match=r"60 values an image, which is neither data\.shape nor .* Set data\.shape"):
        source(oblong).load()


@pytest.mark.parametrize("first", [False, True])
def test_transparency_is_laid_over_white(tmp_path: Path, first: bool) -> None:
    images = np.random.default_rng(2).integers(0, 256, (6, 6, 5, 4), dtype=np.uint8)
    images[:, 0, :, 3], images[:, 1:, :, 3] = 0, 255
    stored = np.moveaxis(images, 3, 1) if first else images
    data = source(write(tmp_path, images=stored, labels=LABELS)).load()
    read = np.asarray(data.train.images)
    assert np.array_equal(read[:, 1:], images[:, 1:, :, :3])
    assert (read[:, 0] == 255).all()
    assert data.input == InputSpec(height=6, width=5, channels=3)
    assert data.notes[0].startswith("images: 6 images of 6x5 RGBA over white")


@pytest.mark.parametrize(("images", "labels"), [("data", "target"), ("data", "labels"), ("train_x", "train_y")])
def test_other_names_of_the_arrays_are_known(tmp_path: Path, images: str, labels: str) -> None:
    arrays: dict[str, Any] = {images: IMAGES, labels: LABELS}
    data = source(write(tmp_path, **arrays)).load()
    assert np.array_equal(data.train.images, IMAGES)
    assert data.train.labels.tolist() == LABELS.tolist()


def test_reads_an_array_in_fortran_order(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=np.asfortranarray(IMAGES), labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES)


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.uint16])
def test_numbers_of_other_types_become_bytes(tmp_path: Path, kind: type[np.generic]) -> None:
    data = source(write(tmp_path, images=IMAGES.astype(kind), labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES)


def test_scales_fractions_from_0_to_1_and_reports_it(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=IMAGES / 255, labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES)
    assert data.notes[0].endswith("values 0 to 1")
    halved = source(tmp_path / "pets.npz", value_range=(0, 2)).load()
    assert np.array_equal(halved.train.images, np.round(IMAGES / 2))


def test_names_are_classes_in_alphabetical_order_or_in_that_of_the_file(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "ant"])[LABELS]
    data = source(write(tmp_path, images=IMAGES, labels=names)).load()
    assert data.labels == ("ant", "cat", "dog")
    assert data.train.labels.tolist() == [1, 2, 0, 0, 2, 1]
    listed = {"labels": names.astype("S"), "classes": np.array(["dog", "cat", "ant"])}
    data = source(write(tmp_path, images=IMAGES, **listed)).load()
    assert data.labels == ("dog", "cat", "ant")
    assert data.train.labels.tolist() == [1, 0, 2, 2, 0, 1]


def test_the_files_own_names_go_before_the_recipes(tmp_path: Path) -> None:
    named = write(tmp_path, images=IMAGES, labels=LABELS, classes=np.array(["a", "b", "c"]))
    assert source(named, labels=("x", "y", "z")).load().labels == ("a", "b", "c")
    unnamed = write(tmp_path, images=IMAGES, labels=LABELS)
    assert source(unnamed, labels=("x", "y", "z")).load().labels == ("x", "y", "z")
    with pytest.raises(DataError, match=r"go from 0 to 2, but there are 2 names \(x, y\)\. Set data\.labels"):
        source(unnamed, labels=("x", "y")).load()


def test_images_are_resized_by_the_shared_function(tmp_path: Path) -> None:
    spec = InputSpec(height=3, width=6, channels=1)
    data = source(write(tmp_path, images=IMAGES, labels=LABELS), input=spec).load()
    assert np.array_equal(data.train.images[5], fit_pixels(IMAGES[5], spec))
    assert data.input == spec


def test_a_large_file_is_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.npz._BLOCK_BYTES", 2 * 4 * 5 * 3)
    path = write(tmp_path, True, images=IMAGES, labels=LABELS)
    with open_archive(path) as arrays:
        assert [len(block) for block in arrays["images"].blocks()] == [2, 2, 2]
    assert np.array_equal(source(path).load().train.images, IMAGES)


def test_the_folder_must_hold_exactly_one_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 0 \.npz files\. Give one with --data"):
        source(tmp_path).load()
    path = write(tmp_path, images=IMAGES, labels=LABELS)
    assert len(source(tmp_path).load().train) == 6
    (tmp_path / "more.npz").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"2 \.npz files \(more\.npz, pets\.npz\)"):
        source(tmp_path).load()
    with pytest.raises(DataError, match="does not exist"):
        source(tmp_path / "nowhere").load()


OBJECTS = np.array([{}, [], None, 1, "a", 2.0], dtype=object)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "no array images, but labels"),
        ({"images": IMAGES}, "no array labels, but images"),
        ({"images": OBJECTS, "labels": LABELS}, "images holds Python objects, which are not read for safety"),
        ({"images": IMAGES, "labels": OBJECTS}, "labels holds Python objects"),
        ({"images": IMAGES, "labels": LABELS, "classes": OBJECTS}, "classes holds Python objects"),
        ({"images": IMAGES, "labels": LABELS[:4]}, "images holds 6 images and labels 4 labels"),
        (
            {"images": IMAGES, "labels": np.eye(3)[LABELS] * 2},
            "3 values per image, which are not one-hot",
        ),
        ({"images": IMAGES, "labels": IMAGES}, r"labels is uint8 \[6, 4, 5, 3\]; labels are one whole number"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"labels\[1\]: the label 0.5 is not a whole number"),
        (
            {"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "b"])},
            "but there are 2 names",
        ),
        (
            {"images": IMAGES, "labels": np.full(6, "fly"), "classes": np.array(["a", "b"])},
            "'fly' is not one of the cla",
        ),
        ({"images": IMAGES[0], "labels": LABELS[:4]}, None),
        ({"images": IMAGES[0, 0], "labels": LABELS[:5]}, r"images is uint8 \[5, 3\]; images are numbers \[n, height"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, r"\[6, 4, 5, 2\]; images are numbers"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images is empty"),
        ({"images": IMAGES.astype(str), "labels": LABELS}, "images are numbers"),
        ({"images": IMAGES.astype(int) * 2, "labels": LABELS}, r"images\[0, \d, \d, \d\] is \d+, outside 0 to 255"),
        ({"images": np.full((6, 2, 2), np.nan), "labels": LABELS}, r"images\[0, 0, 0\] is nan, outside"),
        ({"images": IMAGES, "labels": LABELS, "images_test": IMAGES}, "no array labels_test, but"),
        (
            {"images": IMAGES, "labels": LABELS, "images_test": IMAGES[:, :3], "labels_test": LABELS},
            r"different shapes: images \[6, 4, 5, 3\] and images_test \[6, 3, 5, 3\]",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "images_test": IMAGES, "labels_test": np.full(6, "cat")},
            "names in one split and numbers in another",
        ),
    ],
)
def test_an_error_is_one_sentence_that_names_the_array(
    tmp_path: Path, arrays: dict[str, Any], message: str | None
) -> None:
    path = write(tmp_path, **arrays)
    if message is None:  # [4, 5, 3] can only be four grey images
        assert source(path).load().train.images.shape == (4, 5, 3, 1)
        return
    with pytest.raises(DataError, match=message) as caught:
        source(path).load()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cut_or_garbled_file_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path, compressed, images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    garbled = bytearray(whole)
    garbled[300] ^= 255  # inside the pixels: the zip's own checksum tells
    for content in (whole[:-40], whole[:100], bytes(garbled), b"no zip", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged, cut short"):
            source(path).load()


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1_000, 1_000, 3)}
    )
    for member in (b"text", header.getvalue()):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("images.npy", member)
            file.writestr("labels.npy", npy(np.zeros(1_000_000, np.int64)))
        with pytest.raises(DataError, match="images is damaged"):
            source(path).load()


@pytest.mark.parametrize(
    "names",
    [
        "{}_images {}_labels train val",
        "x_{} y_{} train val",
        "X_{} Y_{} train val",
        "x_{} y_{} train validation",
        "images_{} labels_{} train validation",
    ],
)
def test_published_validation_splits_are_read(tmp_path: Path, names: str) -> None:
    images, labels, train, validation = names.split()
    parts = {train: slice(0, 2), validation: slice(2, 4), "test": slice(4, 6)}
    arrays: dict[str, Any] = {images.format(part): IMAGES[rows] for part, rows in parts.items()}
    arrays |= {labels.format(part): LABELS[rows, None] for part, rows in parts.items()}
    data = source(write(tmp_path, **arrays)).load()
    assert data.validation is not None
    assert data.test is not None
    for part, rows in zip((data.train, data.validation, data.test), parts.values(), strict=True):
        assert np.array_equal(part.images, IMAGES[rows])
        assert part.labels.tolist() == LABELS[rows].tolist()


def test_arrays_of_unknown_names_are_reported(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=IMAGES, labels=LABELS, x_holdout=IMAGES, classes=np.array(list("abc")))).load()
    assert "left out arrays of other names: x_holdout" in data.notes


def test_channels_first_is_read(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=np.moveaxis(IMAGES, 3, 1), labels=LABELS)).load()
    assert np.array_equal(data.train.images, IMAGES)
    assert "channels first" in data.notes[0]


@pytest.mark.parametrize("labels", [LABELS.astype(float), np.eye(3)[LABELS], LABELS.astype(str)])
def test_labels_of_every_form_are_read(tmp_path: Path, labels: Any) -> None:
    data = source(write(tmp_path, images=IMAGES, labels=labels)).load()
    assert (data.labels, data.train.labels.tolist()) == (("0", "1", "2"), LABELS.tolist())


def test_black_and_white_images_use_the_whole_range(tmp_path: Path) -> None:
    data = source(write(tmp_path, images=IMAGES > 127, labels=LABELS)).load()
    assert np.array_equal(data.train.images, np.where(IMAGES > 127, 255, 0))
