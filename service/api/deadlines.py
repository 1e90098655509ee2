"""A request's time, from its arrival on: how long it may take, and whether anybody still waits for the answer."""

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

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


class _Headers(Frozen):
    timeout: Annotated[
        float,
        Field(
            alias=TIMEOUT_HEADER,
            gt=0,
            description="seconds, from the request's arrival, in which the answer is of use; then 504, and what was "
            "not begun is dropped. The service's own limit stands where it is less",
        ),
        PLAIN_NUMBER,
    ]


CALL_PARAMETERS = parameters(_Headers, "header")
"""For the description of each route that has call_of read them."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def call_of(request: Request, limit: float) -> RequestContext:
    """To be asked for before the body is read, whose time counts too; limit is in seconds.

    The request's timings are those that are found in its state, where whoever stands around the application has put
    some. Raises RequestValidationError.
    """
    said = request.headers.get(TIMEOUT_HEADER)
    timeout = limit if said is None else read_parameters(_Headers, "header", {TIMEOUT_HEADER: said}).timeout
    seconds = min(timeout, limit)
    timings = getattr(request.state, "timings", None)
    return RequestContext(time.monotonic() + seconds, timings=timings if isinstance(timings, Timings) else Timings())


async def within(deadline: float, work: Coroutine[Any, Any, T], else_say: str) -> T:
    """What work returns or raises. Where the deadline (in time.monotonic() seconds) comes first, work goes on.

    Raises DeadlineError(else_say).
    """
    going = asyncio.create_task(work)
    try:
        async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.monotonic()) as limit:
            return await asyncio.shield(going)
    except asyncio.CancelledError:
        going.add_done_callback(_log_outcome)
        raise
    except TimeoutError:
        if limit.expired():
            going.add_done_callback(_log_outcome)
            raise DeadlineError(else_say) from None
        raise


def _log_outcome(left: asyncio.Task[Any]) -> None:
    """Of what its caller waits for no longer, who would else have been told."""
    if left.cancelled():
        return
    error = left.exception()
    if error is None:
        logger.info("what went on after its caller had left or was answered with 504 is done")
    elif isinstance(error, ServiceError):
        logger.warning("what went on after its caller had left or was answered with 504 failed: %s", error)
    else:
        logger.error(
            "what went on after its caller had left or was answered with 504 failed in a way that nobody foresaw",
            exc_info=error,
        )


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What work returns or raises. Where the caller hangs up before, work is cancelled: raises ClientDisconnect.

    For requests whose body was read to its end.
    """
    try:
        async with asyncio.timeout(None) as connected:
            leaving = asyncio.create_task(_end_when_left(request, connected))
            try:
                return await work
            finally:
                leaving.cancel()
    except TimeoutError:
        if connected.expired():
            raise ClientDisconnect from None
        raise


async def _end_when_left(request: Request, connected: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    connected.reschedule(0)
