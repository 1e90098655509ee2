import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import UnsupportedImageError
from schemas.image import decode_image
from schemas.manifest import InputSpec
from tests.support.bundles import COLOURS, solid, write_solid
from trainer.data.folder import FolderSource
from trainer.errors import DataError

SPEC = InputSpec(height=6, width=6, channels=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with files of several formats, sizes and depths, and things that are passed over."""
    for i, colour in enumerate(COLOURS):
        folder = tmp_path / colour / "deep"
        write_solid(tmp_path / colour / "a.png", colour, (10 + i, 7))
        write_solid(folder / "b.jpg", colour, (30, 40), "JPEG")
        (folder / ".hidden").write_text("not an image")
        (folder / "Thumbs.db").write_text("a desktop's")
        (tmp_path / colour / "desktop.ini").write_text("a desktop's")
        write_solid(tmp_path / colour / ".trash" / "c.png", colour)
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "notes.txt").write_text("beside the classes")
    return tmp_path


def test_folders_are_classes_and_every_file_is_decoded_by_the_shared_function(photos: Path) -> None:
    data = FolderSource(photos, SPEC).load()
    assert data.labels == ("blue", "green", "red")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.train.images[4], decode_image((photos / "red" / "a.png").read_bytes(), SPEC))
    assert data.test is None
    assert data.notes[0] == f"6 images of 3 classes below {photos}, resized to 6x6 (stretch)"


def test_an_unreadable_file_stops_the_run_with_its_name_and_reason(photos: Path) -> None:
    (photos / "red" / "cut.jpg").write_bytes(solid("red", (30, 40), "JPEG")[:-60])
    (photos / "red" / "page.gif").write_text("image not found")
    with pytest.raises(
        DataError, match=r"2 of 8 files .*--skip-bad: red/cut\.jpg: The image is damaged.*red/page\.gif"
    ):
        FolderSource(photos, SPEC).load()


def test_skip_bad_leaves_unreadable_files_out_and_says_so(photos: Path) -> None:
    (photos / "red" / "page.gif").write_text("image not found")
    data = FolderSource(photos, SPEC, skip_bad=True).load()
    assert len(data.train) == 6
    assert "left out 1 unreadable files: red/page.gif" in data.notes[1]


@pytest.mark.parametrize(
    ("layout", "said"),
    [([], "two or more classes, not 0"), (["one"], "two or more classes, not 1"), (["a", "b"], "a holds no photos")],
)
def test_refuses_a_folder_without_classes_or_files(tmp_path: Path, layout: list[str], said: str) -> None:
    for name in layout:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=said):
        FolderSource(tmp_path, SPEC).load()


def test_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        FolderSource(tmp_path / "nowhere", SPEC).load()


def test_each_kind_of_unreadable_file_has_its_own_reason(photos: Path) -> None:
    (photos / "red" / "cut.jpg").write_bytes(solid("red", (300, 400), "JPEG")[:-600])
    (photos / "red" / "empty.png").touch()
    (photos / "red" / "gone.gif").write_bytes(b"GIF89a image not found")
    (photos / "red" / "notes.jpg").write_text("hello")
    with pytest.raises(DataError) as caught:
        FolderSource(photos, SPEC).load()
    reasons = dict(part.split(": ", 1) for part in str(caught.value).split("--skip-bad: ")[1].split("; "))
    assert reasons["red/empty.png"] == "The file is empty"
    assert "cut short" in reasons["red/cut.jpg"]
    assert "not an image of a supported format" in reasons["red/notes.jpg"]
    assert "red/gone.gif" in reasons
    assert not any(reason.endswith(".") for reason in reasons.values())


@pytest.mark.timeout(60)
def test_lists_entries_that_are_not_regular_files_and_never_opens_them(photos: Path) -> None:
    red = photos / "red"
    (red / "gone.png").symlink_to("nowhere.png")
    (red / "round.png").symlink_to("round.png")
    (red / "more").symlink_to(photos / "blue")
    os.mkfifo(red / "deep" / "pipe.png")
    os.mkfifo(red / "deep" / ".pipe")
    (photos / "yellow").symlink_to(photos / "elsewhere")
    (photos / "red" / "same.png").symlink_to("a.png")  # which is as good as a file
    reasons = {
        "red/deep/pipe.png": "Not a regular file (pipe)",
        "red/gone.png": "Broken link",
        "red/more": "Links to folders are not followed",
        "red/round.png": "The file cannot be read (Too many levels of symbolic links)",
        "yellow": "Broken link",
    }
    with pytest.raises(DataError, match=r"^5 of 12 files cannot be used") as caught:
        FolderSource(photos, SPEC).load()
    listed = str(caught.value).split("--skip-bad: ")[1].split("; ")
    assert dict(part.split(": ", 1) for part in listed) == reasons
    data = FolderSource(photos, SPEC, skip_bad=True).load()
    assert len(data.train) == 7
    assert data.notes[1].startswith("left out 5 unreadable files: red/deep/pipe.png: Not a regular file (pipe)")


def test_refuses_a_folder_without_images_even_with_skip_bad(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"No train file below .* is an image: a/notes\.jpg"):
        FolderSource(tmp_path, SPEC, skip_bad=True).load()


def test_real_photos_of_all_sizes_are_read(real_data: Path, tmp_path: Path) -> None:
    data = FolderSource(real_data / "photos-sample", SPEC, cache=tmp_path).load()
    assert len(data.train) == 100
    assert len(data.labels) == 5


def test_passes_over_what_systems_leave_and_documents(photos: Path) -> None:
    for name in ("$RECYCLE.BIN", "#recycle", "lost+found", "__pycache__"):
        (photos / name).mkdir()
    (photos / "$RECYCLE.BIN" / "old.png").write_bytes(solid("red", (9, 9)))
    for name in (
        "ehthumbs.db",
        "Icon\r",
        "Icon",
        "readme.txt",
        "LICENSE",
        "IMG_1.AAE",
        "IMG_1.MOV",
        "list.xlsx",
        "clip.webm",
        "COPYING",
    ):
        (photos / "red" / name).write_text("not a photo")
    data = FolderSource(photos, SPEC).load()
    assert (data.labels, len(data.train)) == (("blue", "green", "red"), 6)
    assert "left out 8 files that are not photos by their names: red/COPYING" in data.notes[1]


@pytest.mark.parametrize(
    "names",
    [("train", "Val", "test"), ("training_set", "validation_set", "test_set"), ("a_train", "a_valid", "a_test")],
)
def test_published_splits_are_not_classes(photos: Path, names: Sequence[str]) -> None:
    for part in names:
        for colour in ("red", "blue"):
            write_solid(photos / "split" / part / colour / "a.png", colour, (9, 9))
    data = FolderSource(photos / "split", SPEC).load()
    assert data.labels == ("blue", "red")
    assert [len(part) for part in data.parts] == [2, 2, 2]


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        (["train/red", "train/blue", "vali/red", "vali/blue"], "vali is no split: its name is not val or test"),
        (["train", "test"], "The folders test, train of .* are splits without classes"),
        (["train/red", "train/blue", "test"], "test is no split: it has no folders of classes"),
        (["train/red", "train/blue", "test/red", "test/green"], "train/green is missing, but another split has the cl"),
    ],
)
def test_folders_beside_the_training_split_that_are_no_splits_are_named(
    tmp_path: Path, layout: list[str], fault: str
) -> None:
    for name in layout:
        write_solid(tmp_path / name / "a.png", "red", (9, 9))
    with pytest.raises(DataError, match=fault):
        FolderSource(tmp_path, SPEC).load()


def test_photos_beside_the_classes_are_reported(photos: Path) -> None:
    for name in ("stray.JPG", ".hidden.jpg"):
        (photos / name).write_bytes(solid("red", (9, 9), "JPEG"))
    data = FolderSource(photos, SPEC).load()
    assert len(data.train) == 6
    assert "left out 1 photos beside the folders of the classes: stray.JPG, ..." in data.notes


def test_splits_within_the_classes_are_reported(photos: Path) -> None:
    for colour in COLOURS:
        for name in ("test", "train"):
            write_solid(photos / colour / name / "a.png", colour)
    notes = FolderSource(photos, SPEC).load().notes
    assert any("the folders test, train inside the class folders are not used as splits" in note for note in notes)
    assert any(note.endswith("as in test/blue.") for note in notes)


def test_excluded_names_that_match_no_file_are_reported(photos: Path) -> None:
    data = FolderSource(photos, SPEC, exclude=frozenset({"red/a.png", "rot/a.png"})).load()
    assert len(data.train) == 5
    assert "left out 1 files, of 2 that --exclude names" in data.notes


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    for name in ("bus/city", "train/steam"):
        write_solid(tmp_path / name / "a.png", "red", (9, 9))
    assert FolderSource(tmp_path, SPEC).load().labels == ("bus", "train")


@pytest.mark.parametrize(
    "names",
    [("images", "masks"), ("image", "label"), ("Annotations", "JPEGImages"), ("train_images", "train_masks")],
)
def test_folders_of_a_segmentation_data_set_are_not_classes(tmp_path: Path, names: Sequence[str]) -> None:
    for name in names:
        write_solid(tmp_path / name / "a.png", "red", (9, 9))
    with pytest.raises(DataError, match=rf"{', '.join(names)} of .* look like parts of one data set"):
        FolderSource(tmp_path, SPEC).load()


@pytest.mark.parametrize("names", [("with_mask", "without_mask"), ("edges", "labels"), ("images", "cat")])
def test_classes_may_be_named_as_parts_of_a_data_set(tmp_path: Path, names: Sequence[str]) -> None:
    for name in names:
        write_solid(tmp_path / name / "a.png", "red", (9, 9))
    assert FolderSource(tmp_path, SPEC).load().labels == tuple(sorted(names))


def test_a_folder_around_the_classes_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "animals" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=f"two or more classes, not 1. Did you mean {tmp_path / 'animals'}"):
        FolderSource(tmp_path, SPEC).check()


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Two classes of grey TIFF photos of floats from 0 to 255, of which one is nearly black."""
    for name, white in (("a", 255.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        ramp = np.linspace(0, white, 36, dtype=np.float32).reshape(6, 6)
        Image.fromarray(ramp).save(tmp_path / name / "photo.tif")
    return tmp_path


def test_the_range_of_32_bit_tiffs_is_that_of_all_files(wide: Path) -> None:
    """By itself, the dark photo would have values from 0 to 1."""
    data = FolderSource(wide, SPEC).load()
    ramp = np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6)
    for image, white in zip(data.train.images, (255, 1), strict=True):
        assert np.abs(image[..., 0] - white * ramp).max() <= 0.5
    assert "2 32-bit TIFF files, values 0 to 255" in data.notes


def test_the_service_reads_a_32_bit_tiff_as_training_did(wide: Path) -> None:
    data = FolderSource(wide, SPEC).load()
    for position, image in enumerate(data.train.images):
        content = (wide / data.train.name(position)).read_bytes()
        assert np.array_equal(decode_image(content, data.input), image)
    assert data.input.value_range == FolderSource(wide, SPEC).load().input.value_range  # read from the cache
    with pytest.raises(UnsupportedImageError, match="range of values is unknown"):
        decode_image(content, SPEC)


def test_other_data_is_read_with_the_range_of_the_model(wide: Path) -> None:
    """By themselves, values up to 1 would be from 0 to 1."""
    spec = FolderSource(wide, SPEC).load().input
    Image.fromarray(np.ones((6, 6), np.float32)).save(wide / "a" / "photo.tif")
    assert FolderSource(wide, SPEC).resized(spec).load().train.images[:].max() == 1


def test_32_bit_integers_are_read_and_a_value_outside_the_range_names_the_setting(wide: Path) -> None:
    ramp = (np.arange(36, dtype=np.int32) * 1800).reshape(6, 6)
    for name in ("a", "b"):
        Image.fromarray(ramp).save(wide / name / "photo.tif")
    with pytest.raises(DataError, match=r"a/photo\.tif: Its values, 0 to 63000, are .*data\.value_range=0,65535"):
        FolderSource(wide, SPEC).load()
    data = FolderSource(wide, SPEC.model_copy(update={"value_range": (0, 65535)})).load()
    assert np.array_equal(data.train.images[0][..., 2], np.round(ramp / 257))


def test_a_damaged_32_bit_tiff_is_named(wide: Path) -> None:
    content = (wide / "b" / "photo.tif").read_bytes()
    (wide / "b" / "photo.tif").write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"1 of 2 files .*: b/photo\.tif: The image is damaged or cut short"):
        FolderSource(wide, SPEC).load()


def test_file_names_that_are_not_utf_8_are_kept_and_shown(photos: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (photos / "red" / name).write_bytes(solid("red"))
    data = FolderSource(photos, SPEC).load()
    assert f"red/{name}" in [data.train.name(i) for i in range(len(data.train))]
    (photos / "red" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"red/caf\?\.png: The data is not an image"):
        FolderSource(photos, SPEC).load()


def test_a_data_folder_whose_name_is_not_utf_8_has_a_name_that_json_can_hold(photos: Path) -> None:
    renamed = photos.rename(photos.with_name(os.fsdecode(b"caf\xe9")))
    assert FolderSource(renamed, SPEC).load().name == "caf?"


def test_a_class_folder_whose_name_is_not_utf_8_is_named(photos: Path) -> None:
    (photos / "red").rename(photos / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"the folder 'caf\\udce9' in .* is not UTF-8.* Rename it"):
        FolderSource(photos, SPEC).check()
