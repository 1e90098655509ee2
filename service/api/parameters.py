"""Parameters as a pydantic model, read and described by ourselves on the routes that are asked most.

FastAPI's Query() and Header() take their model apart anew for every request, which shows beside one small image.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequestError
from service.validation import shortened

Place = Literal["query", "header"]
Parameters = TypeVar("Parameters", bound=BaseModel)


def read_query(request: Request, model: type[Parameters]) -> Parameters:
    """The query of the request. Raises as read_parameters, and InvalidRequestError for what is there twice."""
    values = dict(request.query_params)
    times = Counter(name for name, _ in request.query_params.multi_items())
    if times.total() > len(values):
        repeated = times.most_common(1)[0][0]
        raise InvalidRequestError(f"{shortened(repeated)} is in the query more than once; give it once.")
    return read_parameters(model, "query", values)


def read_parameters(model: type[Parameters], place: Place, values: Mapping[str, str]) -> Parameters:
    """Raises RequestValidationError, which says of each error where it is, as FastAPI does, and what is known there."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise RequestValidationError(
            [
                {**said, "loc": (place, *said["loc"]), "ctx": {**said.get("ctx", {}), "known": known}}
                for said in error.errors(include_url=False)
            ]
        ) from error


def parameters(model: type[BaseModel], place: Place) -> list[dict[str, Any]]:
    """OpenAPI's parameters, one a field, all of them optional.

    An enumeration among their types is referred to; it is among the schemas for some message's sake.
    """
    fields = model.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    return [
        {
            "name": name,
            "in": place,
            "required": False,
            "schema": {key: value for key, value in field.items() if key != "default"},
            "description": field["description"],
        }
        for name, field in fields.items()
    ]
