"""application/x-npy: a uint8 array [N, H, W, C] or [N, H, W] as numpy.save writes it; the way for many images.

Limits: type and shape stand in the header and are checked against what may be sent, and against the bytes that are
there, before an array is made of them. The array then is a view of the body. Nothing is ever unpickled.
"""

import io
import math
from typing import IO

import numpy as np

from schemas.image import Pixels
from service.codecs.base import BodyKind, Incoming, Purpose, Submission
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.inference.inputs import PixelArray
from service.validation import shortened

WANTED = "an array of uint8 [images, height, width, channels] or [images, height, width]"
_MAX_HEADER = 4096
_DIMENSIONS = {3, 4}


def _parse(incoming: Incoming) -> Submission:
    stream = io.BytesIO(incoming.body)
    shape, fortran_order, dtype = read_header(stream, "The body", WANTED)
    if dtype != np.uint8 or len(shape) not in _DIMENSIONS or min(shape) < 1:
        raise InvalidRequestError(
            f"The body holds an array of {dtype} {shortened(list(shape))}; send {WANTED}, not empty."
        )
    if shape[0] > incoming.max_images:
        raise TooManyImagesError(incoming.max_images, shape[0])
    if shape[1] * shape[2] > incoming.max_pixels:
        raise InvalidRequestError(
            f"The array's images have {shape[2]} x {shape[1]} pixels; at most {incoming.max_pixels:,} are allowed."
        )
    start, size = stream.tell(), math.prod(shape)
    if len(incoming.body) - start != size:
        raise MalformedBodyError(
            f"The array's header announces {size:,} bytes of pixels, and {len(incoming.body) - start:,} came."
        )
    flat: Pixels = np.frombuffer(incoming.body, np.uint8, offset=start)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    return Submission([PixelArray(image) for image in array])


def read_header(stream: IO[bytes], what: str, wanted: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """(shape, is in Fortran order, type) of what was to be wanted; the stream then stands at the values.

    Raises MalformedBodyError.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream, max_header_size=_MAX_HEADER)
    except Exception as error:  # the header is a Python literal: hostile ones raise whatever a parser can
        raise MalformedBodyError(f"{what} is not an .npy file; send {wanted}, written by numpy.save.") from error
    raise MalformedBodyError(f"The .npy format {version} is not read; numpy.save writes 1.0 for {wanted}.")


NPY = BodyKind(
    "application/x-npy",
    _parse,
    {
        Purpose.PREDICT: {
            "schema": {"type": "string", "format": "binary", "description": f"An .npy file with {WANTED}."}
        }
    },
)
