"""Request bodies, as the body formats get them and as they arrive over a connection."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import Message

from service.api.body import BodyMemory, read_body
from service.codecs.base import Purpose, RequestBody
from service.settings import Settings


def request_body(data: bytes, content_type: str = "", purpose: Purpose = Purpose.PREDICT, **limits: Any) -> RequestBody:
    return RequestBody(data, content_type, purpose, Settings(**limits))


class Connection:
    """A request whose body arrives in these chunks; received counts the chunks that were read."""

    def __init__(self, chunks: Sequence[bytes] = (b"",), **headers: str) -> None:
        self._chunks = chunks
        self.received = 0
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, self._receive)

    async def _receive(self) -> Message:
        assert self.received < len(self._chunks), "a server would wait here until the client disconnects"
        chunk = self._chunks[self.received]
        self.received += 1
        return {"type": "http.request", "body": chunk, "more_body": self.received < len(self._chunks)}

    def read(self, limit: int = 10**7, memory: BodyMemory | None = None) -> bytes:
        with (memory or BodyMemory(2 * limit)).hold() as held:
            return asyncio.run(read_body(self.request, held, limit, math.inf))
