"""/livez: the process responds. /readyz: a model serves, and clients should use this instance."""

from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request

from schemas.base import Frozen
from service.api.auth import Guard
from service.api.problems import problems
from service.errors import NotReadyError
from service.repository.registry import Registry


class Live(Frozen):
    status: Literal["live"] = "live"


class RefusedModel(Frozen):
    name: str
    version: int
    reason: str


class Ready(Frozen):
    """The response for clients without access to models."""

    status: Literal["ready"] = "ready"


class ReadyModels(Ready):
    models: tuple[str, ...]
    refused: tuple[RefusedModel, ...]


@dataclass
class Drain:
    """The worker sets `begun` at shutdown. Requests are still answered, but clients should use another instance."""

    begun: bool = False


def router(registry: Registry, drain: Drain, guard: Guard) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Is the process alive?")
    async def livez() -> Live:
        return Live()

    @routes.get("/readyz", summary="Does at least one model serve?", responses=problems(503))
    async def readyz(request: Request) -> ReadyModels | Ready:
        if drain.begun:
            raise NotReadyError("The service is shutting down; use another instance, or retry in a moment.")
        if not guard.has_client_access(request):
            if registry.loaded:
                return Ready()
            raise NotReadyError("No model serves.")
        refused = tuple(
            RefusedModel(name=entry.ref.name, version=entry.ref.version, reason=entry.reason)
            for entry in registry.refused
        )
        if not registry.loaded:
            why = " ".join(f"{model.name} was refused: {model.reason}" for model in refused)
            advice = "Load one." if registry.entries else "Train one (make train)."
            raise NotReadyError(f"No model serves. {why or advice}")
        return ReadyModels(models=tuple(dict.fromkeys(entry.ref.name for entry in registry.loaded)), refused=refused)

    return routes
