"""Files over HTTP."""

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class WholeFileResponse(FileResponse):
    """Ignores Range, as RFC 9110 allows: the files are small, and a bad range would not be answered as a problem."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)
