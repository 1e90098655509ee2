"""Image bytes, or pixels, to the model's input: the only decode and resize in the repository.

Trainer and service both come through here, so an image means the same to both. What is ambiguous is refused with its
reason instead of guessed:

    EXIF orientation       applied
    palette, 1 bit, grey   expanded to RGB, or to grey, as the model wants
    16 bits a channel      scaled to 8 (Pillow's own conversion clips)
    CMYK, YCbCr            converted to RGB
    transparency           laid over white
    MPO (phones' JPEG)     its main picture
    animation, many pages  refused: which frame is meant?
    32-bit, float, LAB     refused: the range of values is not known
    truncated, damaged     refused
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.manifest import InputSpec, Interpolation, Resize

Pixels = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 50_000_000
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_EXIF_ORIENTATION = 0x0112
_DIRECT_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "P", "LA", "PA", "RGBA", "La", "RGBa"}
_MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BOX: Image.Resampling.BOX,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

# Pillow's own guard is process-wide and only warns in part of its range; max_pixels of each call takes its place.
Image.MAX_IMAGE_PIXELS = None


def decode_image(data: bytes, spec: InputSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """Encoded image bytes -> uint8 [height, width, channels] of the spec.

    Raises ImageTooLargeError before decoding when the header claims more than max_pixels, UnsupportedImageError for a
    kind that has no single right reading, UnreadableImageError for everything that is not a whole image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, max_pixels)
            image.load()
            return _to_model_input(_upright(image), spec)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(name for name in FORMATS if name != "MPO")
        raise UnreadableImageError(f"The bytes are no image of a known format ({known}).") from error
    except Exception as error:  # decoders raise anything on hostile bytes: struct.error, SyntaxError, IndexError, ...
        raise UnreadableImageError(f"The image is damaged or cut short ({error}).") from error


def fit_pixels(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Pixels uint8 [height, width] or [height, width, 1 | 3 | 4] -> uint8 [height, width, channels] of the spec.

    Raises UnsupportedImageError for an array of another type or shape.
    """
    if pixels.dtype != np.uint8:
        raise UnsupportedImageError(f"Pixels must be uint8 (0 to 255), not {pixels.dtype}.")
    if pixels.shape == spec.shape:
        return pixels
    grey_or_colour = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _MODE_OF_CHANNELS)  # noqa: PLR2004
    if not grey_or_colour or 0 in pixels.shape:
        raise UnsupportedImageError(
            f"Pixels must be [height, width] or [height, width, 1 | 3 | 4] and not empty, not {list(pixels.shape)}."
        )
    plane = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels  # noqa: PLR2004
    return _to_model_input(Image.fromarray(np.ascontiguousarray(plane)), spec)


def encode_png(pixels: Pixels) -> bytes:
    """uint8 [height, width, 1 | 3] -> PNG bytes that decode to the same pixels."""
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "PNG")
    return buffer.getvalue()


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(f"The image claims {width} x {height} pixels; at most {max_pixels:,} are allowed.")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnsupportedImageError("The image has several frames or pages; send the one that is meant.")


def _upright(image: Image.Image) -> Image.Image:
    if image.getexif().get(_EXIF_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _to_model_input(image: Image.Image, spec: InputSpec) -> Pixels:
    image = _over_white(_eight_bits(image)).convert(_MODE_OF_CHANNELS[spec.channels])
    size = (spec.width, spec.height)
    if image.size != size:
        method = _RESAMPLING[spec.interpolation]
        if spec.resize is Resize.STRETCH:
            image = image.resize(size, method)
        elif spec.resize is Resize.CROP:
            image = ImageOps.fit(image, size, method)
        else:
            image = ImageOps.pad(image, size, method, color=0)
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey comes as I;16 (or, from PNM, as I with values up to 65,535); 255 * 257 = 65,535."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.mode not in _DIRECT_MODES:
        raise UnsupportedImageError(
            f"The image's pixels are of the kind '{image.mode}', whose range of values is not known; "
            "save it as 8-bit RGB or grey."
        )
    return image


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colour = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
