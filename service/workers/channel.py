"""Calls and their answers over a socket between two processes, both ways at once."""

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import (
    ConflictError,
    DeviceError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRefusedError,
    NotReadyError,
    ServiceError,
    SettingsError,
    StartError,
)
from service.workers.messages import LINE, Answer, Call, Failed, Request, Response

LINE_BYTES = 2**30  # a plan holds the manifest of each refused version, of some MB for 1,000 classes

# Those that one process can raise for a caller in the other.
_ERRORS: dict[str, type[ServiceError]] = {
    kind.__name__: kind
    for kind in (
        ConflictError,
        DeviceError,
        ForbiddenError,
        InvalidRequestError,
        ModelNotFoundError,
        ModelRefusedError,
        NotReadyError,
        SettingsError,
        StartError,
    )
}

Handler = Callable[[Call], Awaitable[Answer]]
A = TypeVar("A")

logger = logging.getLogger(__name__)


class Channel:
    """One end. handle answers what the other end calls; a ServiceError of it is raised there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler) -> None:
        self._writer = writer
        self._handle = handle
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def over(cls, end: socket.socket, handle: Handler) -> "Channel":
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=LINE_BYTES)
        return cls(reader, writer, handle)

    async def call(self, call: Call, answer: type[A]) -> A:
        """The other end's answer. Raises what was raised there, or NotReadyError where the other end is gone."""
        if self.closed:
            raise _gone()
        identity = next(self._ids)
        future = self._waiting[identity] = asyncio.get_running_loop().create_future()
        try:
            self._send(Request(id=identity, call=call))
            answered = await future
        finally:
            del self._waiting[identity]
        if isinstance(answered, Failed):
            raise _raised(answered)
        if not isinstance(answered, answer):
            raise TypeError(f"{answered} is no answer to {call}")
        return answered

    @property
    def closed(self) -> bool:
        return self._reading.done()

    async def wait_closed(self) -> None:
        """Returns when the other end is gone."""
        await asyncio.wait({self._reading})

    async def close(self) -> None:
        """What was sent before still arrives."""
        self._writer.close()
        await self.wait_closed()

    def _send(self, line: Request | Response) -> None:
        self._writer.write(LINE.dump_json(line) + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(LINE.validate_json(line))
        except ConnectionError:
            pass  # the other end was killed
        except Exception:
            logger.exception("the channel to the other process failed")
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_gone())

    def _take(self, line: Request | Response) -> None:
        if isinstance(line, Request):
            task = asyncio.create_task(self._answer(line))
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
        elif (future := self._waiting.get(line.id)) is not None and not future.done():
            future.set_result(line.answer)

    async def _answer(self, request: Request) -> None:
        answer: Answer
        try:
            answer = await self._handle(request.call)
        except ServiceError as error:
            answer = Failed(error=type(error).__name__, message=str(error))
        except Exception:
            logger.exception("a call of the other process failed: %s", request.call.kind)
            answer = Failed(error="", message=f"{request.call.kind} failed in a way that nobody foresaw.")
        if not self.closed:
            self._send(Response(id=request.id, answer=answer))


def _gone() -> NotReadyError:
    return NotReadyError("The service is going down; ask again in a moment.")


def _raised(failed: Failed) -> Exception:
    return _ERRORS.get(failed.error, RuntimeError)(failed.message)
