"""application/json: {"instances": [...]}. Limit: the number of instances; each is decoded only after admission."""

from pydantic import ValidationError

from schemas.evaluation import EvaluateRequest
from schemas.prediction import PredictRequest
from service.bodies.examples import PIXELS, PNG_BASE64
from service.bodies.submission import BodyKind, Incoming, OpenApi, Purpose, Submission
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.images import JsonInstance


def _parse(incoming: Incoming) -> Submission:
    message = EvaluateRequest if incoming.purpose is Purpose.EVALUATE else PredictRequest
    try:
        request = message.model_validate_json(incoming.body)
    except ValidationError as error:
        raise _said(error, list(message.model_fields)) from error
    if len(request.instances) > incoming.max_images:
        raise TooManyImagesError(incoming.max_images)
    return Submission(
        images=[JsonInstance(value) for value in request.instances],
        labels=request.labels if isinstance(request, EvaluateRequest) else (),
        top_k=request.top_k if isinstance(request, PredictRequest) else None,
        on_error=request.on_error,
    )


def _said(error: ValidationError, fields: list[str]) -> MalformedBodyError | InvalidRequestError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBodyError(f"The body is not JSON: {first['ctx']['error']}.")
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return InvalidRequestError(f"There is no field '{where}'; the fields are {', '.join(fields)}.")
    if not where:
        return InvalidRequestError(f"The body must be a JSON object with the fields {', '.join(fields)}.")
    return InvalidRequestError(f"{where}: {first['msg']}.")


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
