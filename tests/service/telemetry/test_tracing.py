"""Traces. Spans are exported to memory, so no test contacts another host."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.api.app import create_app
from service.settings import Device, Settings
from service.telemetry.logging import JsonFormatter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traced(artifacts: Path, spans: InMemorySpanExporter, *, otel: bool = True) -> TestClient:
    settings = Settings(artifacts=artifacts, device=Device.CPU, otel=otel)
    app = create_app(settings, span_exporter=spans)

    @app.get("/models/{name}/slowly")
    async def slowly(name: str, request: Request) -> dict[str, str]:
        request.state.timings.inference = 0.25
        record = logging.LogRecord("service", logging.INFO, "", 1, "in a request", None, None)
        return {"log": JsonFormatter().format(record)}

    return TestClient(app, raise_server_exceptions=False)


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_request_is_a_span_of_its_clients_trace(artifacts: Path, spans: InMemorySpanExporter) -> None:
    answer = traced(artifacts, spans).get("/models/mnist/slowly", headers=PARENT)
    span = only(spans)
    assert span.name == "GET /models/{name}/slowly"
    assert span.context
    assert span.parent
    assert f"{span.context.trace_id:032x}" == TRACE == json.loads(answer.json()["log"])["trace_id"]
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert span.resource.attributes["service.name"] == "convoy"
    assert span.attributes
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["convoy.inference.seconds"] == 0.25


def test_the_log_has_the_trace_id_of_a_new_trace(artifacts: Path, spans: InMemorySpanExporter) -> None:
    entry = json.loads(traced(artifacts, spans).get("/models/mnist/slowly").json()["log"])
    span = only(spans)
    assert span.context
    assert entry["trace_id"] == f"{span.context.trace_id:032x}"


def test_no_span_holds_a_key(artifacts: Path, spans: InMemorySpanExporter) -> None:
    headers = {"Authorization": "Bearer swordfish", "X-API-Key": "swordfish"}
    traced(artifacts, spans).get("/models/mnist/slowly", headers=headers)
    assert "swordfish" not in only(spans).to_json()


def test_probes_and_scrapes_make_no_spans(artifacts: Path, spans: InMemorySpanExporter) -> None:
    client = traced(artifacts, spans)
    assert {client.get(path).status_code for path in ("/livez", "/metrics")} == {200}
    assert not spans.get_finished_spans()


def test_nothing_is_traced_without_the_setting(artifacts: Path, spans: InMemorySpanExporter) -> None:
    answer = traced(artifacts, spans, otel=False).get("/models/mnist/slowly", headers=PARENT)
    assert not spans.get_finished_spans()
    assert json.loads(answer.json()["log"])["trace_id"] == TRACE


def test_tracing_without_the_extra_is_one_sentence_that_names_it() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from service.api.app import create_app\n"
        "from service.errors import StartError\n"
        "from service.settings import Device, Settings\n"
        "create_app(Settings(device=Device.CPU))\n"
        "try: create_app(Settings(device=Device.CPU, otel=True))\n"
        "except StartError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "extra [otel]" in ended.stdout
    assert ended.stdout.count("\n") == 1
