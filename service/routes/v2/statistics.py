"""What each version has done so far, whole over all workers."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request

from schemas.base import Frozen
from service.problems import protocol_errors
from service.registry import Registry
from service.routes.asking import ModelName, Version, control_of
from service.statistics import BatchStatistics, Duration, Statistics


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


def router(registry: Registry) -> APIRouter:
    routes = APIRouter(responses=protocol_errors(405, 500))
    about: dict[str, Any] = {"responses": protocol_errors(400, 404, 503)}

    @routes.get("/models/stats", summary="What every model has done")
    async def everything(request: Request) -> AllStatistics:
        return _said(await control_of(request).statistics())

    @routes.get("/models/{name}/stats", summary="What a model's versions have done", **about)
    async def of_model(request: Request, name: ModelName) -> AllStatistics:
        registry.entry(name)
        return _said(one for one in await control_of(request).statistics() if one.name == name)

    @routes.get("/models/{name}/versions/{version}/stats", summary="What a version has done", **about)
    async def of_version(request: Request, name: ModelName, version: Version) -> AllStatistics:
        with registry.lease(name, version):
            pass
        statistics = await control_of(request).statistics()
        return _said(one for one in statistics if (one.name, one.version) == (name, version))

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
