"""What one version of a model has done so far, in the words of the Open Inference Protocol's statistics."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from schemas.base import Frozen
from service.telemetry.timings import Timings

Count = Annotated[int, Field(ge=0)]


class Duration(Frozen):
    count: Count = 0
    ns: Annotated[int, Field(ge=0, description="nanoseconds, over all counted")] = 0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(count=self.count + other.count, ns=self.ns + other.ns)


class BatchStatistics(Frozen):
    """Of the batches of one size, in images that were run; each count is that of the batches."""

    batch_size: Annotated[int, Field(ge=1)]
    compute_input: Duration
    compute_infer: Duration
    compute_output: Annotated[Duration, Field(description="handing the answers out; labelling is by request")]

    def __add__(self, other: "BatchStatistics") -> "BatchStatistics":
        """Of the same size."""
        return BatchStatistics(
            batch_size=self.batch_size,
            compute_input=self.compute_input + other.compute_input,
            compute_infer=self.compute_infer + other.compute_infer,
            compute_output=self.compute_output + other.compute_output,
        )


class Statistics(Frozen):
    """Adds up over the worker processes."""

    name: str
    version: int
    last_inference: Annotated[int, Field(ge=0, description="milliseconds since the epoch; 0: none yet")] = 0
    inference_count: Annotated[int, Field(ge=0, description="images answered")] = 0
    execution_count: Annotated[int, Field(ge=0, description="batches run")] = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Annotated[Duration, Field(description="decoding")] = Duration()
    compute_infer: Duration = Duration()
    compute_output: Annotated[Duration, Field(description="labelling")] = Duration()
    batches: Annotated[tuple[BatchStatistics, ...], Field(description="by rising size")] = ()

    def __add__(self, other: "Statistics") -> "Statistics":
        """Of the same model and version."""
        return Statistics(
            name=self.name,
            version=self.version,
            last_inference=max(self.last_inference, other.last_inference),
            inference_count=self.inference_count + other.inference_count,
            execution_count=self.execution_count + other.execution_count,
            success=self.success + other.success,
            fail=self.fail + other.fail,
            queue=self.queue + other.queue,
            compute_input=self.compute_input + other.compute_input,
            compute_infer=self.compute_infer + other.compute_infer,
            compute_output=self.compute_output + other.compute_output,
            batches=_by_size(*self.batches, *other.batches),
        )


def _by_size(*batches: BatchStatistics) -> tuple[BatchStatistics, ...]:
    whole: dict[int, BatchStatistics] = {}
    for one in batches:
        size = one.batch_size
        whole[size] = whole[size] + one if size in whole else one
    return tuple(whole[size] for size in sorted(whole))


# Counts what one version of a model does in this process, in the words of the Open Inference Protocol.

_STAGES = ("queue", "decode", "inference", "output")
_BATCH_STAGES = _STAGES[1:]


@dataclass
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    @property
    def duration(self) -> Duration:
        return Duration(count=self.count, ns=round(self.seconds * 1e9))


def _sums(stages: Sequence[str]) -> dict[str, _Sum]:
    return {stage: _Sum() for stage in stages}


@dataclass
class Tally:
    """May be told things from any thread."""

    name: str
    version: int
    _last_inference: int = 0
    _images: int = 0
    _success: _Sum = field(default_factory=_Sum)
    _fail: _Sum = field(default_factory=_Sum)
    _stages: dict[str, _Sum] = field(default_factory=lambda: _sums(_STAGES))
    _batches: dict[int, dict[str, _Sum]] = field(default_factory=lambda: defaultdict(lambda: _sums(_BATCH_STAGES)))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, images: int, timings: Timings) -> None:
        """So many were answered by one run of the session, whose own time in each stage timings say."""
        with self._lock:
            self._last_inference = time.time_ns() // 1_000_000
            self._images += images
            for stage, total in self._batches[images].items():
                total.add(getattr(timings, stage))

    @contextmanager
    def request(self, timings: Timings) -> Iterator[None]:
        """Around the whole of one: it fails where it raises, and else has spent in each stage what timings say."""
        started = time.monotonic()
        try:
            yield
        except BaseException:
            with self._lock:
                self._fail.add(time.monotonic() - started)
            raise
        with self._lock:
            self._success.add(time.monotonic() - started)
            for stage, total in self._stages.items():
                total.add(getattr(timings, stage))

    def statistics(self) -> Statistics:
        with self._lock:
            return Statistics(
                name=self.name,
                version=self.version,
                last_inference=self._last_inference,
                inference_count=self._images,
                execution_count=sum(stages["inference"].count for stages in self._batches.values()),
                success=self._success.duration,
                fail=self._fail.duration,
                queue=self._stages["queue"].duration,
                compute_input=self._stages["decode"].duration,
                compute_infer=self._stages["inference"].duration,
                compute_output=self._stages["output"].duration,
                batches=tuple(
                    BatchStatistics(
                        batch_size=size,
                        compute_input=stages["decode"].duration,
                        compute_infer=stages["inference"].duration,
                        compute_output=stages["output"].duration,
                    )
                    for size, stages in sorted(self._batches.items())
                ),
            )
