"""Health of the server and of models: 200 or 400 with an empty body, as the protocol requires."""

from typing import Any

from fastapi import APIRouter, Response

from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, Version
from service.api.routes.health import Drain
from service.errors import ServiceError
from service.repository.registry import Registry

_NOT = "No (empty body), or the version is invalid (error message)."
_ABOUT: dict[str, Any] = {
    "response_class": Response,
    "response_description": "Yes.",
    "responses": {400: {"description": _NOT}, **protocol_errors(405, 500)},
}


def router(registry: Registry, drain: Drain) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health/live", summary="Is the process alive?", **_ABOUT)
    async def live() -> Response:
        return Response()

    @routes.get("/health/ready", summary="Does at least one model serve?", **_ABOUT)
    async def ready() -> Response:
        return Response(status_code=200 if registry.loaded and not drain.begun else 400)

    @routes.get("/models/{name}/ready", summary="Does the model serve?", **_ABOUT)
    async def model_ready(name: ModelName) -> Response:
        return _serves(name)

    @routes.get("/models/{name}/versions/{version}/ready", summary="Does the version serve?", **_ABOUT)
    async def version_ready(name: ModelName, version: Version) -> Response:
        return _serves(name, version)

    def _serves(name: str, version: int | None = None) -> Response:
        try:
            with registry.lease(name, version):
                return Response()
        except ServiceError:
            return Response(status_code=400)

    return routes
