"""The FastAPI application: its parts, wired together, and their lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI

from service.api.auth import Guard
from service.api.body import BodyMemory
from service.api.cors import with_cors
from service.api.direct_routes import Application, DirectRoutes, handlers
from service.api.exception_handlers import HANDLED, answer_exception
from service.api.flow import InferenceFlow
from service.api.middleware import REFUSALS, RequestMiddleware, refusals
from service.api.openapi import DESCRIPTION, describe
from service.api.problems import problems
from service.api.routes import evaluate, health, metrics, models, predict, promote, v1
from service.api.routes.health import Drain
from service.api.routes.pages import add_pages
from service.api.routes.v2 import infer
from service.api.routes.v2 import router as v2
from service.backends.base import Runtime
from service.backends.onnx import OnnxRuntime
from service.repository.coordinator import Coordinator
from service.repository.plan import ModelControl
from service.repository.registry import Registry
from service.settings import Settings, parse_origins, usable_cores
from service.telemetry.metrics import Telemetry
from service.telemetry.tracing import tracing
from service.version import __version__

WIDE_THREADS = 4
"""The most threads of an inference that runs alone. Each worker has so many: more gain little and idle in every one."""

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


def create_app(
    settings: Settings,
    runtime: Runtime | None = None,
    control: ModelControl | None = None,
    drain: Drain | None = None,
    span_exporter: "SpanExporter | None" = None,
    telemetry: Telemetry | None = None,
) -> Application:
    """Returns the application. Models are loaded at its startup.

    runtime opens sessions; ONNX Runtime by default. control decides which versions app.state.registry serves; by
    default, the application's own coordinator does. drain tells health checks that the process is shutting down.
    span_exporter receives the spans if CONVOY_OTEL is set. telemetry counts; by default for this application alone.
    Raises DeviceError if CUDA is requested and unusable, StartError if CONVOY_OTEL is set and OpenTelemetry is not
    installed.
    """
    runtime = runtime or onnx_runtime(settings)
    drain = drain or Drain()
    telemetry = telemetry or Telemetry(runtime.provider)
    registry = Registry(settings, runtime, telemetry)
    guard = Guard(settings)
    own = Coordinator(settings, registry) if control is None else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        try:
            if own:
                await own.start()
            yield {REFUSALS: refusals(telemetry, access_log=settings.access_log)}
        finally:
            if own:
                await own.close()
            await registry.close()

    app = Application(
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
    memory = BodyMemory(settings.body_memory_bytes, telemetry.body_refused)
    flow = InferenceFlow(registry, settings, memory)
    predictions, inferences = predict.router(flow), infer.router(flow)
    app.include_router(predictions)
    app.include_router(evaluate.router(flow))
    app.include_router(models.router(registry))
    app.include_router(promote.router(settings, memory))
    app.include_router(health.router(registry, drain, guard))
    app.include_router(metrics.router(telemetry))
    app.include_router(v2.router(registry, inferences, settings, memory, drain, telemetry))
    app.include_router(v1.router(registry, flow))
    add_pages(app)
    describe(app, settings.root_path)
    for kind in HANDLED:
        app.add_exception_handler(kind, answer_exception)
    layer = partial(RequestMiddleware, telemetry=telemetry, access_log=settings.access_log, traced=settings.otel)
    app.add_middleware(layer)
    if not settings.otel:  # spans come from FastAPI's layers and routing
        app.entry = DirectRoutes(app, guard, handlers(predictions) | handlers(inferences, v2.PREFIX), layer)
    if origins := parse_origins(settings.cors_origins):
        app.entry = with_cors(app.entry or partial(FastAPI.__call__, app), origins)
    return app


def onnx_runtime(settings: Settings) -> OnnxRuntime:
    """Returns ONNX Runtime with the threads of one worker, and more of them for an inference that runs alone.

    Only a single worker may spin while it waits for work.
    """
    cores = usable_cores()
    workers = cores if settings.workers == "auto" else settings.workers  # a single GPU worker needs few threads
    automatic = max(1, cores // workers), min(cores, WIDE_THREADS)
    threads, wide = automatic if settings.threads == "auto" else (settings.threads, 0)
    return OnnxRuntime(
        settings.device, threads=threads, spin=workers == 1, max_batch=settings.max_batch, wide_threads=wide
    )
