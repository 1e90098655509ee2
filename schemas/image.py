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
    plain PNM, RLE BMP     refused: a small file can keep their decoders busy for minutes
    truncated, damaged     refused
"""

import io
import re
import threading
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from schemas.errors import ImageError, ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from schemas.manifest import InputSpec, Interpolation, Resize

Pixels = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # the most that JPEG and GIF can say; the memory of resizing grows with a side, whatever the other is
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # MPO comes in as JPEG
_UNSUPPORTED_FORMATS = {
    rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)": "HEIC (the format of iPhone photos)",
    rb"....ftypavi[fs]": "AVIF",
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
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # from a 2-bit or 4-bit grey to its 8-bit one
_DIRECT_MODES = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "P", "LA", "PA", "RGBA", "La", "RGBa"}
_MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BOX: Image.Resampling.BOX,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

# Pillow's own guard is process-wide and refuses from twice its value on. It stands behind max_pixels of each call:
# some decoders reserve memory while a file is opened.
Image.MAX_IMAGE_PIXELS = DEFAULT_MAX_PIXELS
_guard_lock = threading.Lock()

# Pillow's warnings speak of the bytes (a damaged EXIF tag that it skips, say), not of this program. Filters belong to
# the whole process: changing them around each call would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, spec: InputSpec, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """Encoded image bytes -> uint8 [height, width, channels] of the spec.

    Raises ImageTooLargeError before decoding when the header claims more than max_pixels or a side above MAX_SIDE,
    UnsupportedImageError for a kind that has no single right reading, UnreadableImageError for everything that is not
    a whole image.
    """
    _widen_guard(max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, max_pixels)
            image.load()
            return _to_model_input(_upright(image), spec)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"The image claims far more than the {max_pixels:,} pixels allowed.") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # decoders raise anything on hostile bytes: struct.error, SyntaxError, IndexError, ...
        raise UnreadableImageError(f"The image is damaged or cut short ({error or type(error).__name__}).") from error


def _unidentified(data: bytes) -> ImageError:
    if not data:
        return UnreadableImageError("The file is empty.")
    for signature, name in _UNSUPPORTED_FORMATS.items():
        if re.match(signature, data, re.DOTALL):
            return UnsupportedImageError(f"{name} is not supported; save the image as PNG or JPEG.")
    return UnreadableImageError(f"The bytes are no image of a known format ({', '.join(FORMATS)}).")


def fit_pixels(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Pixels uint8 [height, width] or [height, width, 1 | 3 | 4] -> uint8 [height, width, channels] of the spec.

    Raises UnsupportedImageError for an array of another type or shape, ImageTooLargeError for a side above MAX_SIDE.
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
    """uint8 [height, width, 1 | 3] -> PNG bytes that decode to the same pixels."""
    plane = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(buffer, "PNG")
    return buffer.getvalue()


def _widen_guard(max_pixels: int) -> None:
    with _guard_lock:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(f"The image is {width} x {height} pixels; at most {MAX_SIDE:,} a side are allowed.")


def _check_header(image: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLargeError(f"The image claims {width} x {height} pixels; at most {max_pixels:,} are allowed.")
    _check_sides(width, height)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnsupportedImageError("The image has several frames or pages; send the one that is meant.")
    if any(tile.codec_name in _SLOW_DECODERS for tile in image.tile):
        raise UnsupportedImageError("Plain-text PNM and run-length BMP are not read; save the image as PNG.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image, max_pixels)
    if image.format == "PNG":
        _mend_transparent_colour(image)


def _check_tiff(image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    tags = image.tag_v2
    if int(tags.get(TiffImagePlugin.TILEWIDTH, 0)) * int(tags.get(TiffImagePlugin.TILELENGTH, 0)) > max_pixels:
        raise ImageTooLargeError(f"The image claims tiles of more than the {max_pixels:,} pixels allowed.")
    black_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 1
    sixteen_bits = tags.get(TiffImagePlugin.BITSPERSAMPLE) == (16,)
    if image.mode.startswith("I;16") and not (black_is_zero and sixteen_bits):
        # Pillow reads 12 bits without scaling them to 16, and takes white for black.
        raise UnsupportedImageError("A grey TIFF above 8 bits must have 16 bits and black as 0; save it as 8-bit grey.")
    planes = len(image.getbands()) if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 else 1
    covered = sum(
        (right - left) * (lower - upper)
        for left, upper, right, lower in (tile.extents for tile in image.tile if tile.extents)
    )
    if not image.use_load_libtiff and covered < image.width * image.height * planes:
        raise UnreadableImageError("The image is damaged or cut short (a part of the picture has no data).")


def _mend_transparent_colour(image: ImageFile.ImageFile) -> None:
    """A PNG gives its transparent colour at the file's bit depth; Pillow compares it with pixels made 8-bit."""
    transparent, kind = image.info.get("transparency"), image.tile[0].args
    if transparent is not None and kind == "RGB;16B":
        raise UnsupportedImageError("A 16-bit RGB image with a transparent colour is not read; save it as 8-bit RGBA.")
    if isinstance(transparent, int) and kind in _GREY_STEPS:
        image.info["transparency"] = transparent * _GREY_STEPS[str(kind)]


def _upright(image: Image.Image) -> Image.Image:
    turn = _TO_UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


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
            image = _pad(image, size, method)
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _pad(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """As ImageOps.pad, but a line that is too thin for the size keeps one pixel instead of vanishing."""
    width, height = size
    if image.width * height > image.height * width:
        height = max(1, round(image.height / image.width * width))
    else:
        width = max(1, round(image.width / image.height * height))
    padded = Image.new(image.mode, size)
    padded.paste(image.resize((width, height), method), (round((size[0] - width) / 2), round((size[1] - height) / 2)))
    return padded


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey comes as I;16 (or, from PNM, as I with values up to 65,535); 255 * 257 = 65,535."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).clip(0, 255).astype(np.uint8)
        grey[wide == image.info.get("transparency", -1)] = 255  # over white
        return Image.fromarray(grey)
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
