"""What the service counts: requests, the time in each stage, loads, and which version of each model answers.

Clients cannot choose label values: these are route templates, status codes, stages, and models in the artifacts folder.
"""

import platform
import time
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass

from service.backends.onnx import ONNXRUNTIME_VERSION
from service.errors import OverloadedError
from service.telemetry.counters import WAITING, Counters, Histogram, Report, Totals
from service.telemetry.statistics import BATCHES, LAST_INFERENCE, REQUESTS
from service.telemetry.timings import Timings
from service.version import __version__

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
IMAGES = tuple(2**n for n in range(11))
BUILD_INFO = ("version", "python", "onnxruntime", "provider")
_REQUEST_STAGES = ("queue", "decode", "inference", "output")


@dataclass(frozen=True)
class Serving:
    """The version that answers requests without a version, and how it runs."""

    version: int
    variant: str
    provider: str


class Telemetry:
    """The counters of one process. All methods except totals may be called from any thread."""

    def __init__(self, provider: str, gather: Callable[[], Awaitable[Report]] | None = None) -> None:
        """provider is the ONNX Runtime execution provider. gather returns the totals of all workers.

        Without gather, this process is the only one.
        """
        self._counters = Counters()
        self._gather = gather
        self._own = Totals()
        self._routes: dict[str, Histogram] = {}
        self._serving: dict[str, Serving] = {}
        self._fallbacks: dict[str, Set[str]] = {}
        # A counter that first appears as 1 shows no rise: each one starts at 0.
        self._counters.add((("convoy_overloaded", "", "body_memory"), 0), (("convoy_deadline_missed", ""), 0))
        values = (__version__, platform.python_version(), ONNXRUNTIME_VERSION, provider)
        self._counters.set(("convoy_build_info", *values), 1)

    async def totals(self) -> Report:
        """Returns what all processes have counted. Raises NotReadyError if the supervisor is gone."""
        if self._gather:
            return await self._gather()
        self._own.add(self.take())
        return self._own.report()

    def take(self) -> Report:
        """Returns what this process has counted since the last call."""
        return self._counters.take()

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request. route is a route template, not the path of the request."""
        histogram = self._routes.get(route)
        if histogram is None:
            histogram = self._routes[route] = Histogram("convoy_request_seconds", route, bounds=SECONDS)
        self._counters.add((("convoy_requests", route, str(status)), 1), *histogram.observe(seconds))

    def body_refused(self) -> None:
        """Counts a request that was refused because the memory for bodies was full."""
        self._counters.add((("convoy_overloaded", "", "body_memory"), 1))

    def late(self, model: str) -> None:
        """Counts a request that is answered with 504. model is empty if its body had not arrived."""
        self._counters.add((("convoy_deadline_missed", model), 1))

    def model(self, name: str, version: int) -> "ModelMetrics":
        return ModelMetrics(self._counters, name, version)

    def loaded(self, model: str, *, succeeded: bool) -> None:
        """Counts a version that was loaded and checked, or refused."""
        loads, failures = ("convoy_model_loads", model), ("convoy_model_load_failures", model)
        self._counters.add((loads, succeeded), (failures, not succeeded))

    def state(self, model: str, serving: Serving | None, refused: int, fallbacks: Set[str] = frozenset()) -> None:
        """Sets which version answers for the model (None: no version), and how many versions are refused.

        fallbacks are the variants that fp32 replaces in a version that serves.
        """
        before = self._serving.pop(model, None)
        if before and before != serving:
            self._counters.set(("convoy_model_version", model, before.variant, before.provider), 0)
        if serving:
            self._serving[model] = serving
            self._counters.set(("convoy_model_version", model, serving.variant, serving.provider), serving.version)
        for variant in self._fallbacks.pop(model, frozenset()) | fallbacks:
            self._counters.set(("convoy_model_fallback", model, variant), variant in fallbacks)
        if fallbacks:
            self._fallbacks[model] = fallbacks
        self._counters.set(("convoy_model_refused_versions", model), refused)


class ModelMetrics:
    """The counters of one version of a model. All methods may be called from any thread."""

    def __init__(self, counters: Counters, name: str, version: int) -> None:
        self._counters = counters
        self._queue, self._decode, self._inference = (
            Histogram("convoy_stage_seconds", name, stage, bounds=SECONDS) for stage in _REQUEST_STAGES[:3]
        )
        self._batch_images = Histogram("convoy_batch_images", name, bounds=IMAGES)
        self._images = ("convoy_images", name)
        self._overloaded = ("convoy_overloaded", name, "queue")
        self._waiting = (WAITING, name)
        self._batches = (BATCHES, name, str(version))
        requests = (REQUESTS, name, str(version))
        self._succeeded, self._seconds = (*requests, "success"), (*requests, "seconds")
        self._failed, self._fail_seconds = (*requests, "fail"), (*requests, "fail_seconds")
        self._stages = [(*requests, stage) for stage in _REQUEST_STAGES]
        self._last = (LAST_INFERENCE, name, str(version))
        counters.add((self._images, 0), (self._overloaded, 0), (("convoy_deadline_missed", name), 0))
        counters.change(self._waiting, 0)

    def batch(self, images: int, timings: Timings) -> None:
        """Counts a batch: its images that could be decoded, and its time in decode, inference and output.

        A batch without such an image was decoded and not run.
        """
        decoded = self._decode.observe(timings.decode)
        if not images:
            self._counters.add(*decoded)
            return
        batches = (*self._batches, str(images))
        self._counters.add(
            *decoded,
            *self._inference.observe(timings.inference),
            *self._batch_images.observe(images),
            (self._images, images),
            ((*batches, "count"), 1),
            ((*batches, "decode"), timings.decode),
            ((*batches, "inference"), timings.inference),
            ((*batches, "output"), timings.output),
        )
        self._counters.set(self._last, time.time_ns() // 1_000_000)

    def request(self, timings: Timings) -> "_Request":
        """Counts the request in its block, which fails if the block raises. The block fills timings."""
        return _Request(self, timings)

    def succeeded(self, seconds: float, timings: Timings) -> None:
        queue, decode, inference, output = self._stages
        self._counters.add(
            *self._queue.observe(timings.queue),
            (self._succeeded, 1),
            (self._seconds, seconds),
            (queue, timings.queue),
            (decode, timings.decode),
            (inference, timings.inference),
            (output, timings.output),
        )

    def failed(self, seconds: float, *, overloaded: bool) -> None:
        self._counters.add((self._failed, 1), (self._fail_seconds, seconds), (self._overloaded, overloaded))

    def waiting(self, change: int) -> None:
        """Changes the number of images in the model's queue."""
        self._counters.change(self._waiting, change)


class _Request:
    """The block of one request. A generator with contextlib.contextmanager takes three times as long."""

    def __init__(self, metrics: ModelMetrics, timings: Timings) -> None:
        self._metrics = metrics
        self._timings = timings

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.monotonic() - self._started
        if kind is None:
            self._metrics.succeeded(seconds, self._timings)
        else:
            self._metrics.failed(seconds, overloaded=issubclass(kind, OverloadedError))
