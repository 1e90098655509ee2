"""application/zip and application/x-npz: labelled images in one file, for /evaluate only.

The bytes, not the Content-Type, tell the two apart: an .npz is a zip of arrays. A form may carry the same file in its
field `archive`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from service.codecs.base import BodyFormat, OpenApi, Purpose, RequestBody, Submission
from service.codecs.npz import SUFFIX, WANTED_IMAGES, WANTED_LABELS, read_npz
from service.codecs.zip import Archive, File
from service.errors import InvalidRequestError
from service.inference.evaluation import Label
from service.inference.inputs import ArchivedImage, Image
from service.settings import Settings
from service.validation import shortened

ZIP_DESCRIPTION = (
    "A zip of class-named folders: the folder's name is the label, as in `cat/1.png`, or `top/cat/1.png` if one folder "
    "contains all others. Files whose names begin with a dot, and files that desktops create (`__MACOSX`, "
    "`Thumbs.db`, `desktop.ini`), are ignored."
)
NPZ_DESCRIPTION = (
    f"The output of numpy.savez or numpy.savez_compressed, with the arrays `images`: {WANTED_IMAGES}, and `labels`: "
    f"{WANTED_LABELS}; a string is a label's name, an integer a class index."
)


def read_archive(data: bytes, settings: Settings) -> tuple[Sequence[Image], Sequence[Label]]:
    """Returns (images, labels). Raises MalformedBodyError, InvalidRequestError or TooManyImagesError."""
    archive = Archive(data, settings)
    if not archive.files:
        raise InvalidRequestError("The archive holds no images; put each into a folder named after its label.")
    if all(len(file.path) == 1 and file.name.endswith(SUFFIX) for file in archive.files):
        return read_npz(archive, settings)
    return read_folders(archive, settings.max_body_bytes)


# A zip of class-named folders

_ARCHIVES = {".zip", ".npz", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
_WANTED = "label/image.png, or all in one folder, as in top/label/image.png"


def read_folders(archive: Archive, max_image_bytes: int) -> tuple[list[ArchivedImage], list[str]]:
    """Returns (images, labels) in the archive's order. Each image is unpacked just before it is decoded.

    Raises InvalidRequestError.
    """
    for file in archive.files:
        _check(file, max_image_bytes)
    depth = _depth(archive.files)
    images = [ArchivedImage(file.name, partial(archive.read, file)) for file in archive.files]
    return images, [file.path[depth - 2] for file in archive.files]


def _check(file: File, max_image_bytes: int) -> None:
    if PurePosixPath(file.path[-1]).suffix.lower() in _ARCHIVES:
        raise InvalidRequestError(f"{shortened(file.name)} is an archive inside the archive; add its images instead.")
    if file.size > max_image_bytes:
        raise InvalidRequestError(
            f"{shortened(file.name)} unpacks to {file.size:,} bytes; at most {max_image_bytes:,} are allowed per image."
        )


def _depth(files: Sequence[File]) -> int:
    """Returns the number of parts of each name: 2, or 3 with a common top folder."""
    depth = 3 if len({file.path[0] for file in files}) == 1 and len(files[0].path) > 2 else 2
    for file in files:
        if len(file.path) != depth:
            raise InvalidRequestError(f"{shortened(file.name)} is not in a label's folder; name the files {_WANTED}.")
    return depth


def _parse(body: RequestBody) -> Submission:
    images, labels = read_archive(body.data, body.settings)
    return Submission(images, labels)


def _format(media_type: str, file: str, description: str, *aliases: str) -> BodyFormat:
    usage = f"`curl --data-binary @{file} -H 'Content-Type: {media_type}' .../evaluate`"
    openapi: OpenApi = {"schema": {"type": "string", "format": "binary", "description": f"{description} {usage}"}}
    return BodyFormat(media_type, _parse, {Purpose.EVALUATE: openapi}, aliases, lambda data: data.startswith(b"PK\3\4"))


ZIP = _format("application/zip", "images.zip", ZIP_DESCRIPTION, "application/x-zip-compressed")  # Windows's name
NPZ = _format("application/x-npz", "images.npz", NPZ_DESCRIPTION)
