"""Photo files to pixels, as the service decodes them; also animations and very large photos, which it refuses."""

import threading
from pathlib import Path

from schemas.errors import ImageTooLargeError
from schemas.image import Pixels, decode_image
from schemas.manifest import InputSpec

MOST_PIXELS = 1_000_000_000
_TEXTS = {
    ".txt",
    ".md",
    ".rtf",
    ".csv",
    ".tsv",
    ".json",
    ".xml",
    ".html",
    ".htm",
    ".yaml",
    ".yml",
    ".log",
    ".py",
    ".toml",
}
_OFFICE = {".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ipynb", ".db", ".ini", ".url", ".lnk", ".md5", ".sha256"}
_BESIDE_PHOTOS = {".aae", ".xmp", ".plist", ".gpx", ".srt"}  # edits as iOS and Adobe describe them, albums and places
_VIDEOS = {".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".3gp", ".mp3", ".m4a", ".wav"}
_DOCUMENTS = _TEXTS | _OFFICE | _BESIDE_PHOTOS | _VIDEOS
_DOCUMENT_NAMES = {"readme", "license", "licence", "copying", "icon"}  # macOS writes Icon, for the picture of a folder
_one_large_image = threading.Lock()  # several at a time could fill the memory


def is_document(file: Path) -> bool:
    """Whether the name says that the file is a document or a video, and so no photo."""
    return file.suffix.lower() in _DOCUMENTS or file.name.lower() in _DOCUMENT_NAMES


def decode_photo(content: bytes, spec: InputSpec) -> Pixels:
    """Returns the pixels, uint8 [height, width, channels] of the spec, as the service decodes them if it accepts them.

    An animation gives its first frame; above 50 megapixels a JPEG is decoded at reduced size. Raises ImageError.
    """
    try:
        return decode_image(content, spec, first_frame=True)
    except ImageTooLargeError:
        with _one_large_image:
            return decode_image(content, spec, MOST_PIXELS, first_frame=True)
