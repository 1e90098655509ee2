"""A request's headers, indexed: Starlette's search and decode the whole list at each access."""

from typing import TypeVar, overload

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

T = TypeVar("T")

_KEY = "convoy.headers"


class IndexedHeaders(Headers):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._values: dict[str, list[str]] = {}
        for name, value in self._list:
            self._values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str | T) -> str | T: ...
    def get(self, key: str, /, default: str | T | None = None) -> str | T | None:
        values = self._values.get(key.lower())
        return values[0] if values else default

    def getlist(self, key: str) -> list[str]:
        return self._values.get(key.lower(), [])


def request_headers(scope: Scope) -> IndexedHeaders:
    """Returns the headers of the request, the same object at each call."""
    headers: IndexedHeaders | None = scope.get(_KEY)
    if headers is None:
        headers = scope[_KEY] = IndexedHeaders(scope)
    return headers


class IndexedRequest(Request):
    @property
    def headers(self) -> Headers:
        return request_headers(self.scope)
