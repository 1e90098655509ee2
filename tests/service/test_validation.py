import json
import math
from enum import StrEnum
from typing import Annotated, Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from schemas.base import Frozen
from service.validation import PLAIN_INTEGER, PLAIN_NUMBER, fault
from tests.support.bundles import solid
from tests.support.http_requests import b64, form, problem_of


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Asked(Frozen):
    count: int


def errors_of(kind: Any, value: object) -> list[dict[str, Any]]:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(value)
    return [dict(error) for error in refused.value.errors()]


@pytest.mark.parametrize(
    ("kind", "value", "predicate"),
    [
        (int, "two", "must be an integer, not 'two'"),
        (int, "9" * 5000, f"must be a smaller integer, not '{'9' * 60}...'"),
        (int, 1.5, "must be an integer"),
        (Annotated[int, Field(strict=True)], True, "must be an integer"),
        (Annotated[int, Field(ge=1)], "0", "must be 1 or more, not '0'"),
        (Annotated[float, Field(gt=0)], -1, "must be more than 0"),
        (float, "soon", "must be a number, not 'soon'"),
        (float, [], "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], math.inf, "must be a finite number"),
        (bool, "perhaps", "must be true or false, not 'perhaps'"),
        (bool, [], "must be true or false"),
        (str, 3, "must be a string"),
        (Size, "huge", "must be 'small' or 'large', not 'huge'"),
        (list[int], 3, "must be a list"),
        (tuple[int, ...], 3, "must be a list"),
        (Annotated[tuple[int, ...], Field(min_length=1)], [], "must have 1 or more elements"),
        (dict[str, int], 3, "must be a JSON object"),
        (Asked, {}, "is missing"),
    ],
)
def test_describes_a_fault_as_a_predicate(kind: Any, value: object, predicate: str) -> None:
    assert fault(errors_of(kind, value)[0]) == predicate


def test_a_message_that_is_not_an_object_is_a_fault() -> None:
    class Message(BaseModel):
        asked: Asked

    with pytest.raises(ValidationError) as refused:
        Message.model_validate_json('{"asked": []}')
    assert fault(dict(refused.value.errors()[0])) == "must be a JSON object"


def test_other_errors_keep_the_message_of_pydantic() -> None:
    assert fault(errors_of(Annotated[str, Field(max_length=1)], "ab")[0]) == (
        "is not valid: string should have at most 1 character"
    )


INTEGER = TypeAdapter[int](Annotated[int, Field(ge=-5), PLAIN_INTEGER])
NUMBER = TypeAdapter[float](Annotated[float, PLAIN_NUMBER])


@pytest.mark.parametrize("text", ["0", "-5", "10", "12345678901234567890"])
def test_an_integer_is_read_as_json_writes_it(text: str) -> None:
    assert INTEGER.validate_python(text) == json.loads(text)


@pytest.mark.parametrize("text", ["0.5", "10", "-1.25", "1e1", "2.5E-3"])
def test_a_number_is_read_as_json_writes_it(text: str) -> None:
    assert NUMBER.validate_python(text) == json.loads(text)


@pytest.mark.parametrize("text", ["1_0", "1.0", "01", "+1", " 1", "1 ", "1\n", "", "one", "0x1", "\u0661", "1e1"])
def test_no_other_text_is_an_integer(text: str) -> None:
    with pytest.raises(ValidationError, match="int_parsing"):
        INTEGER.validate_python(text)


@pytest.mark.parametrize(
    "text", ["1_0", "1_0.5", "01", "+1", " 1", "1\n", "", ".5", "1.", "\u0661", "1e", "nan", "inf"]
)
def test_no_other_text_is_a_number(text: str) -> None:
    with pytest.raises(ValidationError, match="float_parsing"):
        NUMBER.validate_python(text)


def test_the_schema_has_the_bounds() -> None:
    assert INTEGER.json_schema() == {"type": "integer", "minimum": -5}


def test_a_number_in_json_is_accepted() -> None:
    assert (INTEGER.validate_python(3), NUMBER.validate_python(3)) == (3, 3.0)


def test_the_numbers_of_requests_are_read_as_json_writes_them(client: TestClient) -> None:
    for version in ("1_0", "1.0", "01"):
        detail = problem_of(client.get(f"/models/colours/versions/{version}"), 422, "invalid_request").detail
        assert detail == f"version in the path must be an integer, not '{version}'."
    image = {"instances": [b64(solid("red"))]}
    in_query = client.post("/predict?top_k=1_0", json=image)
    assert "top_k in the query must be an integer" in problem_of(in_query, 422, "invalid_request").detail
    in_form = client.post("/predict", files=form(solid("red")), data={"top_k": "1_0"})
    assert "'top_k' must be an integer" in problem_of(in_form, 422, "invalid_request").detail
