import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.auth import Access, required_access
from service.backends.fake import FakeRuntime, FakeSession
from service.settings import Settings, exposure_warning
from tests.service.conftest import Serve
from tests.support.bundles import solid
from tests.support.http_requests import b64, labels_of, problem_of

BODY = {"instances": [b64(solid("red"))]}
API, ADMIN = "asking-key", "admin-key"
KEYS = {"api_keys": f"other,{API}", "admin_keys": f"sha256:{hashlib.sha256(ADMIN.encode()).hexdigest()}"}
LOCAL = ("127.0.0.1", 50000)
AFAR = ("192.0.2.7", 50000)
ADMIN_PATH = "/nested/admin-of-a-test"

NO_MODELS = FakeRuntime(lambda _: FakeSession((8, 8, 3), 3, lambda images: np.zeros((len(images), 3), np.float32)))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def with_admin_route(app: FastAPI) -> FastAPI:
    """Adds an unlisted POST, which needs admin access, in a router within a router."""
    inner, outer = APIRouter(), APIRouter()

    @inner.post(ADMIN_PATH.removeprefix("/nested"))
    async def change() -> dict[str, str]:
        return {"changed": "yes"}

    outer.include_router(inner, prefix="/nested")
    app.include_router(outer)
    return app


def caller(client: tuple[str, int], host: str = "127.0.0.1:8000", **settings: Any) -> TestClient:
    app = with_admin_route(create_app(Settings(**settings), NO_MODELS))
    return TestClient(app, f"http://{host}", client=client, raise_server_exceptions=False)


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yields (method, template) of every route."""
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            for method in context.methods or ():
                yield method, str(context.path)


def test_every_route_has_the_expected_access() -> None:
    """A new route must be listed here with its access: an unlisted GET needs a key."""
    app = create_app(Settings(), NO_MODELS)
    found = {f"{method} {template}": required_access(method, template) for method, template in routes(app)}
    assert {name for name, wanted in found.items() if wanted is Access.PUBLIC} >= {"GET /livez", "GET /", "GET /docs"}
    for name, wanted in found.items():
        expected = {
            "GET": {Access.PUBLIC, Access.CLIENT},
            "POST": {Access.ADMIN if name.endswith(("load", "unload", "promote")) else Access.CLIENT},
        }
        assert wanted in expected[name.split()[0]], name


@pytest.mark.parametrize(
    ("method", "template", "wanted"),
    [
        ("GET", "/livez", Access.PUBLIC),
        ("HEAD", "/readyz", Access.PUBLIC),
        ("GET", "/v2/health/ready", Access.PUBLIC),
        ("GET", "/metrics", Access.CLIENT),
        ("GET", "/models/{name}/report/{file}", Access.CLIENT),
        ("GET", "/v2/models/{model}/ready", Access.CLIENT),
        ("GET", "/something/new", Access.CLIENT),
        ("POST", "/models/{name}/versions/{version}/predict", Access.CLIENT),
        ("POST", "/v1/models/{name}:predict", Access.CLIENT),
        ("POST", "/v2/models/{m}/versions/{v}/infer", Access.CLIENT),
        ("POST", "/v2/repository/models/{name}/load", Access.ADMIN),
        ("POST", "/v2/repository/models/{name}/unload", Access.ADMIN),
        ("POST", "/models/{name}/promote", Access.ADMIN),
        ("POST", "/something/new", Access.ADMIN),
        ("POST", "/livez", Access.ADMIN),
        ("DELETE", "/predict", Access.ADMIN),
    ],
)
def test_an_unlisted_route_is_closed(method: str, template: str, wanted: Access) -> None:
    assert required_access(method, template) is wanted


@pytest.mark.parametrize(
    "headers",
    [
        [bearer(API)],
        [{"X-API-Key": API}],
        [bearer(ADMIN)],
        [{"Authorization": f"bearer  {API}"}],
        [{"X-API-Key": f"  {API}  "}],
        [{"Authorization": f"  Bearer {API} "}],
        [bearer("token.of.a.gateway"), {"X-API-Key": API}],
        [bearer(""), {"X-API-Key": API}],
        [{"Authorization": "Basic dTpw"}, {"X-API-Key": API}],
        [bearer(API), {"X-API-Key": "of-a-gateway"}],
        [bearer("token.of.a.gateway"), bearer(API)],
        [{"X-API-Key": "of-a-gateway"}, {"X-API-Key": API}],
    ],
)
def test_any_valid_key_of_the_request_gives_client_access(serve: Serve, headers: list[dict[str, str]]) -> None:
    client = serve(**KEYS)
    sent = [item for header in headers for item in header.items()]
    assert labels_of(client.post("/predict", json=BODY, headers=sent)) == ["red"]
    assert client.get("/models", headers=sent).status_code == 200
    assert client.get("/metrics", headers=sent).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"X-API-Key": "wrong"},
        bearer(""),
        {"Authorization": f"Basic {API}"},
        bearer(f"{API},other"),
    ],
)
def test_without_a_known_key_nothing_about_models_is_shown(serve: Serve, headers: dict[str, str]) -> None:
    client = serve(**KEYS)
    for path in ("/models", "/models/colours", "/models/colours/report/curves.png", "/metrics"):
        problem_of(client.get(path, headers=headers), 401, "unauthorized")
    for path in ("/predict", "/models/colours/predict", "/models/dogs/evaluate"):
        answer = client.post(path, json=BODY, headers=headers)
        problem_of(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/docs", "/openapi.json", "/static/page.css"])
def test_health_the_page_and_the_documentation_never_need_a_key(serve: Serve, path: str) -> None:
    assert serve(**KEYS).get(path).status_code == 200


def test_without_api_keys_predictions_need_no_key(serve: Serve) -> None:
    client = serve(admin_keys=ADMIN)
    assert labels_of(client.post("/predict", json=BODY)) == ["red"]


def test_an_api_key_gives_no_admin_access() -> None:
    client = caller(LOCAL, **KEYS)
    problem_of(client.post(ADMIN_PATH, headers=bearer(API)), 403, "forbidden")
    problem_of(client.post(ADMIN_PATH), 401, "unauthorized")
    problem_of(client.post(ADMIN_PATH, headers=bearer("wrong")), 401, "unauthorized")
    assert client.post(ADMIN_PATH, headers=bearer(ADMIN)).status_code == 200


def test_an_admin_key_works_from_anywhere_and_beside_another_credential() -> None:
    client = caller(AFAR, "convoy.example", **KEYS)
    for other in (bearer("token.of.a.gateway"), bearer(API)):
        assert client.post(ADMIN_PATH, headers={**other, "X-API-Key": ADMIN}).status_code == 200
    assert client.post(ADMIN_PATH, headers={**bearer(ADMIN), "Origin": "https://elsewhere"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000", "127.0.0.2"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_without_admin_keys_clients_on_this_machine_have_admin_access(peer: str, host: str) -> None:
    assert caller((peer, 5), host).post(ADMIN_PATH).status_code == 200
    assert caller((peer, 5), host).post(ADMIN_PATH, headers={"Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    ("peer", "host", "headers", "message"),
    [
        (AFAR, "127.0.0.1", {}, "CONVOY_ADMIN_KEYS"),
        (("::ffff:192.0.2.7", 5), "127.0.0.1", {}, "CONVOY_ADMIN_KEYS"),
        (AFAR, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, "CONVOY_ADMIN_KEYS"),
        (LOCAL, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, "x-forwarded-for"),
        (LOCAL, "127.0.0.1", {"Forwarded": "for=192.0.2.7"}, "forwarded"),
        (LOCAL, "127.0.0.1", {"X-Forwarded-Host": "convoy.example"}, "x-forwarded-host"),
        (LOCAL, "127.0.0.1", {"X-Forwarded-Proto": "https"}, "x-forwarded-proto"),
        (LOCAL, "127.0.0.1", {"X-Real-IP": "192.0.2.7"}, "x-real-ip"),
        (LOCAL, "127.0.0.1", {"X-Client-IP": "192.0.2.7"}, "x-client-ip"),
        (LOCAL, "127.0.0.1", {"CF-Connecting-IP": "192.0.2.7"}, "cf-connecting-ip"),
        (LOCAL, "127.0.0.1", {"True-Client-IP": "192.0.2.7"}, "true-client-ip"),
        (LOCAL, "127.0.0.1", {"Via": "1.1 proxy"}, "via"),
        (LOCAL, "evil.example", {}, "'evil.example'"),
        (LOCAL, "127.0.0.1.evil.example", {}, "evil"),
        (LOCAL, "127.0.0.1", {"Host": "[::1"}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": ""}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": "evil@127.0.0.1"}, "'evil@127.0.0.1'"),
        (LOCAL, "127.0.0.1", {"Host": "127.0.0.1/evil"}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": "127.0.0.1?evil"}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": "127.0.0.1:80:80"}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": "127.0.0.1:evil"}, "Without"),
        (LOCAL, "127.0.0.1", {"Host": "[127.0.0.1"}, "Without"),
        (LOCAL, "127.0.0.1:8000", {"Origin": "http://evil.example"}, "'http://evil.example'"),
        (LOCAL, "127.0.0.1:8000", {"Origin": "http://127.0.0.1:3000"}, "3000"),
        (LOCAL, "127.0.0.1:8000", {"Origin": "null"}, "'null'"),
        (LOCAL, "127.0.0.1:8000", {"Origin": ""}, "''"),
    ],
)
def test_without_admin_keys_all_other_clients_are_forbidden(
    peer: tuple[str, int], host: str, headers: dict[str, str], message: str
) -> None:
    assert message in problem_of(caller(peer, host).post(ADMIN_PATH, headers=headers), 403, "forbidden").detail


def test_api_keys_do_not_end_admin_access_from_this_machine() -> None:
    assert caller(LOCAL, api_keys=API).post(ADMIN_PATH).status_code == 200
    problem_of(caller(AFAR, api_keys=API).post(ADMIN_PATH, headers=bearer(API)), 403, "forbidden")


def test_keys_appear_in_no_response_and_no_log_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"api_keys": "swordfish-1", "admin_keys": "swordfish-2", "access_log": True}
    with caplog.at_level(logging.DEBUG):
        client = serve(**settings)
        for key in ("swordfish-1", "swordfish-3"):
            answers = [client.get("/models", headers=bearer(key)), client.get(f"/models?key={key}")]
            assert "swordfish" not in "".join(answer.text for answer in answers)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]  # it is the caller
    assert len(ours) >= 4
    assert "swordfish" not in "".join(ours)
    assert "swordfish" not in repr(Settings(**settings)) + str(Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "0.0.0.0"}, True),  # noqa: S104
        ({"host": "::"}, True),
        ({"host": "convoy.example"}, True),
        ({"host": "0.0.0.0", "api_keys": API}, False),  # noqa: S104
        ({"host": "0.0.0.0", "admin_keys": ADMIN}, True),  # noqa: S104
    ],
)
def test_listening_on_an_external_address_without_keys_logs_a_warning(settings: dict[str, Any], warned: bool) -> None:
    assert (exposure_warning(Settings(**settings)) is not None) == warned
