"""Error responses: problem documents (RFC 9457), and {"error": "..."} on the paths of the inference protocols.

Also their descriptions in OpenAPI.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from schemas.prediction import ItemError
from schemas.problem import MEDIA_TYPE, Problem, ProblemCode
from service.errors import INTERNAL_DETAIL

# From RFC 9110. The phrases of Python's http.HTTPStatus change between releases.
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
    431: "Request Header Fields Too Large",
    499: "Client Closed Request",  # nginx
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

# Status -> its description in OpenAPI, and an example.
_DESCRIBED = {
    400: (
        "The body does not match its Content-Type.",
        ProblemCode.INVALID_REQUEST,
        "The body's gzip data is truncated; send all of it.",
    ),
    401: (
        "The request needs a key: Authorization: Bearer KEY, or X-API-Key: KEY.",
        ProblemCode.UNAUTHORIZED,
        "This request needs a key; send it as Authorization: Bearer KEY, or as X-API-Key: KEY.",
    ),
    403: (
        "The key does not permit this request, or the request comes from another machine or web page.",
        ProblemCode.FORBIDDEN,
        "Without an admin key, only clients on the service's own machine may make this request.",
    ),
    404: (
        "The model, version or file does not exist.",
        ProblemCode.MODEL_NOT_FOUND,
        "Unknown model 'dogs'. Models: digits, mnist.",
    ),
    405: (
        "The path does not support this method; Allow names the methods it supports.",
        ProblemCode.METHOD_NOT_ALLOWED,
        "/predict does not support GET; use POST.",
    ),
    409: (
        "The state of the service does not allow the change; the detail says what to do.",
        ProblemCode.CONFLICT,
        "CONVOY_VERSIONS fixes the served versions. Promotions need CONVOY_VERSIONS=promoted.",
    ),
    413: (
        "The body is too large, or holds too many images or values.",
        ProblemCode.BODY_TOO_LARGE,
        "The body of 70,000,000 bytes is larger than the 67,108,864 bytes allowed; send fewer or smaller images at a "
        "time.",
    ),
    415: (
        "The Content-Type or Content-Encoding is not supported.",
        ProblemCode.UNSUPPORTED_MEDIA_TYPE,
        "text/plain is not supported; send application/json or multipart/form-data.",
    ),
    422: (
        "The body is well-formed, but a field, a parameter or an image is invalid (errors lists each invalid image).",
        ProblemCode.INVALID_REQUEST,
        "Unknown field 'topk'; known fields: instances, top_k, on_error, reject, explain.",
    ),
    500: ("The service failed; its log has the cause.", ProblemCode.INTERNAL, INTERNAL_DETAIL),
    501: (
        "The request uses a protocol extension that the service does not implement.",
        ProblemCode.NOT_IMPLEMENTED,
        "parameters.sequence_id belongs to an extension that is not implemented; GET /v2 lists those that are.",
    ),
    503: (
        "The model was refused, no model is loaded, or the queue is full (then with Retry-After).",
        ProblemCode.OVERLOADED,
        "20,000 images wait for digits already, and 1 more would exceed the limit of 20,000; try again later.",
    ),
    504: (
        "The deadline passed; work that had not started was dropped.",
        ProblemCode.DEADLINE_EXCEEDED,
        "The deadline passed before digits answered; try again later, send fewer images, or allow more time.",
    ),
}


_INVALID = "The request or one of its images is invalid."
_PROTOCOL = re.compile(r"/v[12](/|$)")


def error_response(
    path: str,
    status: int,
    code: ProblemCode,
    detail: str,
    errors: tuple[ItemError, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns the error in the format of the path's protocol. /v1 and /v2 have 400 in place of 422."""
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
    """Returns a problem document."""
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, code=code, errors=errors)
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns FastAPI's `responses` for these statuses."""
    return {status: _described(status) for status in statuses}


def protocol_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for paths under /v1 and /v2."""
    return {status: _described_by_protocol(status) for status in statuses}


def errors_below(path: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns `problems` or `protocol_errors`, as error_response chooses for the path."""
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
