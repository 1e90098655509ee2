"""image/*: one image file as the body; the subtype is not believed, the bytes say what it is."""

from service.codecs.base import BodyKind, Incoming, Purpose, Submission
from service.errors import InvalidRequestError
from service.inference.inputs import EncodedImage


def _parse(incoming: Incoming) -> Submission:
    if not incoming.body:
        raise InvalidRequestError("The body is empty; send an image file's bytes (curl --data-binary @image.png).")
    return Submission([EncodedImage(incoming.body)])


RAW_IMAGE = BodyKind(
    "image/*",
    _parse,
    {Purpose.PREDICT: {"schema": {"type": "string", "format": "binary", "description": "One image file."}}},
)
