"""Shared by routes: descriptions, options and the parsing of bodies."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Annotated, Any, TypeVar

from fastapi import Path
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.api.body import BodyMemory, choose_format, read_body, request_body
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context
from service.api.flow import path_parameters
from service.api.parameters import parameters
from service.api.problems import problems
from service.codecs.base import BodyFormat, Purpose, RequestBody, Submission
from service.codecs.inference_protocol import invalid
from service.codecs.json import without_bom
from service.errors import InvalidRequestError
from service.repository.plan import ModelControl
from service.settings import Settings
from service.validation import PLAIN_INTEGER

ModelName = Annotated[str, Path(description="model name, as in GET /models")]
Version = Annotated[int, Path(ge=1, description="version number"), PLAIN_INTEGER]

CONTINUES = (
    "The deadline passed before every worker had applied the change. The change continues in the background; "
    "GET /models shows the result."
)
_MESSAGE_BYTES = 64 * 1024
Message = TypeVar("Message", bound=BaseModel)
Parse = Callable[[bytes], Submission]

ON_ERROR = "request: an invalid image fails the request (default). item: an invalid image fails only its own item"
EXPLAIN = (
    "add to each prediction where in the image the evidence for its class lies: a class activation map as numbers, "
    "and drawn over the image as a PNG"
)
REJECT = "if the highest probability is below the model's confidence threshold, return a reason in place of the label"


def described(path: str, purpose: Purpose, query: type[BaseModel], response: Any, description: str) -> dict[str, Any]:
    """Returns the keyword arguments of a route: its parameters, its body formats, its response and its errors.

    response is a type, or a union of types.
    """
    tags: list[str | Enum] = [purpose.value]
    return {
        "path": path,
        "methods": ["POST"],
        "tags": tags,
        "response_model": response,
        "response_description": description,
        "responses": problems(400, 404, 413, 415, 422, 503, 504),
        "openapi_extra": {
            "parameters": [*path_parameters(path), *parameters(query, "query"), *TIMEOUT_PARAMETERS],
            "requestBody": request_body(purpose),
        },
    }


def submission_parser(
    request: Request, purpose: Purpose, query: BaseModel, settings: Settings, body_format: BodyFormat | None = None
) -> Parse:
    """Returns the function that parses the body, and adds the options of the query.

    Without body_format, the Content-Type chooses it. Raises UnsupportedMediaTypeError.
    """
    chosen = body_format or choose_format(request, purpose)
    content_type = request.headers.get("content-type", "")

    def parse(data: bytes) -> Submission:
        return _with_options(chosen.parse(RequestBody(data, content_type, purpose, settings)), query)

    return parse


def _with_options(submission: Submission, query: BaseModel) -> Submission:
    """Raises InvalidRequestError if the query and the body give an option different values."""
    if not query.model_fields_set:
        return submission
    options = {name: value for name, value in query if value is not None and hasattr(submission, name)}
    for name, value in options.items():
        in_body = getattr(submission, name)
        if in_body not in {None, value}:
            values = [str(each).lower() for each in (value, in_body)]  # true and false as in JSON
            raise InvalidRequestError(f"{name} is {values[0]} in the query and {values[1]} in the body; send one.")
    return replace(submission, **options)


async def read_message(
    request: Request, message: type[Message], settings: Settings, memory: BodyMemory, *, empty: bytes = b""
) -> Message:
    """Returns the small JSON body; `empty` replaces an empty one. The Content-Type is ignored.

    CONVOY_REQUEST_TIMEOUT limits only the reading. Raises what read_body and `invalid` raise.
    """
    with memory.hold() as held:
        deadline = request_context(request, settings.request_timeout).deadline
        body = await read_body(request, held, _MESSAGE_BYTES, deadline)
    try:
        return message.model_validate_json(without_bom(body) or empty)
    except ValidationError as error:
        raise invalid(error) from error


def control_of(request: Request) -> ModelControl:
    """Returns the object that loads and unloads models in all workers and adds up their statistics."""
    control: ModelControl = request.app.state.control
    return control
