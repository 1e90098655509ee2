"""The repository index, load and unload. No request can name a file or send one.

CONVOY_REQUEST_TIMEOUT limits only the reading of a body here: a load may take longer than a request. The client limits
the load itself with X-Request-Timeout.
"""

import math
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from schemas.inference_protocol import IndexEntry, IndexRequest, LoadRequest, ModelState, UnloadRequest
from service.api.body import BodyMemory
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context, within
from service.api.problems import protocol_errors
from service.api.routes.common import CONTINUES, ModelName, control_of, read_message
from service.repository.registry import Registry
from service.settings import Settings

_UNLOADED = "The version is unloaded; load it to serve it again."
_WAITING = (
    "The response comes after every worker has finished. X-Request-Timeout limits the wait; the work then continues."
)


def _about(message: type[BaseModel], *statuses: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{message.__name__}"}
    return {
        "responses": protocol_errors(400, 405, 413, 500, 503, 504, *statuses),
        "openapi_extra": {
            "parameters": TIMEOUT_PARAMETERS,
            "requestBody": {"required": False, "content": {"application/json": {"schema": schema}}},
        },
    }


def router(registry: Registry, settings: Settings, memory: BodyMemory) -> APIRouter:
    routes = APIRouter(prefix="/repository")

    read = partial(read_message, settings=settings, memory=memory, empty=b"{}")  # Triton's client sends no body

    @routes.post("/index", summary="List the repository", **_about(IndexRequest))
    async def index(request: Request) -> list[IndexEntry]:
        message = await read(request, IndexRequest)
        ready = {entry.ref for entry in registry.loaded}
        reasons = {entry.ref: entry.reason for entry in registry.refused}
        return [
            IndexEntry(
                name=entry.ref.name,
                version=str(entry.ref.version),
                state=ModelState.READY if entry.ref in ready else ModelState.UNAVAILABLE,
                reason="" if entry.ref in ready else reasons.get(entry.ref, _UNLOADED),
            )
            for entry in registry.entries
            if entry.ref in ready or not message.ready
        ]

    @routes.post(
        "/models/{name}/load",
        summary="Load a model, or one version of it",
        description="With `version`, only that version serves; without, those that CONVOY_VERSIONS selects. If the "
        f"version is refused, the response is 503 with the reason and the version that serves instead. {_WAITING}",
        response_class=Response,
        response_description="Every worker serves the model.",
        **_about(LoadRequest, 401, 403, 404),
    )
    async def load(request: Request, name: ModelName) -> Response:
        deadline = request_context(request, math.inf).deadline
        message = await read(request, LoadRequest)
        await within(deadline, control_of(request).load(name, message.parameters.version), CONTINUES)
        return Response()

    @routes.post(
        "/models/{name}/unload",
        summary="Stop serving a model",
        description=_WAITING,
        response_class=Response,
        response_description="No worker serves the model.",
        **_about(UnloadRequest, 401, 403, 404),
    )
    async def unload(request: Request, name: ModelName) -> Response:
        deadline = request_context(request, math.inf).deadline
        await read(request, UnloadRequest)
        await within(deadline, control_of(request).unload(name), CONTINUES)
        return Response()

    return routes
