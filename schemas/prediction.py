"""The request and response of /predict, in the terms of KServe and TensorFlow Serving: instances, predictions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from schemas.base import Frozen
from schemas.errors import ImageError

DEFAULT_TOP_K = 3

# This schema is for OpenAPI. Instances are parsed one at a time, without pydantic: an invalid one becomes an error with
# its index, and the others can still be answered.
INSTANCE_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {
            "title": "Encoded image",
            "description": "An image file (PNG, JPEG, WebP, AVIF, HEIC, GIF, BMP, TIFF, PNM) in base64.",
            "type": "object",
            "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
            "required": ["b64"],
            "additionalProperties": False,
        },
        {
            "title": "Colour pixels",
            "description": "Integers 0 to 255, nested as [height][width][channels], with 1 or 3 channels.",
            "type": "array",
            "items": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1}},
        },
        {
            "title": "Grey pixels",
            "description": "Integers 0 to 255, nested as [height][width].",
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
        },
    ]
}
INSTANCES_SCHEMA: dict[str, Any] = {"type": "array", "items": INSTANCE_SCHEMA, "minItems": 1}


class OnError(StrEnum):
    """The effect of an invalid image: the whole request fails (422), or only its item."""

    REQUEST = "request"
    ITEM = "item"


RejectOption = Annotated[
    bool | None,
    Field(strict=True, description="give no label if the highest probability is below the confidence threshold"),
]


ExplainOption = Annotated[
    bool | None, Field(strict=True, description="show where in the image the evidence for the predicted class lies")
]


class PredictRequest(Frozen):
    """The JSON body of /predict. Options may be query parameters instead; if given in both places, they must agree."""

    instances: Annotated[list[Any], WithJsonSchema(INSTANCES_SCHEMA), Field(min_length=1)]
    top_k: Annotated[int | None, Field(ge=1, strict=True)] = None
    on_error: OnError | None = None
    reject: RejectOption = None
    explain: ExplainOption = None


class ClassProbability(Frozen):
    label: str
    index: Annotated[int, Field(ge=0, description="position in the model's labels")]
    probability: Annotated[float, Field(ge=0, le=1)]


class MapExplanation(Frozen):
    """The class activation map of the most probable class: the evidence for it at each position of the image."""

    label: str
    index: Annotated[int, Field(ge=0, description="position in the model's labels")]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    map: Annotated[
        tuple[tuple[float, ...], ...],
        Field(description="height rows of width numbers in the units of a logit; below zero: evidence against it"),
    ]
    overlay_png: Annotated[
        str,
        Field(
            description="a PNG in base64: the image as the model sees it, with the map drawn over it",
            json_schema_extra={"contentEncoding": "base64"},
        ),
    ]


ExplanationField = Annotated[
    MapExplanation | None, Field(description="present with explain=true", exclude_if=lambda value: value is None)
]


class Prediction(ClassProbability):
    """The most probable class, and the top_k most probable classes in descending order."""

    top: tuple[ClassProbability, ...]
    explanation: ExplanationField = None


class RejectedPrediction(Frozen):
    """Replaces a prediction below the confidence threshold (reject=true): it has no label, but has top."""

    label: None = None
    index: None = None
    probability: Annotated[float, Field(ge=0, le=1, description="of the most probable class")]
    reason: str
    top: tuple[ClassProbability, ...]
    explanation: ExplanationField = None


class ItemError(Frozen):
    index: Annotated[int, Field(ge=0, description="position of the image in the request")]
    reason: str


def item_errors(errors: Mapping[int, ImageError]) -> tuple[ItemError, ...]:
    """Returns the errors for the response. The keys of errors are the positions of the images."""
    return tuple(ItemError(index=index, reason=str(error)) for index, error in errors.items())


class FailedPrediction(Frozen):
    """Replaces the prediction for an invalid image (on_error=item)."""

    error: ItemError


class PredictResponse(Frozen):
    model: str
    version: int
    predictions: Annotated[
        tuple[Prediction | RejectedPrediction | FailedPrediction, ...],
        Field(description="one per image, in the order of the request"),
    ]
