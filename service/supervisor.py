"""Starts the worker processes, or says in one sentence why it cannot."""

import logging
import logging.config
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service.app import create_app, onnx_runtime
from service.errors import SettingsError, StartError
from service.logs import log_config
from service.repository import newest_versions
from service.security import open_doors
from service.settings import Settings, read_settings, unknown_variables

logger = logging.getLogger(__name__)


def main() -> int:
    """The exit status: 0 after a run, 1 where it could not start, 2 for a bad setting.

    SIGTERM ends a lone worker by the signal itself, after its drain.
    """
    try:
        settings = read_settings()
        logging.config.dictConfig(log_config(settings))
        for name in unknown_variables(os.environ):
            logger.warning("%s is no setting of the service and is ignored", name)
        if warning := open_doors(settings):
            logger.warning("%s", warning)
        return run(settings)
    except StartError as error:
        _say(error)
        return 2 if isinstance(error, SettingsError) else 1


def run(settings: Settings) -> int:
    """Serves until a signal. Raises StartError."""
    newest_versions(settings.artifacts)  # for its error: a worker's start is late to hear of it
    listener = bind(settings.host, settings.port)
    if _count(settings) == 1:
        config = _config(settings, create_worker(settings))
        _announce(listener)
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises the signal once more
            uvicorn.Server(config).run([listener])
        return 0
    _announce(listener)
    processes = Multiprocess(_config(settings, partial(_create_worker_or_exit, settings), factory=True), [listener])
    processes.run()
    return int(any(process.exitcode == STARTUP_FAILURE for process in processes.processes))


def create_worker(settings: Settings) -> FastAPI:
    """One process's application. Raises DeviceError."""
    runtime = onnx_runtime(settings)
    logger.info("models run on %s: %s", runtime.provider, runtime.reason)
    return create_app(settings, runtime)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet: until models are loaded, callers are refused, not kept waiting.

    Raises StartError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"The address {host} cannot be used: {error.strerror}; set CONVOY_HOST.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(
            f"Port {port} of {host} cannot be used: {error.strerror}; set CONVOY_PORT to another, or stop who has it."
        ) from error
    listener.set_inheritable(True)
    return listener


def _create_worker_or_exit(settings: Settings) -> FastAPI:
    """In a worker process of several: an exit with this status ends the others too."""
    try:
        return create_worker(settings)
    except StartError as error:
        _say(error)
        sys.exit(STARTUP_FAILURE)


def _config(settings: Settings, app: Callable[..., Any], *, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        workers=_count(settings),
        lifespan="on",
        ws="none",
        log_config=log_config(settings),
        access_log=False,  # service.middleware.observation writes it
        proxy_headers=False,  # who asks is who is connected: admin calls depend on it
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


def _count(settings: Settings) -> int:
    return 1 if settings.workers == "auto" else settings.workers


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving on http://%s:%d once the models are loaded", shown, port)


def _say(error: StartError) -> None:
    sys.stderr.write(f"convoy: {error}\n")
