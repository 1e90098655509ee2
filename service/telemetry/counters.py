"""Counters and gauges in plain numbers, and their sum over the worker processes.

A worker reports what it counted since its last report. The supervisor adds the reports up: no counter goes backwards
when a worker dies, and nothing is written to disk.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

Series = tuple[str, ...]
"""A metric's name and label values. A histogram's series end with a bucket's upper bound, or with SUM."""

Increment = tuple[Series, float]

SUM = "sum"
WAITING = "convoy_images_waiting"
RESTARTS = "convoy_worker_restarts"
_SUMMED_GAUGES = {WAITING}  # added over the workers; for other gauges, the largest value of a worker counts


class Report(NamedTuple):
    """counts are increments in a worker's report, and totals in that of all workers. gauges are current values."""

    counts: Mapping[Series, float]
    gauges: Mapping[Series, float]


class Counters:
    """What this process has counted since its last report. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[Series, float] = defaultdict(float)
        self._gauges: defaultdict[Series, float] = defaultdict(float)
        self._changed: set[Series] = set()  # gauges

    def add(self, *increments: Increment) -> None:
        with self._lock:
            for series, increment in increments:
                self._counts[series] += increment

    def set(self, series: Series, value: float) -> None:
        with self._lock:
            self._gauges[series] = value
            self._changed.add(series)

    def change(self, series: Series, difference: float) -> None:
        """Adds to a gauge."""
        with self._lock:
            self._gauges[series] += difference
            self._changed.add(series)

    def take(self) -> Report:
        """Returns the increments and the changed gauges since the last call."""
        with self._lock:
            report = Report(dict(self._counts), {series: self._gauges[series] for series in self._changed})
            self._counts.clear()
            self._changed.clear()
        return report


class Histogram:
    """Turns an observed value into increments: of its bucket and of the sum."""

    def __init__(self, *series: str, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [(*series, repr(float(bound))) for bound in bounds] + [(*series, "+Inf")]
        self._sum = (*series, SUM)

    def observe(self, value: float) -> tuple[Increment, Increment]:
        return (self._buckets[bisect_left(self._bounds, value)], 1), (self._sum, value)


class Totals:
    """The sum of the counts of all workers, including dead ones, and the gauges of live workers."""

    def __init__(self) -> None:
        self._counts: defaultdict[Series, float] = defaultdict(float)
        self._gauges: dict[Hashable, dict[Series, float]] = {}

    def count(self, *series: str, increment: float = 1) -> None:
        """Counts an event of the supervisor."""
        self._counts[series] += increment

    def add(self, report: Report, worker: Hashable = None) -> None:
        for series, increment in report.counts.items():
            self._counts[series] += increment
        self._gauges.setdefault(worker, {}).update(report.gauges)

    def remove(self, worker: Hashable) -> None:
        """Drops the gauges of a worker that has ended."""
        self._gauges.pop(worker, None)

    def report(self) -> Report:
        gauges: dict[Series, float] = {}
        for of_worker in self._gauges.values():
            for series, value in of_worker.items():
                if series not in gauges:
                    gauges[series] = value
                elif series[0] in _SUMMED_GAUGES:
                    gauges[series] += value
                else:
                    gauges[series] = max(gauges[series], value)
        return Report(dict(self._counts), gauges)
