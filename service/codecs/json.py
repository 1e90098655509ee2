"""application/json: {"instances": [...]}.

Limits: what the parser would have to make of the body is counted before it is parsed, for a small body of many empty
lists takes gigabytes, and nothing else runs meanwhile. Each instance is decoded only after admission.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from schemas.evaluation import EvaluateRequest
from schemas.prediction import PredictRequest
from service.codecs.base import BodyKind, Incoming, OpenApi, Purpose, Submission
from service.codecs.examples import PIXELS, PNG_BASE64
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError, TooManyValuesError
from service.inference.inputs import JsonInstance
from service.validation import fault, shortened

SPARE_KEYS = 1000
_LIST_COST = 3


def _parse(incoming: Incoming) -> Submission:
    _check_values(incoming)
    message = EvaluateRequest if incoming.purpose is Purpose.EVALUATE else PredictRequest
    try:
        request = message.model_validate_json(incoming.body)
    except ValidationError as error:
        raise _said(error, list(message.model_fields)) from error
    if len(request.instances) > incoming.max_images:
        raise TooManyImagesError(incoming.max_images, len(request.instances))
    return Submission(
        images=[JsonInstance(value) for value in request.instances],
        labels=request.labels if isinstance(request, EvaluateRequest) else (),
        top_k=request.top_k if isinstance(request, PredictRequest) else None,
        on_error=request.on_error,
        reject=request.reject,
    )


def _check_values(incoming: Incoming) -> None:
    cost = json_cost(incoming.body)
    if cost.objects > 2 * incoming.max_images:  # one an image, and room for labels with braces in them
        raise TooManyImagesError(incoming.max_images)
    most = 2 * incoming.max_images + SPARE_KEYS
    if cost.keys > most:
        raise TooManyValuesError(
            f"The JSON body holds {cost.keys:,} fields, more than the {most:,} allowed; an image has one, b64."
        )
    if cost.values > incoming.max_json_values:
        raise TooManyValuesError(
            f"The JSON body holds {cost.values:,} values, more than the {incoming.max_json_values:,} values allowed (a "
            f"list counts as {_LIST_COST}); send pixels as application/x-npy, or images as files."
        )


@dataclass(frozen=True)
class JsonCost:
    """What a parser would make of a body. Each unknown key costs a validator a whole error; a list counts as more."""

    objects: int
    keys: int
    values: int


def json_cost(body: bytes) -> JsonCost:
    """By the bytes alone: a string that holds brackets, colons or commas counts too much."""
    objects, keys, lists, commas = (body.count(sign) for sign in (b"{", b":", b"[", b","))
    return JsonCost(objects, keys, commas + _LIST_COST * lists)


def _said(error: ValidationError, fields: list[str]) -> MalformedBodyError | InvalidRequestError:
    errors = error.errors(include_url=False, include_input=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])  # what it misspells is missing
    if first["type"] == "json_invalid":
        return MalformedBodyError(f"The body is not JSON: {first['ctx']['error']}.")
    where = ".".join(map(str, first["loc"]))
    if first["loc"] and first["loc"][0] == "labels" and len(first["loc"]) > 1:
        return InvalidRequestError(f"Label {first['loc'][1]} is neither a label's name nor a class index (an integer).")
    if first["type"] == "too_short":
        return InvalidRequestError(f"{where} is empty; send at least one image.")
    if first["type"] == "extra_forbidden":
        return InvalidRequestError(f"There is no field '{shortened(where)}'; the fields are {', '.join(fields)}.")
    if not where:
        return InvalidRequestError(f"The body must be a JSON object with the fields {', '.join(fields)}.")
    hint = f"; the fields are {', '.join(fields)}" if first["type"] == "missing" else ""
    return InvalidRequestError(f"{where} {fault(first)}{hint}.")


def _openapi(message: str, base64: OpenApi, pixels: OpenApi) -> OpenApi:
    return {
        "schema": {"$ref": f"#/components/schemas/{message}"},
        "examples": {
            "base64": {"summary": "An encoded image in base64", "value": base64},
            "pixels": {"summary": "Pixels: rows of grey values, or of channels", "value": pixels},
        },
    }


_ENCODED = {"b64": PNG_BASE64}

JSON = BodyKind(
    "application/json",
    _parse,
    {
        Purpose.PREDICT: _openapi(
            "PredictRequest", {"instances": [_ENCODED], "top_k": 2}, {"instances": [PIXELS, _ENCODED]}
        ),
        Purpose.EVALUATE: _openapi(
            "EvaluateRequest",
            {"instances": [_ENCODED, _ENCODED], "labels": [0, 1]},
            {"instances": [PIXELS], "labels": [1]},
        ),
    },
)
