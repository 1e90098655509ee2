"""Counts what one version of a model does in this process, in the words of the Open Inference Protocol."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.call import Timings
from service.statistics import Duration, Statistics

_STAGES = ("queue", "decode", "inference", "output")


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


@dataclass
class Tally:
    """May be told things from any thread."""

    name: str
    version: int
    _last_inference: int = 0
    _images: int = 0
    _batches: int = 0
    _success: _Sum = field(default_factory=_Sum)
    _fail: _Sum = field(default_factory=_Sum)
    _stages: dict[str, _Sum] = field(default_factory=lambda: {stage: _Sum() for stage in _STAGES})
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, images: int) -> None:
        """So many were answered by one run of the session."""
        with self._lock:
            self._last_inference = time.time_ns() // 1_000_000
            self._images += images
            self._batches += 1

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
                execution_count=self._batches,
                success=self._success.duration,
                fail=self._fail.duration,
                queue=self._stages["queue"].duration,
                compute_input=self._stages["decode"].duration,
                compute_infer=self._stages["inference"].duration,
                compute_output=self._stages["output"].duration,
            )
