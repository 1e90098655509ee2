"""Counts what one version of a model does in this process, in the words of the Open Inference Protocol."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.inference.request_context import Timings
from service.telemetry.statistics import BatchStatistics, Duration, Statistics

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
