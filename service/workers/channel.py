"""Calls and answers over a socket between two processes, in both directions at once."""

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service import errors
from service.workers.messages import LINE, Answer, Call, Failed, Request, Response

LINE_BYTES = 2**30  # a plan holds the manifest of each refused version, of some MB for 1,000 classes

Handler = Callable[[Call], Awaitable[Answer]]
A = TypeVar("A")

logger = logging.getLogger(__name__)


class Channel:
    """One end of the connection. handle answers the calls of the other end, which also gets its ServiceErrors."""

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
        """Returns the answer. Raises the ServiceError of the other end, or NotReadyError if the other end is gone."""
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
            raise _error(answered)
        if not isinstance(answered, answer):
            raise TypeError(f"{call.kind} was answered with {answered}")
        return answered

    @property
    def closed(self) -> bool:
        return self._reading.done()

    async def wait_closed(self) -> None:
        """Waits until the other end is gone."""
        await asyncio.wait({self._reading})

    async def close(self) -> None:
        """Closes the connection after everything that was sent."""
        self._writer.close()
        await self.wait_closed()

    def _send(self, line: Request | Response) -> None:
        self._writer.write(LINE.dump_json(line) + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._receive(LINE.validate_json(line))
        except ConnectionError:
            pass  # the other end was killed
        except Exception:
            logger.exception("the connection between the supervisor and a worker failed")
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_gone())

    def _receive(self, line: Request | Response) -> None:
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
        except errors.ServiceError as error:
            answer = Failed(error=type(error).__name__, message=str(error))
        except Exception:
            logger.exception("unexpected error in a call of the other process: %s", request.call.kind)
            answer = Failed(error="", message=f"Unexpected error in '{request.call.kind}'; the log has the details.")
        if not self.closed:
            self._send(Response(id=request.id, answer=answer))


def _gone() -> errors.NotReadyError:
    return errors.NotReadyError("The service is shutting down; try again in a moment.")


def _error(failed: Failed) -> Exception:
    error: Exception = getattr(errors, failed.error, RuntimeError)(failed.message)
    return error
