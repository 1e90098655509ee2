"""The statistics of each version, over all workers."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from schemas.base import Frozen
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context, within
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, Version, control_of
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.statistics import BatchStatistics, Duration, Statistics

_LATE = "The deadline passed before every worker had sent its statistics; retry, or allow more time."


class InferenceStatistics(Frozen):
    """queue and compute_* are parts of success. The service has no response cache."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class VersionStatistics(Frozen):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: tuple[BatchStatistics, ...]


class AllStatistics(Frozen):
    model_stats: tuple[VersionStatistics, ...]


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter(responses=protocol_errors(400, 405, 500, 504))
    timed: dict[str, Any] = {"openapi_extra": {"parameters": TIMEOUT_PARAMETERS}}
    about: dict[str, Any] = {"responses": protocol_errors(404, 503), **timed}

    async def collect(request: Request) -> Sequence[Statistics]:
        deadline = request_context(request, settings.request_timeout).deadline
        return await within(deadline, control_of(request).statistics(), _LATE)

    @routes.get("/models/stats", summary="Statistics of all models", **timed)
    async def everything(request: Request) -> AllStatistics:
        return _all(await collect(request))

    @routes.get("/models/{name}/stats", summary="Statistics of a model's versions", **about)
    async def of_model(request: Request, name: ModelName) -> AllStatistics:
        registry.entry(name)
        return _all(one for one in await collect(request) if one.name == name)

    @routes.get("/models/{name}/versions/{version}/stats", summary="Statistics of a version", **about)
    async def of_version(request: Request, name: ModelName, version: Version) -> AllStatistics:
        with registry.lease(name, version):
            pass
        return _all(one for one in await collect(request) if (one.name, one.version) == (name, version))

    return routes


def _all(statistics: Iterable[Statistics]) -> AllStatistics:
    return AllStatistics(model_stats=tuple(map(_of_version, statistics)))


def _of_version(one: Statistics) -> VersionStatistics:
    return VersionStatistics(
        name=one.name,
        version=str(one.version),
        last_inference=one.last_inference,
        inference_count=one.inference_count,
        execution_count=one.execution_count,
        inference_stats=InferenceStatistics(
            success=one.success,
            fail=one.fail,
            queue=one.queue,
            compute_input=one.compute_input,
            compute_infer=one.compute_infer,
            compute_output=one.compute_output,
        ),
        batch_stats=one.batches,
    )
