"""create_app(settings): the parts wired together, their lifespan, and the one table from errors to statuses."""

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas.problem import ProblemCode
from service.api.auth import Guard
from service.api.body import BodyMemory
from service.api.middleware.stack import add_middleware
from service.api.openapi import DESCRIPTION, describe
from service.api.problems import error_response, problems
from service.api.routes import evaluate, health, metrics, models, predict, promote, v1
from service.api.routes.health import Drain
from service.api.routes.pages import add_pages
from service.api.routes.v2 import router as v2
from service.backends.base import Runtime
from service.backends.onnx import OnnxRuntime
from service.errors import (
    BodyTooLargeError,
    ConflictError,
    DeadlineError,
    DeviceMemoryError,
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
    UnavailableError,
    UnsupportedFeatureError,
    UnsupportedMediaTypeError,
)
from service.repository.coordinator import Coordinator
from service.repository.plan import ModelControl
from service.repository.registry import Registry
from service.settings import Settings, usable_cores
from service.telemetry.metrics import TELEMETRY, Telemetry
from service.telemetry.tracing import tracing
from service.validation import fault, shortened
from service.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

STATUS: dict[type[ServiceError], tuple[int, ProblemCode]] = {
    MalformedBodyError: (400, ProblemCode.INVALID_REQUEST),
    ModelRequiredError: (400, ProblemCode.MODEL_REQUIRED),
    UnauthorizedError: (401, ProblemCode.UNAUTHORIZED),
    ForbiddenError: (403, ProblemCode.FORBIDDEN),
    ModelNotFoundError: (404, ProblemCode.MODEL_NOT_FOUND),
    ConflictError: (409, ProblemCode.CONFLICT),
    ReportNotFoundError: (404, ProblemCode.NOT_FOUND),
    BodyTooLargeError: (413, ProblemCode.BODY_TOO_LARGE),
    TooManyImagesError: (413, ProblemCode.TOO_MANY_IMAGES),
    TooManyValuesError: (413, ProblemCode.BODY_TOO_LARGE),
    UnsupportedMediaTypeError: (415, ProblemCode.UNSUPPORTED_MEDIA_TYPE),
    InvalidRequestError: (422, ProblemCode.INVALID_REQUEST),
    InvalidImagesError: (422, ProblemCode.INVALID_IMAGE),
    InferenceError: (500, ProblemCode.INTERNAL),
    UnsupportedFeatureError: (501, ProblemCode.NOT_IMPLEMENTED),
    ModelRefusedError: (503, ProblemCode.MODEL_REFUSED),
    NotReadyError: (503, ProblemCode.NOT_READY),
    OverloadedError: (503, ProblemCode.OVERLOADED),
    DeviceMemoryError: (503, ProblemCode.OVERLOADED),
    DeadlineError: (504, ProblemCode.DEADLINE_EXCEEDED),
}

_INTERNAL = "The service failed on this request; its log says how."

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    runtime: Runtime | None = None,
    control: ModelControl | None = None,
    drain: Drain | None = None,
    span_exporter: "SpanExporter | None" = None,
) -> FastAPI:
    """The whole application; models are loaded when it starts, not here.

    runtime opens the sessions: ONNX Runtime by default. control decides what serves, and has the registry in
    app.state serve it; without one the application decides for itself, from its start to its end.
    drain tells that the process goes down. span_exporter takes the spans that CONVOY_OTEL asks for.
    Raises DeviceError where CUDA is asked for and does not work, and StartError where OpenTelemetry is not installed.
    """
    runtime = runtime or onnx_runtime(settings)
    drain = drain or Drain()
    telemetry = Telemetry(runtime.provider)
    registry = Registry(settings, runtime, telemetry)
    guard = Guard(settings)
    own = Coordinator(settings, registry) if control is None else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        try:
            if own:
                await own.start()
            yield {TELEMETRY: telemetry}  # for the server, which also answers what is no request
        finally:
            if own:
                await own.close()
            await registry.close()

    app = FastAPI(
        title="Convoy",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(guard)],
        responses=problems(405, 500),
        telemetry=tracing(settings, span_exporter),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.registry = registry
    app.state.telemetry = telemetry
    app.state.control = control or own
    app.add_middleware(BodyMemory, settings.body_memory_bytes, telemetry.body_refused)
    app.include_router(predict.router(registry, settings))
    app.include_router(evaluate.router(registry, settings))
    app.include_router(models.router(registry))
    app.include_router(promote.router(settings))
    app.include_router(health.router(registry, drain, guard))
    app.include_router(metrics.router(telemetry))
    app.include_router(v2.router(registry, settings, drain))
    app.include_router(v1.router(registry, settings))
    add_pages(app)
    describe(app)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    add_middleware(app, settings, telemetry)
    return app


def onnx_runtime(settings: Settings) -> OnnxRuntime:
    """The workers of a machine share its cores, and only a lone one may wait for work by spinning."""
    cores = usable_cores()
    workers = cores if settings.workers == "auto" else settings.workers  # on a GPU the lone one needs no threads
    threads = max(1, cores // workers)
    return OnnxRuntime(settings.device, threads=threads, spin=workers == 1, max_batch=settings.max_batch)


async def _service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    status, code = STATUS[type(error)]
    if isinstance(error, DeadlineError):
        request.app.state.telemetry.late(error.model)
    headers = {}
    if isinstance(error, UnavailableError) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if error.closes:
        headers["Connection"] = "close"
    errors = error.errors if isinstance(error, InvalidImagesError) else ()
    detail = _INTERNAL if isinstance(error, InferenceError) else str(error)  # what the batcher logged stays inside
    return error_response(request.url.path, status, code, detail, errors, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself says no to: a path or a method that is not there."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    if error.status_code == 404:
        detail = f"There is nothing at {path}; /docs lists what there is."
        return error_response(path, 404, ProblemCode.NOT_FOUND, detail)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        detail = f"{path} does not take {request.method}, but {allowed}."
        return error_response(path, 405, ProblemCode.METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})
    return error_response(
        path, error.status_code, ProblemCode.INVALID_REQUEST, str(error.detail), headers=error.headers
    )


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    """A parameter of the path, the query or the headers."""
    if not isinstance(error, RequestValidationError):
        raise error
    first: dict[str, Any] = error.errors()[0]
    where, name = first["loc"][0], first["loc"][-1]
    if first["type"] == "extra_forbidden":
        detail = f"There is no parameter '{shortened(name)}'; the {where} takes {first['ctx']['known']}."
    else:
        detail = f"{name} in the {where} {fault(first)}."
    return error_response(request.url.path, 422, ProblemCode.INVALID_REQUEST, detail)


async def _client_left(request: Request, _: Exception) -> Response:
    """Nobody reads this; without it, every caller that hangs up would be logged as a failure of ours."""
    detail = "The connection was closed before there was an answer."
    return error_response(request.url.path, 499, ProblemCode.INVALID_REQUEST, detail)


async def _unexpected(request: Request, error: Exception) -> Response:
    """The log has the exception; the caller learns nothing of the inside."""
    logger.error("a request failed in a way that nobody foresaw", exc_info=error)
    return error_response(request.url.path, 500, ProblemCode.INTERNAL, _INTERNAL)


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Any]] = {
    ServiceError: _service_error,
    HTTPException: _http_error,
    RequestValidationError: _invalid_parameter,
    ClientDisconnect: _client_left,
    Exception: _unexpected,
}
