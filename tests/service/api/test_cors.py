"""CONVOY_CORS_ORIGINS, over the real service and in the application."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.middleware.cors import CORSMiddleware

from service.api.app import create_app
from service.api.direct_routes import DirectRoutes
from service.settings import Device, Settings
from tests.service.conftest import Serve
from tests.support.bundles import solid, write_bundle
from tests.support.http_requests import b64
from tests.support.service_process import Service, serving

APP, OTHER = "https://app.example.org", "https://evil.example.org"
BODY = {"instances": [b64(solid("red"))]}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    artifacts: Path = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts)
    with serving(
        artifacts=artifacts, workers=1, api_keys="key", cors_origins=f"{APP}, http://localhost:3000"
    ) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def allowed_origin(response: httpx.Response) -> str | None:
    origin: str | None = response.headers.get("access-control-allow-origin")
    return origin


@pytest.mark.parametrize("path", ["/predict", "/evaluate", "/models", "/v2/models/colours/infer", "/", "/docs"])
def test_a_preflight_request_is_answered_without_a_key(client: httpx.Client, path: str) -> None:
    response = client.options(path, headers={"Origin": APP, **PREFLIGHT})
    assert response.status_code == 200
    assert allowed_origin(response) == APP
    assert "POST" in response.headers["access-control-allow-methods"]
    sent = response.headers["access-control-allow-headers"]
    assert {"Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout"} <= set(sent.split(", "))
    assert "access-control-allow-credentials" not in response.headers


def test_a_preflight_request_of_another_origin_is_refused(client: httpx.Client) -> None:
    response = client.options("/predict", headers={"Origin": OTHER, **PREFLIGHT})
    assert response.status_code == 400
    assert allowed_origin(response) is None


def test_a_page_of_an_allowed_origin_may_read_the_response_and_its_headers(client: httpx.Client) -> None:
    response = client.post("/predict", json=BODY, headers={"Origin": APP, "X-API-Key": "key"})
    assert response.json()["predictions"][0]["label"] == "red"
    assert allowed_origin(response) == APP
    assert response.headers["vary"].count("Origin") == 1
    readable = response.headers["access-control-expose-headers"].split(", ")
    assert {"X-Request-ID", "Server-Timing", "Retry-After"} <= set(readable)
    assert "x-request-id" in response.headers


@pytest.mark.parametrize(("path", "status"), [("/predict", 401), ("/docs", 200), ("/", 200), ("/no/such/path", 404)])
def test_pages_and_errors_carry_the_headers_too(client: httpx.Client, path: str, status: int) -> None:
    method = "POST" if path == "/predict" else "GET"
    response = client.request(method, path, headers={"Origin": APP})
    assert response.status_code == status
    assert allowed_origin(response) == APP


@pytest.mark.parametrize("origin", [OTHER, "null", "https://app.example.org.evil.example", "http://app.example.org"])
def test_a_page_of_another_origin_may_not_read_the_response(client: httpx.Client, origin: str) -> None:
    response = client.post("/predict", json=BODY, headers={"Origin": origin, "X-API-Key": "key"})
    assert response.status_code == 200
    assert allowed_origin(response) is None


def test_a_star_allows_every_origin(serve: Serve) -> None:
    client = serve(cors_origins="*")
    response = client.post("/predict", json=BODY, headers={"Origin": OTHER})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers


def test_an_allowed_origin_may_not_make_admin_calls_without_an_admin_key(serve: Serve) -> None:
    client = serve(cors_origins="*", reload="explicit")
    response = client.post("/v2/repository/models/colours/unload", headers={"Origin": APP})
    assert response.status_code == 403
    assert response.headers["access-control-allow-origin"] == "*"


def test_tracing_keeps_the_headers(serve: Serve) -> None:
    """Requests then enter FastAPI without the direct routes."""
    response = serve(cors_origins=APP, otel=True).post("/predict", json=BODY, headers={"Origin": APP})
    assert response.headers["access-control-allow-origin"] == APP


def test_without_origins_requests_pass_no_further_layer(artifacts: Path) -> None:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    assert isinstance(app.entry, DirectRoutes)
    allowing = create_app(Settings(artifacts=artifacts, device=Device.CPU, cors_origins="*"))
    assert isinstance(allowing.entry, CORSMiddleware)
