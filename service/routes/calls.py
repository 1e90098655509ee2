"""A request's time, from its arrival on: how long it may take, and whether anybody still waits for the answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request
from starlette.requests import ClientDisconnect

from service.call import Call, Timings

TIMEOUT_HEADER = "X-Request-Timeout"

RequestTimeout = Annotated[
    float | None,
    Header(
        alias=TIMEOUT_HEADER,
        gt=0,
        allow_inf_nan=False,
        description="seconds, from the request's arrival, in which the answer is of use; then 504, and what was not "
        "begun is dropped. The service's own limit stands where it is less",
    ),
]

T = TypeVar("T")


def calls(limit: float) -> Callable[..., Coroutine[Any, Any, Call]]:
    """The dependency that makes a request's Call; limit is in seconds.

    Dependencies are asked before the body is read, so its time counts too. The request's timings are those that are
    found in its state, where whoever stands around the application has put some.
    """

    async def call(request: Request, timeout: RequestTimeout = None) -> Call:
        seconds = limit if timeout is None else min(timeout, limit)
        timings = getattr(request.state, "timings", None)
        return Call(time.monotonic() + seconds, timings=timings if isinstance(timings, Timings) else Timings())

    return call


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What work returns or raises. Where the caller hangs up before, work is cancelled: raises ClientDisconnect.

    For requests whose body was read to its end.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
