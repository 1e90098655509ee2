"""uvicorn without its signal handlers, and with a shutdown that loses no accepted request."""

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.body import BODY_ARRIVED
from service.api.routes.health import Drain
from service.errors import StartError

ACCEPTED_PER_TICK = 256  # connections, so that the workers share a burst
IDLE_SECONDS = 1.0  # in which an open connection may still bring a request
LAST_SECONDS = 2.0  # to write the errors at the end of the grace period
_TICK = 0.02

logger = logging.getLogger(__name__)


class Gate:
    """Counts requests and responses around the whole application, and closes connections once the drain has begun."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain
        self.accepted = 0
        self.answered = 0
        self._receiving: set[asyncio.Task[object]] = set()

    def cancel_incomplete(self) -> None:
        """Cancels the requests whose bodies have not arrived. Closing the application would not end them."""
        for task in list(self._receiving):
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.accepted += 1
        body_complete = False

        async def counted_receive() -> Message:
            nonlocal body_complete
            if body_complete:  # waiting for a disconnect
                return await receive()
            task = cast("asyncio.Task[object]", asyncio.current_task())
            self._receiving.add(task)
            try:
                message = await receive()
            finally:
                self._receiving.discard(task)
            body_complete = not message.get("more_body", False)
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.begun:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.answered += 1

        await self._app(scope, receive if scope.get(BODY_ARRIVED) else counted_receive, counted_send)


class Server(uvicorn.Server):
    """Serves the gate until the drain. listening is set once it accepts connections."""

    close_seconds = 12.0  # for the application to close, which waits for running batches

    def __init__(self, config: uvicorn.Config, listener: socket.socket, gate: Gate) -> None:
        """The config's application is the gate."""
        super().__init__(config)
        self._gate = gate
        self._listener = listener
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the worker."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises StartError."""
        try:
            await super().startup(sockets)
        except OSError as error:
            raise StartError(f"The service cannot listen on its port: {error.strerror}; change CONVOY_PORT.") from error
        except SystemExit as error:
            raise StartError("The application cannot start; the log above gives the reason.") from error
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Answers every accepted request: in time, or with an error at the end of the grace period.

        All responses now carry Connection: close, so each open connection brings at most one more request. Connections
        that bring none are closed here: uvicorn would close them at once, and lose a request that is just arriving.
        """
        await self._stop_accepting()
        grace = float(self.config.timeout_graceful_shutdown or 0)
        if not await self._connections_end(min(grace, IDLE_SECONDS)):
            self._close_idle()
            if not await self._connections_end(grace - IDLE_SECONDS):
                logger.warning("grace period expired; %d requests are unfinished", len(self.server_state.tasks))
                self._gate.cancel_incomplete()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.close_seconds):
                await self.lifespan.shutdown()  # the requests in the queues of models fail
        if not await self._connections_end(LAST_SECONDS):
            for task in list(self.server_state.tasks):
                task.cancel()
            self._close_idle()
            await self._connections_end(LAST_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 seconds, takes connections that wait: uvloop accepts one per iteration, and a busy loop has few."""
        await self._connect(_accept(self._listener, ACCEPTED_PER_TICK))
        return await super().on_tick(counter)

    async def _stop_accepting(self) -> None:
        """Takes the connections that the kernel has accepted already: closing the listener would reset them."""
        spare = self._listener.dup()
        for server in self.servers:
            server.close()
        self._listener.close()
        accepted = _accept(spare, sys.maxsize)
        spare.close()  # at once: it would reset what the kernel accepts in between
        await self._connect(accepted)

    async def _connect(self, accepted: list[socket.socket]) -> None:
        connect = asyncio.get_running_loop().connect_accepted_socket
        await asyncio.gather(*(connect(self._protocol, connection) for connection in accepted))

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _close_idle(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()  # a connection with a request closes after its response

    async def _connections_end(self, seconds: float) -> bool:
        """Returns whether all connections and requests ended in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(_TICK)
        return not (self.server_state.connections or self.server_state.tasks)


def _accept(listener: socket.socket, most: int) -> list[socket.socket]:
    listener.setblocking(False)
    accepted: list[socket.socket] = []
    with suppress(OSError):
        while len(accepted) < most:
            accepted.append(listener.accept()[0])
    return accepted
