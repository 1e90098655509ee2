"""application/x-npy: a uint8 array [N, H, W, C] or [N, H, W] as numpy.save writes it; the format for many images.

The header's type and shape are checked against the limits and the size of the body before the array is created. The
array is a view of the body. Nothing is unpickled.
"""

import io
import math
from typing import IO

import numpy as np

from schemas.image import Pixels
from service.codecs.base import BodyFormat, Purpose, RequestBody, Submission
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.inference.inputs import PixelArray
from service.validation import shortened

WANTED = "an array of uint8 [images, height, width, channels] or [images, height, width]"
_MAX_HEADER = 4096
_DIMENSIONS = {3, 4}


def _parse(body: RequestBody) -> Submission:
    stream, settings = io.BytesIO(body.data), body.settings
    shape, fortran_order, dtype = read_header(stream, "The body", WANTED)
    if dtype != np.uint8 or len(shape) not in _DIMENSIONS or min(shape) < 1:
        raise InvalidRequestError(
            f"The body is an array of {dtype} {shortened(list(shape))}; send {WANTED}, not empty."
        )
    if shape[0] > settings.max_images:
        raise TooManyImagesError(settings.max_images, shape[0])
    if shape[1] * shape[2] > settings.max_pixels:
        raise InvalidRequestError(
            f"The array's images have {shape[2]} x {shape[1]} pixels; at most {settings.max_pixels:,} are allowed."
        )
    start, size = stream.tell(), math.prod(shape)
    if len(body.data) - start != size:
        raise MalformedBodyError(
            f"The array's header announces {size:,} bytes of pixels, but {len(body.data) - start:,} follow."
        )
    flat: Pixels = np.frombuffer(body.data, np.uint8, offset=start)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    return Submission([PixelArray(image) for image in array])


def read_header(stream: IO[bytes], name: str, wanted: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Returns (shape, whether in Fortran order, type), and leaves the stream at the values.

    Raises MalformedBodyError, whose message contains name (of the array) and wanted (the expected array).
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream, max_header_size=_MAX_HEADER)
    except Exception as error:  # the header is a Python literal: a hostile one can raise any exception
        raise MalformedBodyError(f"{name} is not an .npy file; send {wanted}, written by numpy.save.") from error
    raise MalformedBodyError(f"The .npy format {version} is not supported; numpy.save writes 1.0 for {wanted}.")


NPY = BodyFormat(
    "application/x-npy",
    _parse,
    {
        Purpose.PREDICT: {
            "schema": {"type": "string", "format": "binary", "description": f"An .npy file with {WANTED}."}
        }
    },
    recognizes=lambda data: data.startswith(b"\x93NUMPY"),
)
