"""The memory that the bodies of all requests in a process may take together.

Only what has really come counts: a caller that announces much and sends little takes no one's place.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import OverloadedError
from service.inference.retry_after import Throughput, retry_after

_STATE = "held_body"


class HeldBody:
    """What one request holds of a memory."""

    def __init__(self, memory: "BodyMemory | None" = None) -> None:
        """Without a memory there is no bound."""
        self._memory = memory
        self._bytes = 0
        self._since = 0.0

    def has_room(self, size: int) -> bool:
        """For so many bytes in all. A lone request always has."""
        if self._memory is None:
            return True
        others = self._memory.held - self._bytes
        return not others or others + size <= self._memory.limit

    def refused(self, size: int) -> OverloadedError:
        """Says so of a size for which there is no room."""
        wait = self._memory.refuse(size - self._bytes) if self._memory else 0.0
        return OverloadedError(
            "The bodies of other requests take all the memory allowed for them; ask again later.", retry_after(wait)
        )

    def resize(self, size: int) -> None:
        if self._memory is not None:
            self._memory.held += size - self._bytes
            self._memory.holders += bool(size) - bool(self._bytes)
            if not self._bytes:
                self._since = self._memory.clock()
        self._bytes = size

    def release(self) -> None:
        """At the end of the request."""
        if self._memory is not None and self._bytes:
            self._memory.released.add(self._bytes, self._memory.clock() - self._since)
        self.resize(0)


class BodyMemory:
    """ASGI middleware: every request has a HeldBody, which is released when the request has ended."""

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        on_refusal: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit in bytes. on_refusal is told of every request that finds no room."""
        self._app = app
        self._on_refusal = on_refusal
        self.limit = limit
        self.clock = clock
        self.held = 0  # bytes
        self.holders = 0  # requests that hold some of them
        self.released = Throughput()  # bytes a second, by each of the holders

    def refuse(self, more: int) -> float:
        """Seconds until there is room for so many bytes more, at the rate at which requests gave theirs back."""
        self._on_refusal()
        return self.released.seconds_for(self.held + more - self.limit) / max(self.holders, 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held = scope.setdefault("state", {})[_STATE] = HeldBody(self)
        try:
            await self._app(scope, receive, send)
        finally:
            held.release()


def held_body(scope: Mapping[str, Any]) -> HeldBody:
    """The request's; one without a bound where the middleware is not there."""
    held = scope.get("state", {}).get(_STATE)
    return held if isinstance(held, HeldBody) else HeldBody()
