"""Open Inference Protocol v2. Every error below /v2 is {"error": "..."}, which service/api/problems.py sees to."""

from fastapi import APIRouter

from service.api.routes.health import Drain
from service.api.routes.v2 import health, infer, metadata, repository, statistics
from service.repository.registry import Registry
from service.settings import Settings


def router(registry: Registry, settings: Settings, drain: Drain) -> APIRouter:
    routes = APIRouter()
    # Statistics ahead of metadata: in /v2/models/stats, stats is no model's name.
    for part in (
        health.router(registry, drain),
        statistics.router(registry, settings),
        metadata.router(registry, settings),
        infer.router(registry, settings),
        repository.router(registry, settings),
    ):
        routes.include_router(part, prefix="/v2", tags=["open inference protocol"])
    return routes
