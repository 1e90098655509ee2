"""uvicorn as a worker runs it: no signals of its own, and an end that loses no accepted request."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.problem import ProblemCode
from service.api.problems import problem_response
from service.api.routes.health import Drain
from service.errors import StartError

IDLE_SECONDS = 1.0  # how long a kept-alive connection may still bring a request once no new ones are taken
LAST_SECONDS = 2.0  # how long answers that say no may take, once the time to drain is over
_TICK = 0.02

logger = logging.getLogger(__name__)


class Gate:
    """Stands before the whole application: counts what comes in and what goes out, and sends callers elsewhere.

    Who is cancelled is told to come again.
    """

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain
        self.accepted = 0
        self.answered = 0
        self._coming: set[asyncio.Task[object]] = set()

    def end_what_has_not_come(self) -> None:
        """Of these requests nothing is in work, and nothing that the application does would end them."""
        for task in list(self._coming):
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.accepted += 1
        started, task = False, cast("asyncio.Task[object]", asyncio.current_task())
        self._coming.add(task)

        async def received() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                self._coming.discard(task)
            return message

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._drain.begun:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.answered += 1

        try:
            await self._app(scope, received, counted)
        except asyncio.CancelledError:
            if started:
                raise
            detail = "The service went down before it could answer this request; send it again."
            await problem_response(503, ProblemCode.NOT_READY, detail)(scope, receive, counted)
        finally:
            self._coming.discard(task)


class Server(uvicorn.Server):
    """Serves the gate, the config's application, until drain. listening is set once connections are taken."""

    close_seconds = 12.0  # how long the application may take to close: a batch that runs is waited for

    def __init__(self, config: uvicorn.Config, listener: socket.socket, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate
        self._listener = listener
        self.listening = asyncio.Event()

    async def run_until_drained(self) -> None:
        await self.serve([self._listener])

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises StartError."""
        try:
            await super().startup(sockets)
        except OSError as error:
            raise StartError(
                f"The port cannot be listened on: {error.strerror}; set CONVOY_PORT to another."
            ) from error
        except SystemExit as error:
            raise StartError("The application cannot start; the log above says why.") from error
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """Every request that was accepted is answered: in time, or with a problem when the time is over.

        By now answers say Connection: close, so each open connection brings one more request at most. Only those that
        bring none are closed from here: uvicorn would close them at once, and lose what is just arriving.
        """
        await self._stop_accepting()
        grace = float(self.config.timeout_graceful_shutdown or 0)
        if not await self._connections_end(min(grace, IDLE_SECONDS)):
            self._close_idle()
            if not await self._connections_end(grace - IDLE_SECONDS):
                logger.warning("%d requests are not answered in time and get a 503", len(self.server_state.tasks))
                self._gate.end_what_has_not_come()
        with suppress(TimeoutError):
            await asyncio.wait_for(
                self.lifespan.shutdown(), self.close_seconds
            )  # what waits in a queue fails, and says so
        if not await self._connections_end(LAST_SECONDS):
            for task in list(self.server_state.tasks):
                task.cancel()  # the gate answers
            self._close_idle()
            await self._connections_end(LAST_SECONDS)

    async def _stop_accepting(self) -> None:
        """Takes what the system has already accepted in our name: with the listener closed, it would be cut off."""
        spare = self._listener.dup()
        spare.setblocking(False)
        for server in self.servers:
            server.close()
        self._listener.close()
        taken = []
        with suppress(OSError):
            while True:
                taken.append(spare.accept()[0])
        spare.close()
        for connection in taken:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _close_idle(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()  # one with a request ends after its answer

    async def _connections_end(self, seconds: float) -> bool:
        """Whether the last connection and the last request ended in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(_TICK)
        return not (self.server_state.connections or self.server_state.tasks)
