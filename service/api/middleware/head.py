"""HEAD wherever there is a GET: the same headers and no body.

The answer is whole with its head, after which a caller may leave: what the application does for the body is not waited
for, or a caller that left would look like one that was not answered.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope["method"] == "HEAD"

        async def bodiless(message: Message) -> None:
            if message["type"] == "http.response.body" and asked:
                return
            if message.get("status") == 405:
                _allow_head(MutableHeaders(scope=message))
            await send(message)
            if message["type"] == "http.response.start" and asked:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        # The server must go on seeing a HEAD, so the app gets a scope of its own; what it left there is wanted outside.
        inner = {**scope, "method": "GET"} if asked else scope
        try:
            await self._app(inner, receive, bodiless)
        finally:
            scope.update(inner, method=scope["method"])


def _allow_head(headers: MutableHeaders) -> None:
    allowed = headers.get("allow", "").split(", ")
    if "GET" in allowed and "HEAD" not in allowed:
        headers["Allow"] = ", ".join([*allowed, "HEAD"])
