"""A short way to the handlers of inference.

FastAPI's layers, routing, dependencies and exception handlers take longer than a small image. FastAPI declares these
routes too: its description has them, and it answers their other methods.
"""

from collections.abc import Callable, Mapping
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth import Access, Guard
from service.api.exception_handlers import HANDLED, answer_exception
from service.api.flow import Handler
from service.api.headers import IndexedRequest


def handlers(router: APIRouter, prefix: str = "") -> dict[str, Handler]:
    """Returns the handlers that a router declares, by the templates of their paths."""
    return {prefix + route.path: route.endpoint for route in router.routes if isinstance(route, APIRoute)}


class _Route:
    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.match = compile_path(path)[0].match


class DirectRoutes:
    """Answers POST requests to its routes as FastAPI would, and passes all others on."""

    def __init__(
        self, app: FastAPI, guard: Guard, handlers: Mapping[str, Handler], layer: Callable[[ASGIApp], ASGIApp]
    ) -> None:
        """handlers are by the template of their path. All need client access. layer goes around their answers."""
        self._app = app
        self._fastapi: ASGIApp = partial(FastAPI.__call__, app)
        self._guard = guard
        self._routes = [_Route(path, handler) for path, handler in handlers.items()]
        self._direct = layer(self._answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._find(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._fastapi(scope, receive, send)
        else:
            scope["app"], scope["route"] = self._app, route
            await self._direct(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = IndexedRequest(scope, receive, send)
        try:
            self._guard.check(request, Access.CLIENT)
            response = await scope["route"].handler(request)
        except HANDLED as error:
            response = await answer_exception(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> _Route | None:
        for route in self._routes:
            if found := route.match(scope["path"]):
                scope["path_params"] = found.groupdict()
                return route
        return None


class Application(FastAPI):
    """FastAPI behind what its requests enter first, such as direct routes."""

    entry: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.entry or super().__call__)(scope, receive, send)
