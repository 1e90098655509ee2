"""application/zip and application/x-npz: labelled images in one file, for /evaluate alone.

As with image/*, the bytes say what it is: an .npz is a zip that holds arrays. The same file may come as the field
`archive` of a form.
"""

from collections.abc import Sequence

from service.bodies.class_folders import read_folders
from service.codecs.base import BodyKind, Incoming, OpenApi, Purpose, Submission
from service.codecs.npz import SUFFIX, WANTED_IMAGES, WANTED_LABELS, read_npz
from service.codecs.zip import Archive
from service.errors import InvalidRequestError
from service.inference.evaluation import Label
from service.inference.inputs import Image

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


def _parse(incoming: Incoming) -> Submission:
    images, labels = read_archive(incoming.body, incoming)
    return Submission(images, labels)


def _kind(media_type: str, file: str, said: str, *others: str) -> BodyKind:
    how = f"`curl --data-binary @{file} -H 'Content-Type: {media_type}' .../evaluate`"
    openapi: OpenApi = {"schema": {"type": "string", "format": "binary", "description": f"{said} {how}"}}
    return BodyKind(media_type, _parse, {Purpose.EVALUATE: openapi}, others)


ZIP = _kind("application/zip", "images.zip", ZIP_SAID, "application/x-zip-compressed")  # so Windows calls it
NPZ = _kind("application/x-npz", "images.npz", NPZ_SAID)
