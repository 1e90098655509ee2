"""What is in the repository, and loading and unloading it. Nothing here can name a file, or bring one."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from schemas.inference_protocol import IndexEntry, IndexRequest, LoadRequest, ModelState, UnloadRequest
from service.bodies.reading import read_body
from service.problems import protocol_errors
from service.registry import Registry
from service.routes.asking import ModelName, control_of
from service.tensors.incoming import invalid

_MAX_BYTES = 64 * 1024
_UNLOADED = "It was unloaded; a load serves it again."

Message = TypeVar("Message", bound=BaseModel)


def _about(message: type[BaseModel], *statuses: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{message.__name__}"}
    return {
        "responses": protocol_errors(400, 405, 413, 500, *statuses),
        "openapi_extra": {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}},
    }


def router(registry: Registry) -> APIRouter:
    routes = APIRouter(prefix="/repository")

    @routes.post("/index", summary="List the repository", **_about(IndexRequest))
    async def index(request: Request) -> list[IndexEntry]:
        asked = await _read(request, IndexRequest)
        ready = {entry.found for entry in registry.loaded}
        reasons = {entry.found: entry.reason for entry in registry.refused}
        return [
            IndexEntry(
                name=entry.found.name,
                version=str(entry.found.version),
                state=ModelState.READY if entry.found in ready else ModelState.UNAVAILABLE,
                reason="" if entry.found in ready else reasons.get(entry.found, _UNLOADED),
            )
            for entry in registry.entries
            if entry.found in ready or not asked.ready
        ]

    @routes.post(
        "/models/{name}/load",
        summary="Serve a model, or one version of it",
        description="With `version` just that one serves; without, what CONVOY_VERSIONS says. Where the version that "
        "this is about is refused it is 503, with the reason and with the version that serves instead.",
        response_class=Response,
        response_description="Every worker serves it.",
        **_about(LoadRequest, 401, 403, 404, 503),
    )
    async def load(request: Request, name: ModelName) -> Response:
        asked = await _read(request, LoadRequest)
        await control_of(request).load(name, asked.parameters.version)
        return Response()

    @routes.post(
        "/models/{name}/unload",
        summary="Serve nothing of a model",
        response_class=Response,
        response_description="No worker serves it.",
        **_about(UnloadRequest, 401, 403, 404, 503),
    )
    async def unload(request: Request, name: ModelName) -> Response:
        await _read(request, UnloadRequest)
        await control_of(request).unload(name)
        return Response()

    return routes


async def _read(request: Request, message: type[Message]) -> Message:
    """Nothing in the body stands for {}. Content-Type is not looked at: Triton's client sends none."""
    body = await read_body(request, _MAX_BYTES)
    try:
        return message.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise invalid(error) from error
