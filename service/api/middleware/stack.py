"""What goes around every request, from the outside in: one small ASGI middleware a file."""

from fastapi import FastAPI
from starlette.middleware.exceptions import ExceptionMiddleware

from service.api.middleware.compression import Compression
from service.api.middleware.decompression import Decompression
from service.api.middleware.head import Head
from service.api.middleware.request_log import Observation
from service.api.middleware.security_headers import SafeHeaders
from service.settings import Settings
from service.telemetry.metrics import Telemetry


def add_middleware(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """To be called last: the app's own exception handlers answer for the middleware too."""
    # Starlette puts each before those that were added earlier, so this reads from the inside out. Its own place for
    # unforeseen exceptions is outside of all of them, where an answer would go without its headers.
    app.add_middleware(Decompression, settings.max_body_bytes)
    app.add_middleware(ExceptionMiddleware, handlers=app.exception_handlers)
    app.add_middleware(Compression)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Head)
    app.add_middleware(Observation, telemetry, access_log=settings.access_log)
