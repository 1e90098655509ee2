"""Every exception of a request -> its error response."""

import logging
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas.problem import ProblemCode
from service.api.problems import error_response
from service.errors import INTERNAL_DETAIL, DeadlineError, ServiceError
from service.validation import fault, shortened

HANDLED = (ServiceError, HTTPException, RequestValidationError, ClientDisconnect)
"""The exceptions for which FastAPI calls answer_exception. The middleware calls it for all others."""

logger = logging.getLogger(__name__)


async def answer_exception(request: Request, error: Exception) -> Response:
    path: str = request.scope["path"]  # making a URL takes longer than the rest of a refusal
    match error:
        case ServiceError():
            if isinstance(error, DeadlineError) and error.model is not None:
                request.app.state.telemetry.late(error.model)
            return error_response(path, error.status, error.code, error.detail, error.errors, error.headers)
        case HTTPException():
            return _routing_error(request, error)
        case RequestValidationError():
            return error_response(path, 422, ProblemCode.INVALID_REQUEST, _invalid_parameter(error))
        case ClientDisconnect():  # the client is gone; 499 only keeps the request out of the failures
            detail = "The client closed the connection before the response."
            return error_response(path, 499, ProblemCode.INVALID_REQUEST, detail)
        case _:
            logger.error("unexpected exception in a request", exc_info=error)
            return error_response(path, 500, ProblemCode.INTERNAL, INTERNAL_DETAIL)


def _routing_error(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if error.status_code == 404:
        return error_response(path, 404, ProblemCode.NOT_FOUND, f"Nothing is at {path}; /docs lists all paths.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        if "HEAD" not in allowed:
            allowed = allowed.replace("GET", "GET, HEAD")
        detail = f"{path} does not support {request.method}; use {allowed}."
        return error_response(path, 405, ProblemCode.METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})
    code = ProblemCode.INVALID_REQUEST
    return error_response(path, error.status_code, code, str(error.detail), headers=error.headers)


def _invalid_parameter(error: RequestValidationError) -> str:
    """Describes the first invalid parameter of the path, the query or the headers."""
    first: dict[str, Any] = error.errors()[0]
    place, name = first["loc"][0], first["loc"][-1]
    if first["type"] == "extra_forbidden":
        return f"Unknown parameter '{shortened(name)}' in the {place}; known parameters: {first['ctx']['known']}."
    return f"{name} in the {place} {fault(first)}."
