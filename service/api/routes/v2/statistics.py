"""The statistics of each version that serves, over all workers.

Every worker serves the versions of one plan. While a new plan is applied, the versions are those of the worker that
answers.
"""

from typing import Any

from fastapi import APIRouter, Request

from schemas.base import Frozen
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context, within
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, Version
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.metrics import Telemetry
from service.telemetry.statistics import StatisticsOf, VersionStatistics

_LATE = "The deadline passed before every worker had sent its statistics; retry, or allow more time."


class AllStatistics(Frozen):
    model_stats: tuple[VersionStatistics, ...]


def router(registry: Registry, settings: Settings, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(responses=protocol_errors(400, 405, 500, 504))
    timed: dict[str, Any] = {"openapi_extra": {"parameters": TIMEOUT_PARAMETERS}}
    about: dict[str, Any] = {"responses": protocol_errors(404, 503), **timed}

    async def collect(request: Request, name: str | None = None, version: int | None = None) -> AllStatistics:
        deadline = request_context(request, settings.request_timeout).deadline
        of = StatisticsOf(await within(deadline, telemetry.totals(), _LATE))
        serving = [(entry.ref.name, entry.ref.version) for entry in registry.loaded]
        chosen = [key for key in serving if name in {None, key[0]} and version in {None, key[1]}]
        return AllStatistics(model_stats=tuple(of.version(*key) for key in chosen))

    @routes.get("/models/stats", summary="Statistics of all models", **timed)
    async def everything(request: Request) -> AllStatistics:
        return await collect(request)

    @routes.get("/models/{name}/stats", summary="Statistics of a model's versions", **about)
    async def of_model(request: Request, name: ModelName) -> AllStatistics:
        registry.entry(name)
        return await collect(request, name)

    @routes.get("/models/{name}/versions/{version}/stats", summary="Statistics of a version", **about)
    async def of_version(request: Request, name: ModelName, version: Version) -> AllStatistics:
        with registry.lease(name, version):
            pass
        return await collect(request, name, version)

    return routes
