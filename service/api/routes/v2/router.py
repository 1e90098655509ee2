"""Open Inference Protocol v2. service/api/problems.py writes every error under /v2 as {"error": "..."}."""

from fastapi import APIRouter

from service.api.body import BodyMemory
from service.api.routes.health import Drain
from service.api.routes.v2 import health, metadata, repository, statistics
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.metrics import Telemetry

PREFIX = "/v2"


def router(
    registry: Registry,
    inferences: APIRouter,
    settings: Settings,
    memory: BodyMemory,
    drain: Drain,
    telemetry: Telemetry,
) -> APIRouter:
    """inferences are the routes of infer.router."""
    routes = APIRouter()
    # Statistics before metadata: /v2/models/stats does not name a model.
    for part in (
        health.router(registry, drain),
        statistics.router(registry, settings, telemetry),
        metadata.router(registry, settings),
        inferences,
        repository.router(registry, settings, memory),
    ):
        routes.include_router(part, prefix=PREFIX, tags=["open inference protocol"])
    return routes
