"""Starts the worker processes and keeps them running, or reports in one sentence why it cannot.

    supervisor.py -> pool.py (starts, watches, calls workers) -> channel.py <- worker.py -> graceful_server.py (HTTP)

messages.py holds all messages between them. The supervisor serves nothing, and imports neither a web framework nor
ONNX Runtime.
"""

import asyncio
import logging
import logging.config
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from service.errors import NotReadyError, SettingsError, StartError
from service.repository.coordinator import Coordinator
from service.repository.scanner import scan
from service.settings import Settings, exposure_warning, read_settings, unknown_variables
from service.telemetry.logging import log_config
from service.workers import messages
from service.workers.listener import address, bound
from service.workers.pool import Pool

INTERRUPTED = 1

logger = logging.getLogger(__name__)


def main() -> int:
    """Returns the exit status: 0 after a drain, 1 after a failed start or an interrupted drain, 2 for a bad setting."""
    try:
        settings = read_settings()
        logging.config.dictConfig(log_config(settings))
        for name in unknown_variables(os.environ):
            logger.warning("unknown setting %s ignored", name)
        if warning := exposure_warning(settings):
            logger.warning("%s", warning)
        return run(settings)
    except StartError as error:
        logging.shutdown()  # the log first
        sys.stderr.write(f"convoy: {error}\n")
        return 2 if isinstance(error, SettingsError) else 1


def run(settings: Settings) -> int:
    """Serves until a signal and returns the exit status. Raises StartError."""
    scan(settings.artifacts)  # raises its error before anything is started
    with bound(settings) as listener:
        return asyncio.run(Supervisor(settings, listener).run())


class Supervisor:
    """Holds the desired state and the workers that serve it."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._listener = listener
        self._pool = Pool(settings, listener, os.environ, self.handle)
        self._coordinator = Coordinator(settings, self._pool)
        self._first_signal = asyncio.Event()
        self._interrupt = asyncio.Event()

    async def run(self) -> int:
        """Runs until the first signal and the drain, or until Ctrl-C during the drain. Raises StartError."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        logger.info("serving on %s once the models are loaded", address(self._listener))
        starting = asyncio.create_task(self._start())
        try:
            await _first(starting, self._first_signal.wait())
            if not self._first_signal.is_set():
                await starting  # raises its error
                await self._first_signal.wait()
            starting.cancel()
            draining = asyncio.create_task(self._drain())
            await _first(draining, self._interrupt.wait())
            if self._interrupt.is_set():
                draining.cancel()
                logger.warning("stopped by Ctrl-C during the drain; requests in progress are lost")
                return INTERRUPTED
            await draining
        finally:
            await self._pool.kill()
        return 0

    async def handle(self, call: messages.Call) -> messages.Answer:
        """Answers a call of a worker."""
        match call:
            case messages.Load():
                await self._coordinator.load(call.name, call.version)
            case messages.Promote():
                return messages.Promoted(promotion=await self._coordinator.promote(call.name, call.version))
            case messages.Unload():
                await self._coordinator.unload(call.name)
            case messages.GetMetrics():
                return messages.Metrics.of(await self._pool.metrics())
            case _:
                raise NotReadyError(f"The supervisor does not answer '{call.kind}'.")
        return messages.Done()

    def _on_signal(self, number: signal.Signals) -> None:
        """Only Ctrl-C ends a drain early: process managers repeat SIGTERM, or send it to the whole process group."""
        if not self._first_signal.is_set():
            logger.info("%s: draining. Ctrl-C stops at once", number.name)
            self._first_signal.set()
        elif number is signal.SIGINT:
            self._interrupt.set()
        else:
            logger.info("%s: already draining. Ctrl-C or SIGKILL stops at once", number.name)

    async def _start(self) -> None:
        await self._pool.start()
        await self._coordinator.start()
        if self._pool.plan is None:  # no model: the workers must still listen, to answer 503
            await self._pool.serve(self._coordinator.plan)
        count = len(self._pool.pids)
        logger.info("ready: %d worker %s", count, "process serves" if count == 1 else "processes serve")

    async def _drain(self) -> None:
        await self._coordinator.close()
        done = await self._pool.drain()
        logger.info(
            "drained: accepted %d requests, answered %d (workers that died earlier are not counted)",
            done.accepted,
            done.answered,
        )


async def _first(task: "asyncio.Task[None]", event: Coroutine[Any, Any, Any]) -> None:
    """Waits until one of the two is done."""
    waiting = asyncio.create_task(event)
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
