"""The deadline of a request, and the end of its work when the client disconnects."""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import Request
from pydantic import Field
from starlette.requests import ClientDisconnect

from schemas.base import Frozen
from service.api.parameters import parameters, read_parameters
from service.errors import DeadlineError, ServiceError
from service.inference.request_context import RequestContext
from service.telemetry.timings import Timings
from service.validation import PLAIN_NUMBER

TIMEOUT_HEADER = "X-Request-Timeout"
WATCH_AFTER = 0.1  # seconds

ARRIVED = "convoy.arrived"
"""In the scope of a request: when it arrived, in time.monotonic() seconds. A busy server reads it later."""


class _Headers(Frozen):
    timeout: Annotated[
        float,
        Field(
            alias=TIMEOUT_HEADER,
            gt=0,
            description="the request's deadline, in seconds from its arrival; then 504, and work that has not started "
            "is dropped. The service's own limit applies if it is shorter",
        ),
        PLAIN_NUMBER,
    ]


TIMEOUT_PARAMETERS = parameters(_Headers, "header")
"""OpenAPI's parameters of a route that calls request_context."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def request_context(request: Request, limit: float) -> RequestContext:
    """Returns the deadline and timings of a request; limit is in seconds. Raises RequestValidationError.

    Call this before reading the body: reading counts toward the deadline.
    """
    header = request.headers.get(TIMEOUT_HEADER)
    timeout = limit if header is None else read_parameters(_Headers, "header", {TIMEOUT_HEADER: header}).timeout
    timings = request.scope.get("state", {}).get("timings")  # from the middleware, if there is one
    own = timings if isinstance(timings, Timings) else Timings()
    arrived: float = request.scope.get(ARRIVED) or time.monotonic()
    return RequestContext(arrived + min(timeout, limit), timings=own)


async def within(deadline: float, work: Coroutine[Any, Any, T], message: str) -> T:
    """Returns the result of work. deadline is in seconds of time.monotonic().

    Raises DeadlineError(message) after the deadline, while work continues in the background.
    """
    task = asyncio.create_task(work)
    try:
        async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.monotonic()) as limit:
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_outcome)
        raise
    except TimeoutError:
        if limit.expired():
            task.add_done_callback(_log_outcome)
            raise DeadlineError(message) from None
        raise


def _log_outcome(task: asyncio.Task[Any]) -> None:
    """Logs the outcome of work whose client has gone."""
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        logger.info("background work finished after its client had disconnected or timed out")
    elif isinstance(error, ServiceError):
        logger.warning("background work failed after its client had disconnected or timed out: %s", error)
    else:
        logger.error(
            "unexpected error in background work after its client had disconnected or timed out", exc_info=error
        )


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of work. If the client disconnects first, cancels work and raises ClientDisconnect.

    The request body must have been read completely.
    """
    watcher = _Watcher(request)
    try:
        return await work
    except asyncio.CancelledError:
        if watcher.disconnected:
            watcher.work.uncancel()
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()


class _Watcher:
    """Cancels the current task when the client disconnects. Starts its own task late: most work is done by then."""

    def __init__(self, request: Request) -> None:
        self.disconnected = False
        self._request = request
        self.work = cast("asyncio.Task[object]", asyncio.current_task())
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._start)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.work.cancel()
