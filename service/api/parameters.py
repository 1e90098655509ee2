"""Parameters of the path, the query and the headers: read into a pydantic model, and described for OpenAPI.

FastAPI's own Path(), Query() and Header() inspect their model at each request, which takes longer than a small image.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequestError
from service.validation import shortened

Place = Literal["path", "query", "header"]
Parameters = TypeVar("Parameters", bound=BaseModel)


def read_query(request: Request, model: type[Parameters]) -> Parameters:
    """Returns the query. Raises RequestValidationError, or InvalidRequestError for a repeated parameter."""
    if not request.scope["query_string"]:
        return cast("Parameters", _default(model))
    values = dict(request.query_params)
    times = Counter(name for name, _ in request.query_params.multi_items())
    if times.total() > len(values):
        repeated = times.most_common(1)[0][0]
        raise InvalidRequestError(f"{shortened(repeated)} is in the query more than once; send it once.")
    return read_parameters(model, "query", values)


@cache
def _default(model: type[Parameters]) -> Parameters:
    """Returns the model without values, the same object each time: it is immutable."""
    return model()


def read_parameters(model: type[Parameters], place: Place, values: Mapping[str, Any]) -> Parameters:
    """Raises RequestValidationError as FastAPI does; the context of each error also has the known parameters."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise RequestValidationError(
            [
                {**each, "loc": (place, *each["loc"]), "ctx": {**each.get("ctx", {}), "known": known}}
                for each in error.errors(include_url=False)
            ]
        ) from error


def parameters(model: type[BaseModel], place: Place) -> list[dict[str, Any]]:
    """Returns OpenAPI's parameters, one per field; only those of a path are required.

    An enumeration is a reference: it must be among the schemas because a message uses it.
    """
    fields = model.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    return [_described(name, place, field) for name, field in fields.items()]


def _described(name: str, place: Place, field: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in field.items() if key != "default"}
    described = {"name": name, "in": place, "required": place == "path", "schema": schema}
    if described["required"]:  # Swagger UI fills in an example, which an option must not have
        described["example"] = schema.pop("examples")[0]
    return described | {"description": field["description"]}
