"""create_app(settings): the parts wired together, their lifespan, and the one table from errors to statuses."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas.problem import ProblemCode
from service import __version__
from service.api_description import DESCRIPTION, describe
from service.bodies.memory import BodyMemory
from service.errors import (
    BodyTooLargeError,
    DeadlineError,
    ForbiddenError,
    InferenceError,
    InvalidImagesError,
    InvalidRequestError,
    MalformedBodyError,
    ModelNotFoundError,
    ModelRefusedError,
    ModelRequiredError,
    NotReadyError,
    OverloadedError,
    ReportNotFoundError,
    ServiceError,
    TooManyImagesError,
    TooManyValuesError,
    UnauthorizedError,
    UnsupportedMediaTypeError,
)
from service.problems import problem_response, problems
from service.registry import Registry
from service.routes import evaluate, health, models, predict
from service.routes.pages import add_pages
from service.session import OnnxRuntime, Runtime, usable_cores
from service.settings import Settings

STATUS: dict[type[ServiceError], tuple[int, ProblemCode]] = {
    MalformedBodyError: (400, ProblemCode.INVALID_REQUEST),
    ModelRequiredError: (400, ProblemCode.MODEL_REQUIRED),
    UnauthorizedError: (401, ProblemCode.UNAUTHORIZED),
    ForbiddenError: (403, ProblemCode.FORBIDDEN),
    ModelNotFoundError: (404, ProblemCode.MODEL_NOT_FOUND),
    ReportNotFoundError: (404, ProblemCode.NOT_FOUND),
    BodyTooLargeError: (413, ProblemCode.BODY_TOO_LARGE),
    TooManyImagesError: (413, ProblemCode.TOO_MANY_IMAGES),
    TooManyValuesError: (413, ProblemCode.BODY_TOO_LARGE),
    UnsupportedMediaTypeError: (415, ProblemCode.UNSUPPORTED_MEDIA_TYPE),
    InvalidRequestError: (422, ProblemCode.INVALID_REQUEST),
    InvalidImagesError: (422, ProblemCode.INVALID_IMAGE),
    InferenceError: (500, ProblemCode.INTERNAL),
    ModelRefusedError: (503, ProblemCode.MODEL_REFUSED),
    NotReadyError: (503, ProblemCode.NOT_READY),
    OverloadedError: (503, ProblemCode.OVERLOADED),
    DeadlineError: (504, ProblemCode.DEADLINE_EXCEEDED),
}

_INTERNAL = "The service failed on this request; its log says how."

logger = logging.getLogger(__name__)


def create_app(settings: Settings, runtime: Runtime | None = None) -> FastAPI:
    """The whole application; models are loaded when it starts, not here.

    runtime opens the sessions: ONNX Runtime by default. Raises DeviceError where CUDA is asked for and does not work.
    """
    registry = Registry(settings, runtime or onnx_runtime(settings))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(registry.load)
        try:
            yield
        finally:
            await asyncio.to_thread(registry.close)

    app = FastAPI(
        title="Convoy",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        responses=problems(405, 500),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(BodyMemory, settings.body_memory_bytes)
    app.include_router(predict.router(registry, settings))
    app.include_router(evaluate.router(registry, settings))
    app.include_router(models.router(registry))
    app.include_router(health.router(registry))
    add_pages(app)
    describe(app)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


def onnx_runtime(settings: Settings) -> OnnxRuntime:
    """The workers of a machine share its cores, and only a lone one may wait for work by spinning."""
    workers = 1 if settings.workers == "auto" else settings.workers
    return OnnxRuntime(settings.device, threads=max(1, usable_cores() // workers), spin=workers == 1)


async def _service_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    status, code = STATUS[type(error)]
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if not error.drained:
        headers["Connection"] = "close"  # the rest of the body is still on its way
    errors = error.errors if isinstance(error, InvalidImagesError) else ()
    detail = _INTERNAL if isinstance(error, InferenceError) else str(error)  # what the batcher logged stays inside
    return problem_response(status, code, detail, errors, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself says no to: a path or a method that is not there."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    if error.status_code == 404:
        return problem_response(404, ProblemCode.NOT_FOUND, f"There is nothing at {path}; /docs lists what there is.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        detail = f"{path} does not take {request.method}, but {allowed}."
        return problem_response(405, ProblemCode.METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})
    return problem_response(error.status_code, ProblemCode.INVALID_REQUEST, str(error.detail), headers=error.headers)


async def _invalid_parameter(_: Request, error: Exception) -> Response:
    """A parameter of the path or the query that FastAPI checked."""
    if not isinstance(error, RequestValidationError):
        raise error
    first: dict[str, Any] = error.errors()[0]
    where, name = first["loc"][0], first["loc"][-1]
    said = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"]
    return problem_response(422, ProblemCode.INVALID_REQUEST, f"{name} in the {where}: {said}.")


async def _client_left(_: Request, __: Exception) -> Response:
    """Nobody reads this; without it, every caller that hangs up would be logged as a failure of ours."""
    return problem_response(499, ProblemCode.INVALID_REQUEST, "The connection was closed before there was an answer.")


async def _unexpected(_: Request, __: Exception) -> Response:
    """The server logs the exception; the caller learns nothing of the inside."""
    return problem_response(500, ProblemCode.INTERNAL, _INTERNAL)


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Any]] = {
    ServiceError: _service_error,
    HTTPException: _http_error,
    RequestValidationError: _invalid_parameter,
    ClientDisconnect: _client_left,
    Exception: _unexpected,
}
