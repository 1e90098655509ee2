"""A zip of class-named folders: cat/1.png, dog/2.jpg, all of them in one common folder or not.

Each image is unpacked when its turn to be decoded comes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from service.codecs.zip import Archive, File
from service.errors import InvalidRequestError
from service.inference.inputs import ArchivedImage, shortened

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
