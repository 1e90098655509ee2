"""image/*: the body is one image file. Its bytes, not the subtype, tell the file's format."""

import re

from service.codecs.base import BodyFormat, Purpose, RequestBody, Submission
from service.errors import InvalidRequestError
from service.inference.inputs import EncodedImage

# PNG, JPEG, GIF, BMP, TIFF, WebP, PNM, AVIF and HEIC.
_SIGNATURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8|BM|II\*\x00|MM\x00\*|RIFF....WEBP|P[1-6]\s|....ftyp", re.DOTALL
)


def _parse(body: RequestBody) -> Submission:
    if not body.data:
        raise InvalidRequestError("The body is empty; send the bytes of an image (curl --data-binary @image.png).")
    return Submission([EncodedImage(body.data)])


RAW_IMAGE = BodyFormat(
    "image/*",
    _parse,
    {Purpose.PREDICT: {"schema": {"type": "string", "format": "binary", "description": "One image file."}}},
    recognizes=lambda data: _SIGNATURE.match(data) is not None,
)
