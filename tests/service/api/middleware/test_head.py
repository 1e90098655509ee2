import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serve

PATHS = (
    "/",
    "/docs",
    "/livez",
    "/readyz",
    "/models",
    "/models/colours",
    "/models/colours/report/curves.png",
    "/models/dogs",
    "/openapi.json",
    "/static/page.css",
    "/static/nothing",
    "/nothing",
)
CHANGING = {"x-request-id", "server-timing"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_is_get_without_the_body(client: TestClient, path: str, encoding: str) -> None:
    headers = {"accept-encoding": encoding}
    get, head = client.get(path, headers=headers), client.head(path, headers=headers)
    assert head.content == b""
    assert head.status_code == get.status_code
    assert {k: v for k, v in head.headers.items() if k not in CHANGING} == {
        k: v for k, v in get.headers.items() if k not in CHANGING
    }


def test_where_there_is_no_get_there_is_no_head(client: TestClient) -> None:
    answer = client.head("/predict")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")


def test_a_405_names_head_where_it_names_get(client: TestClient) -> None:
    assert client.post("/models").headers["allow"] == "GET, HEAD"
    assert client.post("/static/page.css").headers["allow"] == "GET, HEAD"


def test_it_is_counted_by_its_route(serve: Serve) -> None:
    client = serve()
    client.head("/models/dogs")
    assert 'convoy_requests_total{route="/models/{name}",status="404"} 1.0' in client.get("/metrics").text
