from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.service.conftest import Serve
from tests.support.altered_bundles import add_variant
from tests.support.bundles import write_bundle

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def requests(client: TestClient) -> dict[tuple[str, str], float]:
    """Returns counts by (route, status)."""
    return {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "convoy_requests_total"
    }


def test_requests_are_counted_by_route_and_status(client: TestClient) -> None:
    for name in ("colours", "dogs", "cats"):
        client.get(f"/models/{name}")
    client.get("/static/page.css")
    client.get("/openapi.json")
    counted = requests(client)
    assert counted["/models/{name}", "200"] == 1
    assert counted["/models/{name}", "404"] == 2
    assert counted["/static", "200"] == 1
    assert counted["/openapi.json", "200"] == 1


def test_no_client_can_create_a_metric_label(client: TestClient) -> None:
    known = set(requests(client))
    for i in range(20):
        client.get(f"/nothing/{i}")
        client.get(f"/static/{i}")
        client.get(f"/models/{i}")
        client.post(f"/models/{i}/predict", content=b"", headers={"x-request-id": str(i)})
        client.get(f"/livez?x={i}")
    new = set(requests(client)) - known
    assert ("unmatched", "404") in new
    assert {route for route, _ in new} <= {
        "unmatched",
        "/static",
        "/models/{name}",
        "/models/{name}/predict",
        "/livez",
        "/metrics",
    }


def test_a_loaded_model_is_shown(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert 'convoy_model_version{model="colours",provider="CPUExecutionProvider",variant="fp32"} 1.0' in text
    assert 'convoy_model_loads_total{model="colours"} 1.0' in text
    assert 'convoy_model_refused_versions{model="colours"} 0.0' in text


def test_accept_selects_prometheus_text_or_open_metrics(client: TestClient) -> None:
    plain = client.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    asked = client.get("/metrics", headers={"accept": OPEN_METRICS})
    assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = open_metrics(asked.text)  # type: ignore[no-untyped-call]
    assert "convoy_build_info" in {family.name for family in families}


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=abc", "text/plain;version=9;escaping=x", "*"])
def test_an_unusual_accept_gets_prometheus_text(client: TestClient, accept: str) -> None:
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "abc" not in answer.headers["content-type"]


def test_each_application_has_its_own_metrics(serve: Serve) -> None:
    first, second = serve(), serve()
    first.get("/livez")
    assert ("/livez", "200") not in requests(second)


@pytest.mark.parametrize(
    ("variant", "scale", "sentence"),
    [("auto", 1.0, "int8 was refused: "), ("fp16", 20.0, "CONVOY_VARIANT=fp16, but the bundle has no fp16")],
)
def test_a_fallback_to_fp32_is_logged_once_and_shown(
    artifacts: Path, serve: Serve, caplog: pytest.LogCaptureFixture, variant: str, scale: float, sentence: str
) -> None:
    add_variant(artifacts / "colours" / "1", "int8", scale)
    figures = serve(variant=variant).get("/metrics").text
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [message.startswith(f"colours version 1 runs as fp32: {sentence}") for message in warned] == [True]
    wanted = "int8" if variant == "auto" else variant
    assert f'convoy_model_fallback{{model="colours",variant="{wanted}"}} 1.0' in figures


def test_a_fallback_of_a_version_that_is_not_current_is_shown_too(artifacts: Path, serve: Serve) -> None:
    add_variant(artifacts / "colours" / "1", "int8", 1.0)
    add_variant(write_bundle(artifacts, version=2), "int8")
    figures = serve(versions="all").get("/metrics").text
    assert 'convoy_model_version{model="colours",provider="CPUExecutionProvider",variant="int8"} 2.0' in figures
    assert 'convoy_model_fallback{model="colours",variant="int8"} 1.0' in figures


def test_the_preferred_variant_is_not_a_fallback(
    artifacts: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    add_variant(artifacts / "colours" / "1", "int8")
    assert "convoy_model_fallback{" not in serve().get("/metrics").text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
