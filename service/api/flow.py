"""The one flow of every inference request: lease the version, read the body, run the model, respond.

The order decides which error a request with several faults gets: first the version (404, 503), then the Content-Type
(415), a full queue (503), the body's size (413), its content (400, 413, 422), and last the deadline (503, 504).
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeVar

from fastapi import Request, Response
from pydantic import Field

from schemas.base import Frozen
from service.api.body import INLINE_BYTES, BodyMemory, read_body, run_off_loop
from service.api.deadlines import request_context, while_connected
from service.api.parameters import parameters, read_parameters
from service.inference.model import Model
from service.inference.request_context import RequestContext
from service.repository.registry import Registry
from service.settings import Settings
from service.validation import PLAIN_INTEGER

# Up to this many, a hop to another thread costs more than rendering the response.
INLINE_IMAGES = 32

Models = TypeVar("Models")
Parsed = TypeVar("Parsed")
Handler = Callable[[Request], Awaitable[Response]]


class _Name(Frozen):
    name: Annotated[str, Field(description="model name, as in GET /models", examples=["digits"])]


class _NameAndVersion(_Name):
    version: Annotated[int, Field(ge=1, description="version number", examples=[1]), PLAIN_INTEGER]


def path_parameters(path: str) -> list[dict[str, object]]:
    """Returns OpenAPI's parameters of a path with {name}, with {name} and {version}, or without either."""
    if "{version}" in path:
        return parameters(_NameAndVersion, "path")
    return parameters(_Name, "path") if "{name}" in path else []


class InferenceFlow:
    """Runs inference requests of any protocol over the versions that the registry serves."""

    def __init__(self, registry: Registry, settings: Settings, memory: BodyMemory) -> None:
        self.settings = settings
        self._registry = registry
        self._memory = memory

    def lease(self, request: Request, version: int | None = None) -> AbstractContextManager[Model]:
        """The version that the path names; without a version there, `version`, or the current one."""
        path = request.path_params
        if "version" in path:
            version = read_parameters(_NameAndVersion, "path", path).version
        return self._registry.lease(path.get("name"), version)

    async def __call__(
        self,
        request: Request,
        timeout: float,
        lease: AbstractContextManager[Models],
        parser: Callable[[Models], Callable[[bytes], Parsed]],
        respond: Callable[[Models, Parsed, RequestContext], Coroutine[Any, Any, Response]],
        *,
        inline_bytes: int = INLINE_BYTES,
    ) -> Response:
        """timeout is in seconds. parser checks the headers, and returns the function that parses the body.

        A body of more than inline_bytes is parsed off the event loop.
        """
        context = request_context(request, timeout)
        with lease as models, self._memory.hold() as held:
            parse = parser(models)
            if isinstance(models, Model):
                models.check_room(context)  # a busy service has no time for a body that it will refuse
            body = await read_body(request, held, self.settings.max_body_bytes, context.deadline)
            parsed = await run_off_loop(len(body) > inline_bytes, parse, body)
            return await while_connected(request, respond(models, parsed, context))


async def json_response(render: Callable[[], str | bytes], images: int) -> Response:
    """Returns the JSON that render makes, off the event loop for many images."""
    body = await run_off_loop(images > INLINE_IMAGES, render)
    return Response(body, media_type="application/json")
