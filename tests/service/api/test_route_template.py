import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.route_template import UNMATCHED, route_template


def app() -> FastAPI:
    """Returns an application with every type of route, with and without prefixes."""
    inner, outer = APIRouter(prefix="/own"), APIRouter()

    @inner.get("/models/{name}")
    async def model(name: str) -> None: ...

    @inner.get("")
    async def root() -> None: ...

    outer.include_router(inner, prefix="/v2")
    made = FastAPI()
    made.include_router(outer, prefix="/all")
    made.include_router(inner)

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    made.mount("/static", mounted)
    return made


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/all/v2/own/models/mnist", "/all/v2/own/models/{name}"),
        ("GET", "/own/models/mnist", "/own/models/{name}"),
        ("GET", "/all/v2/own", "/all/v2/own"),
        ("POST", "/all/v2/own/models/mnist", "/all/v2/own/models/{name}"),
        ("GET", "/static/any/file.js", "/static"),
        ("GET", "/openapi.json", "/openapi.json"),
        ("GET", "/all/v2/own/nothing", UNMATCHED),
        ("GET", "/nothing", UNMATCHED),
    ],
)
def test_the_whole_template_is_found_under_any_router(method: str, path: str, template: str) -> None:
    served, found = app(), []

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await served(scope, receive, send)
        found.append(route_template(scope))

    TestClient(around).request(method, path)
    assert found == [template]
