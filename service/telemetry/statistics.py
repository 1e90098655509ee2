"""Inference counts and durations of each version, as the Open Inference Protocol's statistics extension has them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from schemas.base import Frozen
from service.telemetry.counters import Report

REQUESTS = "version_requests"
BATCHES = "version_batches"
LAST_INFERENCE = "version_last_inference"

Count = Annotated[int, Field(ge=0)]


class Duration(Frozen):
    count: Count = 0
    ns: Annotated[int, Field(ge=0, description="nanoseconds, over all counted")] = 0


class BatchStatistics(Frozen):
    """Statistics of the batches with this number of images."""

    batch_size: Annotated[int, Field(ge=1)]
    compute_input: Duration
    compute_infer: Duration
    compute_output: Annotated[Duration, Field(description="time to copy the results")]


class InferenceStatistics(Frozen):
    """queue and compute_* are parts of success. The cache fields stay 0, because the service has no cache."""

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


class StatisticsOf:
    """The statistics of any version, from the totals of all workers."""

    def __init__(self, totals: Report) -> None:
        self._last = totals.gauges
        self._requests: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        self._batches: defaultdict[tuple[str, str], defaultdict[int, dict[str, float]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        for series, value in totals.counts.items():
            match series:
                case (name, model, version, what) if name == REQUESTS:
                    self._requests[model, version][what] = value
                case (name, model, version, size, what) if name == BATCHES:
                    self._batches[model, version][int(size)][what] = value

    def version(self, name: str, number: int) -> VersionStatistics:
        key = (name, str(number))
        requests, batches = self._requests[key], self._batches[key]
        return VersionStatistics(
            name=name,
            version=str(number),
            last_inference=int(self._last.get((LAST_INFERENCE, *key), 0)),
            inference_count=int(sum(size * batch["count"] for size, batch in batches.items())),
            execution_count=int(sum(batch["count"] for batch in batches.values())),
            inference_stats=InferenceStatistics(
                success=_duration(requests, "success", "seconds"),
                fail=_duration(requests, "fail", "fail_seconds"),
                queue=_duration(requests, "success", "queue"),
                compute_input=_duration(requests, "success", "decode"),
                compute_infer=_duration(requests, "success", "inference"),
                compute_output=_duration(requests, "success", "output"),
            ),
            batch_stats=tuple(
                BatchStatistics(
                    batch_size=size,
                    compute_input=_duration(batch, "count", "decode"),
                    compute_infer=_duration(batch, "count", "inference"),
                    compute_output=_duration(batch, "count", "output"),
                )
                for size, batch in sorted(batches.items())
            ),
        )


def _duration(counted: Mapping[str, float], count: str, seconds: str) -> Duration:
    return Duration(count=int(counted.get(count, 0)), ns=round(counted.get(seconds, 0.0) * 1e9))
