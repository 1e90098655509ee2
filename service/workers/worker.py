"""`python -m service.workers.worker LISTENER CONTROL`: a process that serves, on descriptors of the supervisor.

It ends when the supervisor closes the channel, after a drain or because the supervisor was killed.
"""

import asyncio
import gc
import logging
import logging.config
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from schemas.promotion import Promotion
from service.api.app import create_app, onnx_runtime
from service.api.routes.health import Drain
from service.backends.base import CUDA
from service.errors import NotReadyError
from service.repository.plan import Plan
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.counters import Report
from service.telemetry.logging import log_config
from service.telemetry.metrics import Telemetry
from service.workers import messages
from service.workers.channel import Channel
from service.workers.graceful_server import Gate, Server
from service.workers.http_limits import BoundedProtocol

EXIT_SECONDS = 3.0

logger = logging.getLogger(__name__)


class Worker:
    """Answers the calls of the supervisor."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._drain = Drain()
        self._refusing = False  # connections, for lack of file descriptors
        self._drained: asyncio.Task[None] | None = None
        self._channel: Channel
        self._settings: Settings
        self._telemetry: Telemetry
        self._registry: Registry
        self._gate: Gate
        self._server: Server
        self._serving: asyncio.Task[None] | None = None

    async def run(self, control: socket.socket) -> None:
        self._channel = await Channel.over(control, self.handle)
        await self._channel.wait_closed()
        if self._drained is None and self._serving is not None:
            logger.error("the supervisor exited; draining")
        await self._end()

    async def handle(self, call: messages.Call) -> messages.Answer:
        match call:
            case messages.Start():
                return await self._start(Settings(**call.settings))
            case messages.Prepare():
                return messages.Verdict(refused=await self._registry.prepare(call.ref))
            case messages.Serve():
                await self._serve(call.plan)
                return messages.Done()
            case messages.GetMetrics():
                self._check_descriptors()
                return messages.Metrics.of(self._telemetry.take())
            case messages.Drain():
                return await self._report()
            case _:
                raise NotReadyError(f"A worker does not answer '{call.kind}'.")

    async def _start(self, settings: Settings) -> messages.Started:
        """Raises DeviceError."""
        logging.config.dictConfig(log_config(settings))
        runtime = await asyncio.to_thread(onnx_runtime, settings)
        self._settings = settings
        control = SupervisorControl(self._channel)
        self._telemetry = Telemetry(runtime.provider, gather=control.metrics)
        app = create_app(settings, runtime, control, self._drain, telemetry=self._telemetry)
        self._registry = app.state.registry
        self._gate = Gate(app, self._drain)
        config = uvicorn.Config(
            self._gate,
            http=BoundedProtocol,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,  # the application writes it
            proxy_headers=False,  # admin calls depend on the address of the connection
            server_header=False,
            headers=[("Keep-Alive", f"timeout={settings.keep_alive_seconds}")],  # clients then close in time themselves
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        self._server = Server(config, self._listener, self._gate)
        return messages.Started(gpu=runtime.provider == CUDA, provider=runtime.provider, reason=runtime.reason)

    async def _serve(self, plan: Plan) -> None:
        """Raises StartError if it cannot listen."""
        await self._registry.serve(plan)
        if self._serving is None and not self._drain.begun:
            # The objects that exist now stay. Without the freeze, each full garbage collection visits them, which
            # delays all requests.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000)  # the objects of a thousand waiting requests would be searched again and again
            self._serving = asyncio.create_task(self._server.serve([self._listener]))
            listening = asyncio.create_task(self._server.listening.wait())
            await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            if self._serving.done():
                await self._serving

    def _check_descriptors(self) -> None:
        """Logs if the process has no file descriptor left: uvloop then closes new connections without a log line."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
            error = ""
        except OSError as lacking:
            error = str(lacking.strerror)
        if error and not self._refusing:
            logger.error("connections are refused: %s; raise the limit of the process (ulimit -n)", error)
        self._refusing = bool(error)

    async def _report(self) -> messages.Drained:
        await self._end()
        return messages.Drained(accepted=self._gate.accepted, answered=self._gate.answered)

    async def _end(self) -> None:
        """Waits for the drain, which the first call starts."""
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain_and_stop())
        await asyncio.shield(self._drained)

    async def _drain_and_stop(self) -> None:
        self._drain.begun = True
        if self._serving is None:
            self._listener.close()
            return
        with suppress(TimeoutError):  # the delay ends early if the supervisor is gone
            await asyncio.wait_for(self._channel.wait_closed(), self._settings.drain_delay)
        self._server.should_exit = True
        await asyncio.wait({self._serving})


class SupervisorControl:
    """The ModelControl of a worker. The supervisor decides, and answers once every worker has applied the change."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def load(self, name: str, version: int | None = None) -> None:
        await self._channel.call(messages.Load(name=name, version=version), messages.Done)

    async def promote(self, name: str, version: int) -> Promotion:
        return (await self._channel.call(messages.Promote(name=name, version=version), messages.Promoted)).promotion

    async def unload(self, name: str) -> None:
        await self._channel.call(messages.Unload(name=name), messages.Done)

    async def metrics(self) -> Report:
        return (await self._channel.call(messages.GetMetrics(), messages.Metrics)).report


def _force_exit_after(seconds: float) -> None:
    """Exits even if a thread still loads or runs a model: all requests have been answered."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def main(arguments: Sequence[str]) -> None:
    # Terminals and init systems signal all processes of the group; the supervisor handles the signals.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    listener, control = (socket.socket(fileno=int(argument)) for argument in arguments)
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(Worker(listener).run(control))
        _force_exit_after(EXIT_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
