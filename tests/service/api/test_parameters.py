from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from schemas.base import Frozen
from service.api.parameters import parameters, read_query
from service.errors import InvalidRequestError


class Asked(Frozen):
    count: Annotated[int | None, Field(ge=1, description="how many")] = None
    name: Annotated[str | None, Field(pattern="^[a-z]+$", description="of what")] = None


def by_fastapi() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def answer(query: Annotated[Asked, Query()]) -> Asked:
        return query

    return app


def by_us() -> FastAPI:
    app = FastAPI()

    @app.get("/", openapi_extra={"parameters": parameters(Asked, "query")})
    async def answer(request: Request) -> Asked:
        return read_query(request, Asked)

    return app


def says_errors(app: FastAPI) -> TestClient:
    @app.exception_handler(RequestValidationError)
    async def as_json(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse([[each["type"], each["loc"], each["msg"]] for each in error.errors()], 422)

    return TestClient(app)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "count=2&name=a",
        "count=%32",
        "count=",
        "count=0",
        "count=two",
        "name=A&count=-1",
        "name=%ff",
        "other=1",
    ],
)
def test_a_query_is_read_as_fastapi_reads_it(query: str) -> None:
    ours, fastapis = (says_errors(app).get(f"/?{query}") for app in (by_us(), by_fastapi()))
    assert (ours.status_code, ours.json()) == (fastapis.status_code, fastapis.json())


def test_a_repeated_parameter_is_refused_even_with_the_same_value() -> None:
    for query in ("count=1&count=2", "count=1&name=a&count=1", "other=1&other=2"):
        request = Request({"type": "http", "headers": [], "query_string": query.encode()})
        with pytest.raises(InvalidRequestError, match=f"{query[:5]} is in the query more than once"):
            read_query(request, Asked)


def test_a_query_is_described_as_fastapi_describes_it() -> None:
    def described(app: FastAPI) -> Any:
        return app.openapi()["paths"]["/"]["get"]["parameters"]

    assert described(by_us()) == described(by_fastapi())
