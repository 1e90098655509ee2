"""Open Inference Protocol v2. service/api/problems.py writes every error under /v2 as {"error": "..."}."""

from fastapi import APIRouter

from service.api.body import BodyMemory
from service.api.flow import InferenceFlow
from service.api.routes.health import Drain
from service.api.routes.v2 import health, infer, metadata, repository, statistics
from service.repository.registry import Registry
from service.telemetry.metrics import Telemetry


def router(
    registry: Registry, flow: InferenceFlow, memory: BodyMemory, drain: Drain, telemetry: Telemetry
) -> APIRouter:
    routes, settings = APIRouter(), flow.settings
    # Statistics before metadata: /v2/models/stats does not name a model.
    for part in (
        health.router(registry, drain),
        statistics.router(registry, settings, telemetry),
        metadata.router(registry, settings),
        infer.router(flow),
        repository.router(registry, settings, memory),
    ):
        routes.include_router(part, prefix="/v2", tags=["open inference protocol"])
    return routes
