"""/predict: request and response. The words are those of KServe and TensorFlow Serving: instances, predictions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from schemas.base import Frozen
from schemas.errors import ImageError

DEFAULT_TOP_K = 3

# An instance is read one by one, not by pydantic: a bad one is then an item's error with its index, and the good ones
# can still be answered. This is what OpenAPI says of it.
INSTANCE_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {
            "title": "Encoded image",
            "description": "An image file (PNG, JPEG, WebP, GIF, BMP, TIFF, PNM) in base64.",
            "type": "object",
            "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
            "required": ["b64"],
            "additionalProperties": False,
        },
        {
            "title": "Colour pixels",
            "description": "Rows of pixels of channels, [height][width][channels], integers 0 to 255, 1 or 3 channels.",
            "type": "array",
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1}},
        },
        {
            "title": "Grey pixels",
            "description": "Rows of grey pixels, [height][width], integers 0 to 255.",
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
        },
    ]
}
INSTANCES_SCHEMA: dict[str, Any] = {"type": "array", "items": INSTANCE_SCHEMA, "minItems": 1}


class OnError(StrEnum):
    """What one bad image does: fail the whole request (422 naming each), or only its own item."""

    REQUEST = "request"
    ITEM = "item"


RejectOption = Annotated[
    bool | None, Field(strict=True, description="give no label where the model is less sure than its reject threshold")
]


class PredictRequest(Frozen):
    """The JSON body of /predict. The options may stand in the query instead; said twice, they must agree."""

    instances: Annotated[list[Any], WithJsonSchema(INSTANCES_SCHEMA), Field(min_length=1)]
    top_k: Annotated[int | None, Field(ge=1, strict=True)] = None
    on_error: OnError | None = None
    reject: RejectOption = None


class ClassProbability(Frozen):
    label: str
    index: Annotated[int, Field(ge=0, description="position in the model's labels")]
    probability: Annotated[float, Field(ge=0, le=1)]


class Prediction(ClassProbability):
    """The most probable class, and the top_k most probable in falling order (this one first)."""

    top: tuple[ClassProbability, ...]


class RejectedPrediction(Frozen):
    """Stands in the place of a prediction under reject=true where the model is not sure enough: no label, but top."""

    label: None = None
    index: None = None
    probability: Annotated[float, Field(ge=0, le=1, description="of the most probable class")]
    reason: str
    top: tuple[ClassProbability, ...]


class ItemError(Frozen):
    index: Annotated[int, Field(ge=0, description="position of the image in the request")]
    reason: str


def item_errors(errors: Mapping[int, ImageError]) -> tuple[ItemError, ...]:
    """errors by the position of the image."""
    return tuple(ItemError(index=index, reason=str(error)) for index, error in errors.items())


class FailedPrediction(Frozen):
    """Stands in the place of a prediction under on_error=item."""

    error: ItemError


class PredictResponse(Frozen):
    model: str
    version: int
    predictions: Annotated[
        tuple[Prediction | RejectedPrediction | FailedPrediction, ...],
        Field(description="one an image, in the order they were sent"),
    ]
