"""A response that is one file."""

import asyncio
import os

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

_CONDITIONS = StaticFiles()


class WholeFileResponse(FileResponse):
    """Responds 304 if the client has the file already (If-None-Match, If-Modified-Since).

    Ignores Range, as RFC 9110 allows: the files are small, and Starlette's error for a bad range is not a problem
    document.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.stat_result is None:
            self.stat_result = await asyncio.to_thread(os.stat, self.path)
            self.set_stat_headers(self.stat_result)
            del self.headers["accept-ranges"]
        if _CONDITIONS.is_not_modified(self.headers, Headers(scope=scope)):
            await NotModifiedResponse(self.headers)(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)
