"""application/zip and application/x-npz: labelled images in one file, for /evaluate alone.

As with image/*, the bytes say what it is: an .npz is a zip that holds arrays. The same file may come as the field
`archive` of a form.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from service.codecs.base import BodyKind, Incoming, OpenApi, Purpose, Submission
from service.codecs.npz import SUFFIX, WANTED_IMAGES, WANTED_LABELS, read_npz
from service.codecs.zip import Archive, File
from service.errors import InvalidRequestError
from service.inference.evaluation import Label
from service.inference.inputs import ArchivedImage, Image
from service.validation import shortened

ZIP_SAID = (
    "A zip of class-named folders: the folder's name is the label, as in `cat/1.png`, or with one common folder around "
    "all, `top/cat/1.png`. Files whose names begin with a dot, and what desktops leave (`__MACOSX`, "
    "`Thumbs.db`, `desktop.ini`), are passed over."
)
NPZ_SAID = (
    f"What numpy.savez or numpy.savez_compressed writes, with the arrays `images`: {WANTED_IMAGES}, and `labels`: "
    f"{WANTED_LABELS}; a string is a label's name, an integer a class index."
)


def read_archive(data: bytes, incoming: Incoming) -> tuple[Sequence[Image], Sequence[Label]]:
    """(images, labels) of a zip or .npz. Raises MalformedBodyError, InvalidRequestError or TooManyImagesError."""
    archive = Archive(data, incoming)
    if not archive.files:
        raise InvalidRequestError("The archive holds no images; put each into a folder that is named as its label.")
    if all(len(file.path) == 1 and file.name.endswith(SUFFIX) for file in archive.files):
        return read_npz(archive, incoming)
    return read_folders(archive, incoming.max_archived_image_bytes)


# A zip of class-named folders: cat/1.png, dog/2.jpg, all of them in one common folder or not.
#
# Each image is unpacked when its turn to be decoded comes.

_ARCHIVES = {".zip", ".npz", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
_WANTED = "label/image.png, or for all of them top/label/image.png"


def read_folders(archive: Archive, max_image_bytes: int) -> tuple[list[ArchivedImage], list[str]]:
    """(images, their folders' names), in the archive's order. Raises InvalidRequestError."""
    for file in archive.files:
        _check(file, max_image_bytes)
    depth = _depth(archive.files)
    images = [ArchivedImage(file.name, partial(archive.read, file)) for file in archive.files]
    return images, [file.path[depth - 2] for file in archive.files]


def _check(file: File, max_image_bytes: int) -> None:
    if PurePosixPath(file.path[-1]).suffix.lower() in _ARCHIVES:
        raise InvalidRequestError(f"{shortened(file.name)} is an archive inside the archive; put its images there.")
    if file.size > max_image_bytes:
        raise InvalidRequestError(
            f"{shortened(file.name)} unpacks to {file.size:,} bytes; at most {max_image_bytes:,} are allowed an image."
        )


def _depth(files: Sequence[File]) -> int:
    """How many parts each name has: 2, or 3 with a common top folder."""
    depth = 3 if len({file.path[0] for file in files}) == 1 and len(files[0].path) > 2 else 2
    for file in files:
        if len(file.path) != depth:
            raise InvalidRequestError(
                f"{shortened(file.name)} is not in a label's folder; name the files as {_WANTED}."
            )
    return depth


def _parse(incoming: Incoming) -> Submission:
    images, labels = read_archive(incoming.body, incoming)
    return Submission(images, labels)


def _kind(media_type: str, file: str, said: str, *others: str) -> BodyKind:
    how = f"`curl --data-binary @{file} -H 'Content-Type: {media_type}' .../evaluate`"
    openapi: OpenApi = {"schema": {"type": "string", "format": "binary", "description": f"{said} {how}"}}
    return BodyKind(media_type, _parse, {Purpose.EVALUATE: openapi}, others)


ZIP = _kind("application/zip", "images.zip", ZIP_SAID, "application/x-zip-compressed")  # so Windows calls it
NPZ = _kind("application/x-npz", "images.npz", NPZ_SAID)
