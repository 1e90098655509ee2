"""What /predict and /evaluate have in common: how they are described, and how their options are said."""

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, TypeVar

from fastapi import Path
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from service.api.body import request_body
from service.api.deadlines import CALL_PARAMETERS
from service.api.parameters import parameters
from service.api.problems import problems
from service.codecs.base import Purpose
from service.errors import InvalidRequestError
from service.repository.plan import ModelControl
from service.validation import PLAIN_INTEGER

ModelName = Annotated[str, Path(description="the model's name, as in GET /models")]
Version = Annotated[int, Path(ge=1, description="the version that must answer"), PLAIN_INTEGER]

ON_ERROR = "what a bad image does: fail the request (request, the default), or only its own item (item)"
REJECT = "give no label, but the reason, where the model is less sure than its reject threshold"

INLINE_IMAGES = 32
"""For at most so many, a hop to another thread costs more than rendering the answer."""

T = TypeVar("T")


def described(purpose: Purpose, query: type[BaseModel], message: Any, said: str) -> dict[str, Any]:
    """The keyword arguments of a route: its parameters, every kind of body, its 200, and each of its errors.

    message is the type of the answer, or a union of types.
    """
    tags: list[str | Enum] = [purpose.value]
    return {
        "tags": tags,
        "response_model": message,
        "response_description": said,
        "responses": problems(400, 404, 413, 415, 422, 503, 504),
        "openapi_extra": {
            "parameters": parameters(query, "query") + CALL_PARAMETERS,
            "requestBody": request_body(purpose),
        },
    }


def agreed(name: str, in_query: T | None, in_body: T | None) -> T | None:
    """An option may be said in the query or in the body. Raises InvalidRequestError where both are there and differ."""
    if in_query is not None and in_body is not None and in_query != in_body:
        said = [str(value).lower() for value in (in_query, in_body)]  # true and false as the caller wrote them
        raise InvalidRequestError(f"{name} is {said[0]} in the query and {said[1]} in the body; say it once.")
    return in_body if in_query is None else in_query


def control_of(request: Request) -> ModelControl:
    """What loads, unloads and counts, over all workers."""
    control: ModelControl = request.app.state.control
    return control


async def answer(render: Callable[[], str | bytes], images: int) -> Response:
    """The JSON that render returns; long answers are rendered off the event loop."""
    body = render() if images <= INLINE_IMAGES else await run_in_threadpool(render)
    return Response(body, media_type="application/json")
