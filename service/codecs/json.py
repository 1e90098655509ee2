"""application/json: {"instances": [...]}.

Values are counted before parsing: a small body of many empty lists would take gigabytes. Instances are decoded after
admission.
"""

import codecs
from dataclasses import dataclass

from pydantic import ValidationError

from schemas.evaluation import EvaluateRequest
from schemas.prediction import PredictRequest
from service.codecs.base import BodyFormat, OpenApi, Purpose, RequestBody, Submission
from service.codecs.examples import PIXELS, PNG_BASE64
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError, TooManyValuesError
from service.inference.inputs import JsonInstance
from service.validation import fault, shortened

SPARE_KEYS = 1000
_LIST_COST = 3


def without_bom(data: bytes) -> bytes:
    """Removes a UTF-8 byte order mark, which RFC 8259, 8.1 lets a parser ignore. Raises MalformedBodyError."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise MalformedBodyError(
            "The body is not JSON in UTF-8: its byte order mark announces UTF-16 or UTF-32; send UTF-8."
        )
    return data.removeprefix(codecs.BOM_UTF8)


def _parse(body: RequestBody) -> Submission:
    _check_cost(body)
    message = EvaluateRequest if body.purpose is Purpose.EVALUATE else PredictRequest
    try:
        request = message.model_validate_json(without_bom(body.data))
    except ValidationError as error:
        raise _described(error, list(message.model_fields)) from error
    if len(request.instances) > body.settings.max_images:
        raise TooManyImagesError(body.settings.max_images, len(request.instances))
    return Submission(
        images=[JsonInstance(value) for value in request.instances],
        labels=request.labels if isinstance(request, EvaluateRequest) else (),
        top_k=request.top_k if isinstance(request, PredictRequest) else None,
        on_error=request.on_error,
        reject=request.reject,
        explain=request.explain if isinstance(request, PredictRequest) else None,
    )


def _check_cost(body: RequestBody) -> None:
    cost, images, values = json_cost(body.data), body.settings.max_images, body.settings.max_json_values
    if cost.objects > 2 * images:  # one per image; the rest is room for labels that contain braces
        raise TooManyImagesError(images)
    keys = 2 * images + SPARE_KEYS
    if cost.keys > keys:
        raise TooManyValuesError(
            f"The JSON body holds {cost.keys:,} fields, more than the {keys:,} allowed; an image has one, b64."
        )
    if cost.values > values:
        raise TooManyValuesError(
            f"The JSON body holds {cost.values:,} values, more than the {values:,} values allowed (a list counts as "
            f"{_LIST_COST}); send pixels as application/x-npy, or images as files."
        )


@dataclass(frozen=True)
class JsonCost:
    """What parsing a body would create. Each unknown key is a validation error; a list takes more than a number."""

    objects: int
    keys: int
    values: int


def json_cost(body: bytes) -> JsonCost:
    """Counts bytes, so brackets, colons and commas inside strings count too."""
    objects, keys, lists, commas = (body.count(sign) for sign in (b"{", b":", b"[", b","))
    return JsonCost(objects, keys, commas + _LIST_COST * lists)


def _described(error: ValidationError, fields: list[str]) -> MalformedBodyError | InvalidRequestError:
    errors = error.errors(include_url=False, include_input=False)
    # A misspelt field is both unknown and missing; its name helps more.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    if first["type"] == "json_invalid":
        return MalformedBodyError(f"The body is not JSON: {first['ctx']['error']}.")
    where = ".".join(map(str, first["loc"]))
    if first["loc"] and first["loc"][0] == "labels" and len(first["loc"]) > 1:
        return InvalidRequestError(f"Label {first['loc'][1]} is neither a label's name nor a class index (an integer).")
    if first["type"] == "too_short":
        return InvalidRequestError(f"{where} is empty; send at least one image.")
    if first["type"] == "extra_forbidden":
        return InvalidRequestError(f"Unknown field '{shortened(where)}'; known fields: {', '.join(fields)}.")
    if not where:
        return InvalidRequestError(f"The body must be a JSON object with the fields {', '.join(fields)}.")
    hint = f"; known fields: {', '.join(fields)}" if first["type"] == "missing" else ""
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

JSON = BodyFormat(
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
