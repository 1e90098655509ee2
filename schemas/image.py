"""Converts encoded images and pixel arrays to the model's input: the only decode and resize in the repository.

Trainer and service both use it, so that both read an image in the same way:

    EXIF orientation       applied
    palette, 1 bit, grey   expanded to RGB, or to grey, as the model requires
    16 bits a channel      scaled to 8 (Pillow's own conversion clips)
    CMYK, YCbCr            converted to RGB
    transparency           laid over white
    MPO (phones' JPEG)     the main image
    HEIC                   the main image; needs pillow-heif
    large JPEG             decoded at reduced size; above 50 MP only if max_pixels accepts it
    animation, many pages  refused, unless the caller accepts the first frame
    32-bit, float          scaled to 8, if the model's training images had such values: the spec has their range
    LAB                    refused
    plain PNM, RLE BMP     refused: a small file can occupy the decoder for minutes
    truncated, damaged     refused; damaged metadata is ignored
"""

import io
import re
import threading
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.jpeg import decode_jpeg
from schemas.manifest import InputSpec, Interpolation, Resize
from schemas.metadata import without_metadata
from schemas.png import decode_plain_png
from schemas.tiff import check_tiff
from schemas.value_range import ValueRange, outside, shown_range, to_bytes

try:
    import pillow_heif
except ImportError:  # optional: the licence of its decoder differs
    HEIC_DECODER = None
else:
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    HEIC_DECODER = pillow_heif.__version__

Pixels = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # the limit of JPEG and GIF; resizing needs memory for each side, however short the other
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"] + ["HEIF"] * bool(HEIC_DECODER)  # JPEG: also MPO
_ISO_MEDIA = re.compile(rb"....ftyp((?P<heic>hei[cxms]|hev[cxms]|mif1|msf1)|avi[fs])", re.DOTALL)
_UNSUPPORTED_FORMATS = {
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "JPEG XL",
    rb"%PDF-": "PDF",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg\b": "SVG",
}

_EXIF_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SLOW_DECODERS = {"ppm_plain", "bmp_rle"}
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # factor from 2-bit or 4-bit grey to 8-bit grey
_DIRECT_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "P", "LA", "PA", "RGBA", "La", "RGBa"}
_WIDE_MODES = {"I", "F"}
_MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BOX: Image.Resampling.BOX,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

# Pillow's own limit applies to the whole process and refuses images above twice its value. It backs up max_pixels:
# some decoders allocate memory while a file is opened.
Image.MAX_IMAGE_PIXELS = DEFAULT_MAX_PIXELS
_pillow_limit_lock = threading.Lock()

# Pillow's warnings are about the input, for example a damaged EXIF tag that it skips. The filter is set once:
# warning filters belong to the whole process, and changing them for each call is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    data: bytes, spec: InputSpec, max_pixels: int = DEFAULT_MAX_PIXELS, *, first_frame: bool = False
) -> Pixels:
    """Decodes an image and returns uint8 [height, width, channels] of the spec.

    first_frame accepts an animation or a document and returns its first frame or page.
    Raises ImageTooLargeError, before decoding, if the header declares more than max_pixels or a side above MAX_SIDE;
    UnsupportedImageError for an unsupported or ambiguous kind; UnreadableImageError if the data is not a complete
    image.
    """
    _increase_pillow_limit(max_pixels)
    try:
        data = without_metadata(data, first_frame=first_frame)
        if plain := decode_plain_png(data, max_pixels):
            return _to_model_input(plain, spec)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, data, max_pixels, first_frame)
            if image.info.get("default_image"):  # of an animated PNG, is not part of the animation
                image.seek(1)
            pixels = _load(image, data, spec)
            turn = _TO_UPRIGHT.get(_orientation(image))
            return _to_model_input(pixels if turn is None else pixels.transpose(turn), spec)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"The image is far larger than the limit of {max_pixels:,} pixels.") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # decoders raise many types on bad bytes: struct.error, SyntaxError, IndexError
        raise UnreadableImageError(f"The image is damaged or cut short ({error or type(error).__name__}).") from error


def _unidentified(data: bytes) -> ImageError:
    if not data:
        return UnreadableImageError("The file is empty.")
    if found := _ISO_MEDIA.match(data):
        name = "HEIC" if found["heic"] else "AVIF"
        if name == "HEIC" and not HEIC_DECODER:
            return UnsupportedImageError(
                "HEIC (the format of iPhone photos) is read only with pillow-heif. "
                "Install it (pip install pillow-heif), or save the image as JPEG or PNG."
            )
        return UnreadableImageError(f"The {name} image is damaged or cut short.")
    for signature, name in _UNSUPPORTED_FORMATS.items():
        if re.match(signature, data, re.DOTALL):
            return UnsupportedImageError(f"{name} is not supported; save the image as PNG or JPEG.")
    return UnreadableImageError(f"The data is not an image of a supported format ({', '.join(FORMATS)}).")


def fit_pixels(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Resizes pixels, uint8 [height, width] or [height, width, 1 | 3 | 4], to [height, width, channels] of the spec.

    Raises UnsupportedImageError for any other type or shape, and ImageTooLargeError for a side above MAX_SIDE.
    """
    if pixels.dtype != np.uint8:
        raise UnsupportedImageError(f"Pixels must be uint8 (0 to 255), not {pixels.dtype}.")
    if pixels.shape == spec.shape:
        return pixels
    grey_or_colour = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _MODE_OF_CHANNELS)
    if not grey_or_colour or 0 in pixels.shape:
        raise UnsupportedImageError(
            f"Pixels must be [height, width] or [height, width, 1 | 3 | 4] and not empty, not {list(pixels.shape)}."
        )
    _check_sides(pixels.shape[1], pixels.shape[0])
    plane = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _to_model_input(Image.fromarray(np.ascontiguousarray(plane)), spec)


def encode_png(pixels: Pixels) -> bytes:
    """Returns pixels, uint8 [height, width, 1 | 3], as a PNG that decodes to the same pixels."""
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    # Level 1 takes a fraction of the time of the default, for files that are hardly larger.
    Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _increase_pillow_limit(max_pixels: int) -> None:
    """Pillow has one limit for the whole process, so it is only ever raised."""
    with _pillow_limit_lock:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(f"The image is {width} x {height} pixels; the limit is {MAX_SIDE:,} per side.")


def _check_header(image: ImageFile.ImageFile, data: bytes, max_pixels: int, first_frame: bool) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(f"The image is {width} x {height} pixels; the limit is {max_pixels:,} pixels.")
    _check_sides(width, height)
    if getattr(image, "is_animated", False) and image.format not in {"MPO", "HEIF"} and not first_frame:
        raise UnsupportedImageError("The image has several frames or pages; send a single frame.")
    if any(tile.codec_name in _SLOW_DECODERS for tile in image.tile):
        raise UnsupportedImageError("Plain-text PNM and run-length BMP are not supported; save the image as PNG.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff(image, data, max_pixels)
    if image.format == "PNG":
        _scale_transparent_colour(image)


def _scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Scales a PNG's transparent colour to 8 bits: Pillow compares the file's value with pixels already scaled."""
    transparent, kind = image.info.get("transparency"), image.tile[0].args
    if transparent is not None and kind == "RGB;16B":
        raise UnsupportedImageError(
            "16-bit RGB with a transparent colour is not supported; save the image as 8-bit RGBA."
        )
    if isinstance(transparent, int) and kind in _GREY_STEPS:
        image.info["transparency"] = transparent * _GREY_STEPS[str(kind)]


def _load(image: ImageFile.ImageFile, data: bytes, spec: InputSpec) -> Image.Image:
    """Decodes the pixels: a large JPEG at 1/8, 2/8, ... of its size, but at least twice the model's input.

    libjpeg then averages pixels while it decodes, which takes a fraction of the time. The interpolation `nearest` must
    not average, so it gets the full size.
    """
    if image.format in {"JPEG", "MPO"}:
        side = 2 * max(spec.width, spec.height)  # enough for both orientations
        larger = min(image.size) > side and spec.interpolation is not Interpolation.NEAREST
        reduced = larger or image.width * image.height > DEFAULT_MAX_PIXELS
        return decode_jpeg(image, data, (side, side) if reduced else None)
    image.load()
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation, or 1 without readable EXIF. Call it after _load: a PNG may have EXIF at its end."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF raises many types, and leaves the pixels intact
        return 1


def _to_model_input(image: Image.Image, spec: InputSpec) -> Pixels:
    mode = _MODE_OF_CHANNELS[spec.channels]
    image = _over_white(_eight_bits(image, spec.value_range))
    if image.mode != mode and (image.mode, mode) != ("RGBX", "RGB"):  # RGBX is resized like RGB: it is smaller then
        image = image.convert(mode)
    size = (spec.width, spec.height)
    if image.size != size:
        method = _RESAMPLING[spec.interpolation]
        if spec.resize is Resize.STRETCH:
            image = image.resize(size, method)
        elif spec.resize is Resize.CROP:
            image = ImageOps.fit(image, size, method)
        else:
            image = _pad(image, size, method)
    return np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8).reshape(spec.shape)


def _pad(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """Like ImageOps.pad, but each side keeps at least one pixel; ImageOps.pad can round a thin image to zero."""
    width, height = size
    if image.width * height > image.height * width:
        height = max(1, round(image.height / image.width * width))
    else:
        width = max(1, round(image.width / image.height * height))
    padded = Image.new(image.mode, size)
    padded.paste(image.resize((width, height), method), (round((size[0] - width) / 2), round((size[1] - height) / 2)))
    return padded


def _eight_bits(image: Image.Image, value_range: ValueRange | None) -> Image.Image:
    """Scales 16-bit grey to 8 bits (255 * 257 = 65,535). Pillow reads it as I;16, or from PNM as I.

    value_range is the range of 32-bit images, which a single image does not show.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).clip(0, 255).astype(np.uint8)
        grey[wide == image.info.get("transparency", -1)] = 255  # over white
        return Image.fromarray(grey)
    if image.mode in _DIRECT_MODES:
        return image
    if image.mode not in _WIDE_MODES or value_range is None:
        raise UnsupportedImageError(
            f"Images of pixel mode '{image.mode}' are not supported: their range of values is unknown. "
            "Save the image as 8-bit RGB or grey."
        )
    values = np.asarray(image)
    if outside(values, value_range).any():
        raise UnsupportedImageError(
            f"Its values, {values.min():g} to {values.max():g}, are outside {shown_range(value_range)}, the range of "
            "the training images. Save it as 8-bit grey, or train with the values of black and white, as in --set "
            "data.value_range=0,65535."
        )
    return Image.fromarray(to_bytes(values, value_range))


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colour = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
