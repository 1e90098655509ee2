"""A request's headers, indexed: Starlette's search the whole list at each access."""

from typing import TypeVar, overload

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

_KEY = "convoy.headers"


class IndexedHeaders(Headers):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first = dict(reversed(self._list))  # of several values, the first

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str | T) -> str | T: ...
    def get(self, key: str, /, default: str | T | None = None) -> str | T | None:
        value = self._first.get(key.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def getlist(self, key: str) -> list[str]:
        return super().getlist(key) if key.lower().encode("latin-1") in self._first else []


def request_headers(scope: Scope) -> IndexedHeaders:
    """Returns the headers of the request, the same object at each call."""
    headers: IndexedHeaders | None = scope.get(_KEY)
    if headers is None:
        headers = scope[_KEY] = IndexedHeaders(scope)
    return headers


class IndexedRequest(Request):
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._headers = request_headers(scope)  # where Starlette keeps its own
