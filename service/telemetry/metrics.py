"""Figures for Prometheus: what was asked, how long each stage took, which version of each model answers.

No label is a caller's to choose: they are route templates, statuses, stages, and models that lie in the artifacts
folder. Where PROMETHEUS_MULTIPROC_DIR is set before this module is imported, the figures are those of all processes
that share that folder; without it, those of one application.
"""

import os
import platform
from collections.abc import Set

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

from service.backends.onnx import ONNXRUNTIME_VERSION
from service.telemetry.observer import Observer, Serving, Stage
from service.version import __version__

TELEMETRY = "telemetry"
"""Its name in the state of the application's lifespan."""

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCHES = tuple(2**n for n in range(11))  # images


class Telemetry:
    """The figures of one application. All methods may be called from any thread."""

    def __init__(self, provider: str) -> None:
        """provider is the ONNX Runtime execution provider that models are to run on."""
        r = self._registry = CollectorRegistry()
        self._requests = Counter("convoy_requests", "Requests answered", ["route", "status"], registry=r)
        self._request_seconds = Histogram(
            "convoy_request_seconds",
            "Time from a request to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=r,
        )
        self._models = _ModelFigures(r)
        self._bodies_refused = self._models.overloaded.labels("", "body_memory")
        self._models.late.labels("")
        self._version = Gauge(
            "convoy_model_version",
            "Version that answers where none is named; 0: none does, or another variant",
            ["model", "variant", "provider"],
            registry=r,
            multiprocess_mode="livemax",
        )
        self._fallback = Gauge(
            "convoy_model_fallback",
            "1: of a version that serves, fp32 answers in place of this variant, which is missing or failed its checks",
            ["model", "variant"],
            registry=r,
            multiprocess_mode="livemax",
        )
        self._refused = Gauge(
            "convoy_model_refused_versions",
            "Versions that are there and may not answer; GET /models says why",
            ["model"],
            registry=r,
            multiprocess_mode="livemax",
        )
        self._serving: dict[str, Serving] = {}
        self._fallbacks: dict[str, Set[str]] = {}
        _build_info(r, provider)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered. route is a template of ours, not the path that was asked for."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def body_refused(self) -> None:
        """There was no room in the memory for bodies."""
        self._bodies_refused.inc()

    def late(self, model: str) -> None:
        """A request is answered with 504. model is one that serves; empty: its body had not come."""
        self._models.late.labels(model).inc()

    def observer(self, model: str) -> Observer:
        return _ModelObserver(self._models, model)

    def loaded(self, model: str, *, succeeded: bool) -> None:
        figures = self._models
        for counter in (figures.loads, figures.load_failures):
            counter.labels(model)  # both are there from the first on, so that a rise can be seen
        (figures.loads if succeeded else figures.load_failures).labels(model).inc()

    def state(self, model: str, serving: Serving | None, refused: int, fallbacks: Set[str] = frozenset()) -> None:
        before = self._serving.pop(model, None)
        if before and before != serving:
            self._version.labels(model, before.variant, before.provider).set(0)
        if serving:
            self._serving[model] = serving
            self._version.labels(model, serving.variant, serving.provider).set(serving.version)
        for variant in self._fallbacks.pop(model, frozenset()) - fallbacks:
            self._fallback.labels(model, variant).set(0)
        if fallbacks:
            self._fallbacks[model] = fallbacks
            for variant in fallbacks:
                self._fallback.labels(model, variant).set(1)
        self._refused.labels(model).set(refused)

    def render(self, accept: str) -> tuple[bytes, str]:
        """(the figures, their media type): OpenMetrics where accept names it, else Prometheus's text."""
        registry = self._registry
        folder = os.environ.get(MULTIPROCESS_DIR)
        if folder:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        # The library's own choice would repeat in the media type whatever version a caller asks for.
        if "application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _ModelFigures:
    """What is counted of each model."""

    def __init__(self, r: CollectorRegistry) -> None:
        self.images = Counter("convoy_images", "Images answered", ["model"], registry=r)
        self.stage_seconds = Histogram(
            "convoy_stage_seconds",
            "Time in a stage: of a request in the queue, of a batch in decode and inference",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=r,
        )
        self.batch = Histogram("convoy_batch_images", "Images in a batch", ["model"], buckets=_BATCHES, registry=r)
        self.waiting = Gauge(
            "convoy_images_waiting", "Images in the queue", ["model"], registry=r, multiprocess_mode="livesum"
        )
        self.overloaded = Counter(
            "convoy_overloaded",
            "Requests refused for want of room: in a model's queue, or in the memory for all bodies (of no model)",
            ["model", "reason"],
            registry=r,
        )
        self.late = Counter(
            "convoy_deadline_missed",
            "Requests whose deadline passed: before a model answered, or before their body had come (of no model)",
            ["model"],
            registry=r,
        )
        self.loads = Counter("convoy_model_loads", "Versions loaded and checked, by each worker", ["model"], registry=r)
        self.load_failures = Counter(
            "convoy_model_load_failures",
            "Versions that failed to load or to be right, by each worker",
            ["model"],
            registry=r,
        )


class _ModelObserver:
    """One model's part of the figures, looked up once."""

    def __init__(self, figures: _ModelFigures, model: str) -> None:
        self._stages = {stage: figures.stage_seconds.labels(model, stage.value) for stage in Stage}
        self._images = figures.images.labels(model)
        self._batch = figures.batch.labels(model)
        self._waiting = figures.waiting.labels(model)
        self._overloaded = figures.overloaded.labels(model, "queue")
        figures.late.labels(model)  # there from the first on, so that a rise can be seen

    def stage(self, stage: Stage, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def batch(self, images: int) -> None:
        self._batch.observe(images)

    def waiting(self, change: int) -> None:
        self._waiting.inc(change)

    def answered(self, images: int) -> None:
        self._images.inc(images)

    def overloaded(self) -> None:
        self._overloaded.inc()


def _build_info(r: CollectorRegistry, provider: str) -> None:
    """A gauge, for Prometheus's own kind for this cannot be shared by processes."""
    said = {
        "version": __version__,
        "python": platform.python_version(),
        "onnxruntime": ONNXRUNTIME_VERSION,
        "provider": provider,
    }
    info = Gauge("convoy_build_info", "What runs here", list(said), registry=r, multiprocess_mode="livemax")
    info.labels(**said).set(1)
