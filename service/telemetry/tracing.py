"""OpenTelemetry, if CONVOY_OTEL is set: one span per request, from FastAPI's own instrumentation.

The SDK reads the OTEL_* variables: where spans go, which are sampled, and the name of the service. Metrics and logs are
not exported: /metrics and stderr have them.
"""

from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from service.errors import StartError
from service.settings import Settings
from service.telemetry.timings import Timings
from service.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_PROBES = {"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
_OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def tracing(settings: Settings, exporter: "SpanExporter | None" = None) -> TelemetryConfig:
    """Returns FastAPI's configuration. exporter receives the spans; by default they go out as OTLP over HTTP.

    Raises StartError if CONVOY_OTEL is set and OpenTelemetry is not installed.
    """
    if not settings.otel:
        return _OFF
    return {
        **_OFF,
        "tracing": True,
        "tracer_provider": _provider(exporter),
        "operation_spans": False,
        "exclude": lambda scope: scope.get("path") in _PROBES,
    }


def current_trace_id() -> str | None:
    """Returns the trace ID of this request's span in hex; None without a span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def add_timings(timings: Timings) -> None:
    """Adds attributes to the request's span; stages are no spans of their own, as requests share batches."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes({f"convoy.{stage}.seconds": seconds for stage, seconds in vars(timings).items()})


def _provider(exporter: "SpanExporter | None") -> "TracerProvider":
    """Sends to the exporter, or as OTLP over HTTP. OTEL_* variables override our name and version of the service."""
    try:  # the extra [otel] may not be installed
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - only with the extra otel
        from opentelemetry.sdk.resources import (  # noqa: PLC0415 - only with the extra otel
            SERVICE_NAME,
            SERVICE_VERSION,
            OTELResourceDetector,
            Resource,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only with the extra otel
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415 - only with the extra otel
    except ImportError as error:
        raise StartError(
            "CONVOY_OTEL=true, but the OpenTelemetry SDK is not installed; install the extra [otel] "
            "(requirements/otel.txt), or set CONVOY_OTEL=false."
        ) from error
    ours = Resource({SERVICE_NAME: "convoy", SERVICE_VERSION: __version__})
    made = TracerProvider(resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()))
    made.add_span_processor(SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(OTLPSpanExporter()))
    return made
