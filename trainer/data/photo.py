"""Photo files to pixels, also of kinds that the service refuses: animations, AVIF, HEIC, and very large ones."""

import io
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError
from schemas.image import Pixels, decode_image, fit_pixels
from schemas.manifest import InputSpec

MOST_PIXELS = 1_000_000_000
_OTHER_FORMATS = ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
_DOCUMENTS = {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".htm", ".pdf", ".db", ".ini", ".yaml", ".yml"}
_one_large_image = threading.Lock()  # several at a time could fill the memory

try:
    from pillow_heif import register_heif_opener
except ImportError:  # optional: it brings a decoder of its own
    HEIC = False
else:
    register_heif_opener()
    HEIC = True


def is_document(file: Path) -> bool:
    """Whether the name says that the file is text or another document, and so no photo."""
    return file.suffix.lower() in _DOCUMENTS or file.name == "Icon"  # macOS, for the picture of a folder


def decode_photo(content: bytes, spec: InputSpec) -> Pixels:
    """Returns the pixels, uint8 [height, width, channels] of the spec, as the service decodes them if it accepts them.

    An animation gives its first frame; above 50 megapixels a JPEG is decoded at reduced size. Raises ImageError.
    """
    try:
        return decode_image(content, spec)
    except ImageTooLargeError as error:
        with _one_large_image:
            return _decode_large(content, spec, error)
    except ImageError as error:
        return _decode_other(content, spec, error)


def _decode_large(content: bytes, spec: InputSpec, reason: ImageError) -> Pixels:
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise reason
            image.draft("RGB", (2 * spec.width, 2 * spec.height))
            return _fit(image, spec)
    except UnidentifiedImageError:
        return decode_image(content, spec, MOST_PIXELS)
    except OSError as error:
        raise UnreadableImageError(f"The image is damaged or cut short ({error}).") from error


def _decode_other(content: bytes, spec: InputSpec, reason: ImageError) -> Pixels:
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS and not HEIC:
        raise UnreadableImageError(
            "HEIC is read only with pillow-heif. Install it (pip install pillow-heif), or save the photo as JPEG."
        )
    try:
        with Image.open(io.BytesIO(content), formats=[name for name in _OTHER_FORMATS if name in _openers()]) as image:
            if image.format in {"AVIF", "HEIF"} or getattr(image, "is_animated", False):
                return _fit(image, spec)
    except Exception as error:  # decoders raise anything on damaged bytes; the first reason names what to do
        raise reason from error
    raise reason


def _fit(image: Image.Image, spec: InputSpec) -> Pixels:
    upright = ImageOps.exif_transpose(image)
    return fit_pixels(np.asarray(upright.convert("RGBA" if upright.has_transparency_data else "RGB")), spec)


def _openers() -> set[str]:
    Image.init()
    return set(Image.OPEN)
