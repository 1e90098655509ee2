import pytest

from schemas.errors import UnreadableImageError
from service.codecs.archive import read_archive
from service.inference.inputs import ArchivedImage, Image, name_of
from service.settings import Settings
from tests.support.bundles import COLOURS, SPEC, solid
from tests.support.zip_files import lying, zipped


def read(files: dict[str, bytes]) -> tuple[list[Image], list[str | int]]:
    data = zipped(files)
    images, labels = read_archive(data, Settings())
    return list(images), list(labels)


def test_the_folders_are_the_labels_in_the_archives_order() -> None:
    colours = ["blue", "red", "green", "red"]
    images, labels = read({f"{colour}/{i}.png": solid(colour) for i, colour in enumerate(colours)})
    assert labels == colours
    assert [name_of(image) for image in images] == ["blue/0.png", "red/1.png", "green/2.png", "red/3.png"]
    for image, colour in zip(images, colours, strict=True):
        assert tuple(image.decode(SPEC, 100)[0, 0].tolist()) == COLOURS[colour]


def test_one_common_top_folder_is_passed_over() -> None:
    images, labels = read({"data/": b"", "data/red/": b"", "data/red/1.png": b"", "data/blue/2.png": b""})
    assert labels == ["red", "blue"]
    assert name_of(images[0]) == "data/red/1.png"


def test_a_single_folder_is_a_label() -> None:
    assert read({"red/1.png": b"", "red/2.png": b""})[1] == ["red", "red"]


def test_a_label_may_have_any_alphabet_whether_or_not_the_packer_says_utf_8() -> None:
    files = {"grün/1.png": b"", "猫/2.png": b""}
    assert read(files)[1] == ["grün", "猫"]
    unsaid = lying(lying(zipped(files), 0, flags=0), 1, flags=0)
    assert read_archive(unsaid, Settings())[1] == ["grün", "猫"]


def test_backslashes_part_folders_too() -> None:
    assert read({"red\\1.png": b""})[1] == ["red"]


def test_an_image_is_unpacked_when_it_is_decoded_and_not_before() -> None:
    unpacked: list[str] = []

    def unpack() -> bytes:
        unpacked.append("now")
        return solid("red")

    image = ArchivedImage("red/1.png", unpack)
    assert unpacked == []
    image.decode(SPEC, 100)
    assert unpacked == ["now"]


def test_a_bad_image_is_told_by_its_name() -> None:
    (image,), _ = read({"red/broken.png": b"this is no image"})
    with pytest.raises(UnreadableImageError, match=r"^red/broken\.png: The data is not an image"):
        image.decode(SPEC, 100)
