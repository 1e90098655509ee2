"""The memory that the bodies of all requests in a process may take together.

Only what has really come counts: a caller that announces much and sends little takes no one's place.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

_STATE = "held_body"


class HeldBody:
    """What one request holds of a memory."""

    def __init__(self, memory: "BodyMemory | None" = None) -> None:
        """Without a memory there is no bound."""
        self._memory = memory
        self._bytes = 0

    def has_room(self, size: int) -> bool:
        """For so many bytes in all. A lone request always has."""
        if self._memory is None:
            return True
        others = self._memory.held - self._bytes
        return not others or others + size <= self._memory.limit

    def resize(self, size: int) -> None:
        if self._memory is not None:
            self._memory.held += size - self._bytes
        self._bytes = size


class BodyMemory:
    """ASGI middleware: every request has a HeldBody, which is released when the request has ended."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self.limit = limit
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held = scope.setdefault("state", {})[_STATE] = HeldBody(self)
        try:
            await self._app(scope, receive, send)
        finally:
            held.resize(0)


def held_body(scope: Mapping[str, Any]) -> HeldBody:
    """The request's; one without a bound where the middleware is not there."""
    held = scope.get("state", {}).get(_STATE)
    return held if isinstance(held, HeldBody) else HeldBody()
