"""What each version has done so far, whole over all workers."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from schemas.base import Frozen
from service.api.deadlines import CALL_PARAMETERS, call_of, within
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, Version, control_of
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.statistics import BatchStatistics, Duration, Statistics

_LATE = "The time of this request was over before every worker had told what it counted; ask again, or give it longer."


class InferenceStatistics(Frozen):
    """queue, compute_* are parts of success; nothing is cached."""

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
    timed: dict[str, Any] = {"openapi_extra": {"parameters": CALL_PARAMETERS}}
    about: dict[str, Any] = {"responses": protocol_errors(404, 503), **timed}

    async def ask(request: Request) -> Sequence[Statistics]:
        call = call_of(request, settings.request_timeout)
        return await within(call.deadline, control_of(request).statistics(), _LATE)

    @routes.get("/models/stats", summary="What every model has done", **timed)
    async def everything(request: Request) -> AllStatistics:
        return _said(await ask(request))

    @routes.get("/models/{name}/stats", summary="What a model's versions have done", **about)
    async def of_model(request: Request, name: ModelName) -> AllStatistics:
        registry.entry(name)
        return _said(one for one in await ask(request) if one.name == name)

    @routes.get("/models/{name}/versions/{version}/stats", summary="What a version has done", **about)
    async def of_version(request: Request, name: ModelName, version: Version) -> AllStatistics:
        with registry.lease(name, version):
            pass
        return _said(one for one in await ask(request) if (one.name, one.version) == (name, version))

    return routes


def _said(statistics: Iterable[Statistics]) -> AllStatistics:
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
