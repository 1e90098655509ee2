import stat
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ImageError, UnreadableImageError
from service.codecs.archive import ZIP, read_archive
from service.codecs.base import Purpose
from service.codecs.zip import Archive
from service.errors import InvalidRequestError, MalformedBodyError, ServiceError, TooManyImagesError
from service.settings import Settings
from tests.support.bundles import SPEC, solid
from tests.support.encoded_images import BOUNDED
from tests.support.request_bodies import request_body
from tests.support.zip_files import entry, lying, npz, zip64_saying, zipped

RED, BLUE = solid("red"), solid("blue")
TWO = zipped({"red/1.png": RED, "blue/2.png": BLUE})
ZEROS = bytes(30_000_000)


def limits(max_images: int = 100, max_archive_bytes: int = 10**6, max_body_bytes: int = 10**6) -> Settings:
    return Settings(max_images=max_images, max_archive_bytes=max_archive_bytes, max_body_bytes=max_body_bytes)


HOSTILE = {
    "announces too much": (zipped({"red/1.png": ZEROS}), r"unpacks to 30,000,000 bytes, more than the 1,000,000"),
    "announces too much in parts": (
        zipped({f"red/{i}.png": bytes(400_000) for i in range(3)}),
        r"unpacks to 1,200,000 bytes",
    ),
    "absolute path": (zipped({"/etc/red/1.png": RED}), "leads out of the archive"),
    "path out of the archive": (zipped({"red/../../1.png": RED}), "leads out of the archive"),
    "path out of the archive, as Windows has it": (zipped({"..\\red\\1.png": RED}), "leads out of the archive"),
    "path on a drive": (zipped({"C:/red/1.png": RED}), "leads out of the archive"),
    "hidden path out of the archive": (zipped({"../.red/1.png": RED}), "leads out of the archive"),
    "link": (zipped([(entry("red/1.png", stat.S_IFLNK | 0o777), b"/etc/passwd")]), "a link or another special file"),
    "pipe": (zipped([(entry("red/1.png", stat.S_IFIFO), b"")]), "a link or another special file"),
    "file that says it is a folder": (zipped([(entry("red/1.png", stat.S_IFDIR), RED)]), "special file"),
    "folder that says it is a file": (zipped([(entry("red/", stat.S_IFREG), b"")]), "special file"),
    "folder with content": (lying(zipped({"red/": b""}), size=9), "named as a folder and has 9 bytes"),
    "encrypted": (lying(TWO, flags=1), "encrypted; create the archive without a password"),
    "strongly encrypted": (lying(TWO, flags=0x41), "encrypted"),
    "bzip2": (zipped({"red/1.png": RED}, zipfile.ZIP_BZIP2), "compression method 12; only 0"),
    "lzma": (zipped({"red/1.png": RED}, zipfile.ZIP_LZMA), "compression method 14"),
    "the same name in another spelling": (zipped({"red/1.png": RED, "./red//1.png": BLUE}), "more than once"),
    "two entries for one file's bytes": (lying(TWO, 1, offset=0), "shares bytes"),
    "entry that reaches into the next": (lying(TWO, 0, packed=len(RED) + 200), "shares bytes"),
    "entry that reaches beyond the files": (lying(TWO, 1, packed=10_000), "shares bytes"),
    "entry that begins beyond the archive": (lying(TWO, 1, offset=2**31), "shares bytes"),
    "zip64 size": (zip64_saying(2**62), r"unpacks to 4,611,686,018,427,387,904 bytes"),
    "zip64 without its size": (
        lying(zipped([(entry("red/1.png", extra=b"\1\0\0\0"), b"x")]), size=2**32 - 1),
        "cannot be read",
    ),
    "name that is not the UTF-8 it says": (
        zipped({"grün/1.png": RED}).replace("grün".encode(), b"gr\xff\xffn"),
        "cannot be read",
    ),
    "directory that is cut short": (TWO[:-40] + TWO[-22:], "cannot be read"),
    "archive inside the archive": (
        zipped({"red/1.png": RED, "red/more.zip": TWO}),
        "red/more.zip is an archive inside",
    ),
    "image larger than one sent alone": (
        zipped({"red/1.png": bytes(20_000)}),
        "to 20,000 bytes; at most 10,000",
    ),
    "file outside of the folders": (zipped({"red/1.png": RED, "readme.txt": b"x"}), "readme.txt is not in a label's"),
    "file too deep": (zipped({"red/1.png": RED, "red/a/b/1.png": BLUE}), "red/a/b/1.png is not in a label's folder"),
    "no files": (zipped({}), "holds no images"),
    "folders alone": (zipped({"red/": b"", "blue/": b""}), "holds no images"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_in_one_sentence_before_anything_is_unpacked(data: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidRequestError, match=message) as refused:
        read_archive(data, limits(max_body_bytes=10_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(refused.value).endswith(".")
    assert peak < 1_000_000


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_repeated_name_is_refused() -> None:
    data = zipped([("red/1.png", RED), ("red/1.png", BLUE)])
    with pytest.raises(InvalidRequestError, match="more than once"):
        read_archive(data, limits())


def test_entries_that_share_bytes_are_refused() -> None:
    """A bomb of overlapping files: each of 50 entries is the same megabyte of zeros."""
    data = zipped([(f"red/{i}.png", b"") for i in range(49)] + [("red/last.png", bytes(1_000_000))])
    offset = data.index(b"red/last.png") - 30
    packed = len(zipped({"red/last.png": bytes(1_000_000)})) - len(zipped({"red/last.png": b""}))
    for i in range(50):
        data = lying(data, i, offset=offset, size=1_000_000, packed=packed, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidRequestError, match="shares bytes"):
        read_archive(data, limits(max_archive_bytes=10**9))


def test_a_file_never_yields_more_bytes_than_announced() -> None:
    data = lying(zipped({"red/1.png": ZEROS}), size=1000)
    archive = Archive(data, limits())
    (file,) = archive.files
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match="It cannot be unpacked"):
        archive.read(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    with suppress(zipfile.BadZipFile), archive.opened(file) as stream:
        stream.read()
    _, control = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert control > len(ZEROS)  # what it would have taken, read in the usual way


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lying(TWO, size=len(RED) + 100), id="fewer bytes than announced"),
        pytest.param(lying(TWO, size=len(RED) - 1), id="more bytes than announced"),
        pytest.param(lying(TWO, crc=0), id="another checksum"),
        pytest.param(TWO.replace(b"red/1.png", b"blu/1.png", 1), id="another name than in the directory"),
        pytest.param(b"XX" + TWO[2:], id="no file where the directory says"),
    ],
)
def test_a_file_that_differs_from_the_directory_is_invalid_and_others_stay_valid(data: bytes) -> None:
    bad, good = read_archive(data, limits())[0]
    assert good.decode(SPEC, 10**6)[0, 0].tolist() == [20, 30, 240]
    with pytest.raises(UnreadableImageError, match=r"^red/1\.png: It cannot be unpacked"):
        bad.decode(SPEC, 10**6)


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip", TWO[:-22], RED])
def test_data_that_is_not_a_zip_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="not a zip"):
        read_archive(data, limits())


def test_more_images_than_allowed_are_too_many() -> None:
    data = zipped({f"red/{i}.png": b"" for i in range(5)})
    assert len(read_archive(data, limits(max_images=5))[0]) == 5
    with pytest.raises(TooManyImagesError):
        read_archive(data, limits(max_images=4))


def test_a_directory_of_very_many_entries_is_not_parsed() -> None:
    data = zipped({f"red/.{i}": b"" for i in range(2000)} | {"red/1.png": RED})
    assert len(read_archive(data, limits(max_images=1000))[0]) == 1
    with pytest.raises(TooManyImagesError):
        read_archive(data, limits(max_images=400))


def test_hidden_files_and_desktop_files_are_ignored() -> None:
    data = zipped(
        {
            "red/1.png": RED,
            "red/.DS_Store": b"x",
            "__MACOSX/red/._1.png": b"x",
            "red/Thumbs.db": b"x",
            "red/desktop.ini": b"x",
            "Desktop.ini": b"x",
            "__MACOSX/red/Icon": b"x",
            ".git/config": b"x",
            "red/": b"",
        }
    )
    images, labels = read_archive(data, limits())
    assert (len(images), labels) == (1, ["red"])


@given(st.data())
@BOUNDED
def test_any_archive_parses_or_raises_a_service_error(data: st.DataObject) -> None:
    for whole in (TWO, npz(images=[[[1]]], labels=[0])):
        changed = bytearray(whole)
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
            changed[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(changed)))
        for body in (bytes(changed), bytes(changed[:cut]), bytes(changed[cut:])):
            with suppress(ServiceError):
                for image in ZIP.parse(request_body(body, purpose=Purpose.EVALUATE)).images:
                    with suppress(ImageError):
                        image.decode(SPEC, 10**6)
