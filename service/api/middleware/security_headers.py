"""What browsers are told of every answer, unless its route knows better."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing is taken for another type than it says, framed, embedded elsewhere, or told to where a link leads. The pages'
# own policies (api/routes/pages.py) say the rest.
SAFE_HEADERS = {
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


class SafeHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name for name, _ in headers}
                message["headers"] = headers + [header for header in SAFE_HEADERS.items() if header[0] not in there]
            await send(message)

        await self._app(scope, receive, with_headers)
