"""The counters as Prometheus reads them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from service.telemetry.counters import RESTARTS, SUM, WAITING, Report, Series
from service.telemetry.metrics import BUILD_INFO, IMAGES, SECONDS

Families = tuple[tuple[str, str, tuple[str, ...]], ...]
"""The name, description and label names of each metric."""

Samples = Sequence[tuple[Series, float]]
"""Label values of each sample of one metric, and its value."""

_COUNTERS: Families = (
    ("convoy_requests", "Requests answered", ("route", "status")),
    ("convoy_images", "Images answered", ("model",)),
    (
        "convoy_overloaded",
        "Requests refused because a model's queue was full (empty model: the memory for all bodies)",
        ("model", "reason"),
    ),
    (
        "convoy_deadline_missed",
        "Requests that missed their deadline (empty model: while reading the body)",
        ("model",),
    ),
    ("convoy_model_loads", "Versions loaded and checked, by each worker", ("model",)),
    ("convoy_model_load_failures", "Versions that failed to load or failed a check, by each worker", ("model",)),
    (RESTARTS, "Worker processes that ended and were replaced, or could not be", ("cause",)),
)
_HISTOGRAMS = (
    ("convoy_request_seconds", "Time from the start of a request to the end of its response", ("route",), SECONDS),
    (
        "convoy_stage_seconds",
        "Time in a stage: of a request in the queue, of a batch in decode and inference",
        ("model", "stage"),
        SECONDS,
    ),
    ("convoy_batch_images", "Images in a batch", ("model",), IMAGES),
)
_GAUGES: Families = (
    (WAITING, "Images in the queue", ("model",)),
    (
        "convoy_model_version",
        "Version that answers requests without a version; 0: no version, or another variant",
        ("model", "variant", "provider"),
    ),
    (
        "convoy_model_fallback",
        "1: a served version runs fp32 in place of this variant, which is missing or failed its checks",
        ("model", "variant"),
    ),
    ("convoy_model_refused_versions", "Refused versions in the folder; GET /models gives the reasons", ("model",)),
    ("convoy_build_info", "Versions of the service and its libraries", BUILD_INFO),
)


def render(totals: Report, accept: str) -> tuple[bytes, str]:
    """Returns the text and its media type: OpenMetrics if the Accept header names it, else Prometheus's own format."""
    registry = CollectorRegistry()
    registry.register(_Totals(totals))
    # The library's own negotiation would copy the client's version parameter into the Content-Type.
    if "application/openmetrics-text" in accept:
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Totals(Collector):
    def __init__(self, totals: Report) -> None:
        self._counts = _by_name(totals.counts.items())
        self._gauges = _by_name(totals.gauges.items())

    def collect(self) -> Iterator[Metric]:
        for name, description, labels in _COUNTERS:
            counter = CounterMetricFamily(name, description, labels=labels)
            for values, value in self._counts[name]:
                counter.add_metric(values, value)
            yield counter
        for name, description, labels, bounds in _HISTOGRAMS:
            yield _histogram(HistogramMetricFamily(name, description, labels=labels), self._counts[name], bounds)
        for name, description, labels in _GAUGES:
            gauge = GaugeMetricFamily(name, description, labels=labels)
            for values, value in self._gauges[name]:
                gauge.add_metric(values, value)
            yield gauge


def _by_name(series: Iterable[tuple[Series, float]]) -> defaultdict[str, list[tuple[Series, float]]]:
    by_name = defaultdict(list)
    for (name, *values), value in sorted(series):
        by_name[name].append((tuple(values), value))
    return by_name


def _histogram(family: HistogramMetricFamily, samples: Samples, bounds: Sequence[float]) -> HistogramMetricFamily:
    """Adds the samples. Their buckets count disjoint ranges; in Prometheus, each includes all smaller ones."""
    by_labels: defaultdict[Series, dict[str, float]] = defaultdict(dict)
    for (*values, bucket), value in samples:
        by_labels[tuple(values)][bucket] = value
    names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    for labels, counted in by_labels.items():
        cumulative = accumulate(counted.get(name, 0) for name in names)
        family.add_metric(labels, list(zip(names, cumulative, strict=True)), counted.get(SUM, 0))
    return family
