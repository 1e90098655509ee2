"""Errors as HTTP says them: problem documents (RFC 9457), written and described in OpenAPI in one place.

Below /v1 and /v2 callers speak another protocol, whose errors are {"error": "..."}.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from schemas.prediction import ItemError
from schemas.problem import MEDIA_TYPE, Problem, ProblemCode

# The words of RFC 9110; Python's http.HTTPStatus has others, which change with its release.
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    499: "Client Closed Request",  # nginx's word
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

# Status -> what it means, and an example of it.
_DESCRIBED = {
    400: (
        "The body is not what its Content-Type says, or the model must be named.",
        ProblemCode.MODEL_REQUIRED,
        "Several models are here: name one as in /models/digits/predict; there are digits, mnist.",
    ),
    401: (
        "A key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.",
        ProblemCode.UNAUTHORIZED,
        "This needs a key; send it as Authorization: Bearer KEY.",
    ),
    403: (
        "Not for this caller: the key is for something else, or the call comes from another machine or page.",
        ProblemCode.FORBIDDEN,
        "Without CONVOY_ADMIN_KEYS this is open to callers on the service's own machine alone.",
    ),
    404: (
        "There is no such model, version or file.",
        ProblemCode.MODEL_NOT_FOUND,
        "There is no model 'dogs'; there are digits, mnist.",
    ),
    405: (
        "The path does not take this method; Allow names those it takes.",
        ProblemCode.METHOD_NOT_ALLOWED,
        "/predict does not take GET, but POST.",
    ),
    409: (
        "The state of the service does not allow the change; the detail says what to do.",
        ProblemCode.CONFLICT,
        "CONVOY_VERSIONS fixes the versions that serve; set it to promoted, and promote again.",
    ),
    413: (
        "The body is too large, or holds too many images or values.",
        ProblemCode.BODY_TOO_LARGE,
        "The body of 70,000,000 bytes is larger than the 67,108,864 bytes allowed; send fewer or smaller images at a "
        "time.",
    ),
    415: (
        "A kind of body that is not taken here.",
        ProblemCode.UNSUPPORTED_MEDIA_TYPE,
        "A body of text/plain is not taken here; send one of application/json, multipart/form-data.",
    ),
    422: (
        "The request can be read but not answered: a wrong field, or images that cannot be decoded (errors has each).",
        ProblemCode.INVALID_REQUEST,
        "There is no field 'topk'; the fields are instances, top_k, on_error, reject.",
    ),
    500: (
        "The service failed; its log says how.",
        ProblemCode.INTERNAL,
        "The service failed on this request; its log says how.",
    ),
    501: (
        "A part of the protocol that is not here.",
        ProblemCode.NOT_IMPLEMENTED,
        "parameters.sequence_id is of an extension that is not here; GET /v2 lists those that are.",
    ),
    503: (
        "The model was refused, none is loaded, or the queue is full (then with Retry-After).",
        ProblemCode.OVERLOADED,
        "20,000 images wait for digits already, and 1 more would exceed the limit of 20,000; try again later.",
    ),
    504: (
        "The time that the request had is over; what was not begun was dropped.",
        ProblemCode.DEADLINE_EXCEEDED,
        "The deadline passed before digits answered; try again later, send fewer images, or allow more time.",
    ),
}


_INVALID = "The request, or an image of it, cannot be used."
_PROTOCOL = re.compile(r"/v[12](/|$)")


def error_response(
    path: str,
    status: int,
    code: ProblemCode,
    detail: str,
    errors: tuple[ItemError, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error as the protocol of the path says it. The inference protocols know 400 for all that is invalid."""
    if _PROTOCOL.match(path):
        return JSONResponse({"error": detail}, 400 if status == 422 else status, headers)
    return problem_response(status, code, detail, errors, headers)


def problem_response(
    status: int,
    code: ProblemCode,
    detail: str,
    errors: tuple[ItemError, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, code=code, errors=errors)
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI's `responses` says of these statuses."""
    return {status: _described(status) for status in statuses}


def protocol_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for paths below /v1 and /v2."""
    return {status: _described_by_protocol(status) for status in statuses}


def errors_below(path: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The one or the other, as error_response answers there."""
    return (protocol_errors if _PROTOCOL.match(path) else problems)(*statuses)


def _described_by_protocol(status: int) -> dict[str, Any]:
    description = _INVALID if status == 400 else _DESCRIBED[status][0]
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorMessage"}}}
    return {"description": description, "content": content}


def _described(status: int) -> dict[str, Any]:
    description, code, detail = _DESCRIBED[status]
    example = Problem(title=TITLES[status], status=status, detail=detail, code=code)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": description,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example.model_dump(mode="json")}},
    }
