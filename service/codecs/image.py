"""image/*: the body is one image file. Its bytes, not the subtype, tell the file's format."""

from service.codecs.base import BodyFormat, Purpose, RequestBody, Submission
from service.errors import InvalidRequestError
from service.inference.inputs import EncodedImage


def _parse(body: RequestBody) -> Submission:
    if not body.data:
        raise InvalidRequestError("The body is empty; send the bytes of an image (curl --data-binary @image.png).")
    return Submission([EncodedImage(body.data)])


RAW_IMAGE = BodyFormat(
    "image/*",
    _parse,
    {Purpose.PREDICT: {"schema": {"type": "string", "format": "binary", "description": "One image file."}}},
)
