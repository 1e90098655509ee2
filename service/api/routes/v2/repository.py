"""What is in the repository, and loading and unloading it. Nothing here can name a file, or bring one.

Bodies have the time of every request. A load has its own, which may rightly be longer: its caller waits for it as long
as it wants, and that is what X-Request-Timeout says.
"""

import math
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from schemas.inference_protocol import IndexEntry, IndexRequest, LoadRequest, ModelState, UnloadRequest
from service.api.body import read_body
from service.api.deadlines import CALL_PARAMETERS, call_of, within
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, control_of
from service.codecs.inference_protocol import invalid
from service.repository.registry import Registry
from service.settings import Settings

_MAX_BYTES = 64 * 1024
_UNLOADED = "It was unloaded; a load serves it again."
_GOES_ON = "The time of this request was over before every worker had done it; it goes on, and GET /models will tell."
_WAITING = (
    "It is answered once every worker has done it; with X-Request-Timeout no later, and what was begun then goes on."
)

Message = TypeVar("Message", bound=BaseModel)


def _about(message: type[BaseModel], *statuses: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{message.__name__}"}
    return {
        "responses": protocol_errors(400, 405, 413, 500, 503, 504, *statuses),
        "openapi_extra": {
            "parameters": CALL_PARAMETERS,
            "requestBody": {"required": False, "content": {"application/json": {"schema": schema}}},
        },
    }


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/repository")

    async def read(request: Request, message: type[Message]) -> Message:
        """Nothing in the body stands for {}. Content-Type is not looked at: Triton's client sends none."""
        body = await read_body(request, _MAX_BYTES, call_of(request, settings.request_timeout).deadline)
        try:
            return message.model_validate_json(body or b"{}")
        except ValidationError as error:
            raise invalid(error) from error

    @routes.post("/index", summary="List the repository", **_about(IndexRequest))
    async def index(request: Request) -> list[IndexEntry]:
        asked = await read(request, IndexRequest)
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
            if entry.ref in ready or not asked.ready
        ]

    @routes.post(
        "/models/{name}/load",
        summary="Serve a model, or one version of it",
        description="With `version` just that one serves; without, what CONVOY_VERSIONS says. Where the version that "
        f"this is about is refused it is 503, with the reason and with the version that serves instead. {_WAITING}",
        response_class=Response,
        response_description="Every worker serves it.",
        **_about(LoadRequest, 401, 403, 404),
    )
    async def load(request: Request, name: ModelName) -> Response:
        patience = call_of(request, math.inf).deadline
        asked = await read(request, LoadRequest)
        await within(patience, control_of(request).load(name, asked.parameters.version), _GOES_ON)
        return Response()

    @routes.post(
        "/models/{name}/unload",
        summary="Serve nothing of a model",
        description=_WAITING,
        response_class=Response,
        response_description="No worker serves it.",
        **_about(UnloadRequest, 401, 403, 404),
    )
    async def unload(request: Request, name: ModelName) -> Response:
        patience = call_of(request, math.inf).deadline
        await read(request, UnloadRequest)
        await within(patience, control_of(request).unload(name), _GOES_ON)
        return Response()

    return routes
