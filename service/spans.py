"""Where spans go. The only module that needs the extra [otel]."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter

from service import __version__


def provider(exporter: SpanExporter | None) -> TracerProvider:
    """Sends to the exporter, or by OTLP over HTTP. What OTEL_* variables say of the service goes before our words."""
    ours = Resource({SERVICE_NAME: "convoy", SERVICE_VERSION: __version__})
    made = TracerProvider(resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()))
    made.add_span_processor(SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(OTLPSpanExporter()))
    return made
