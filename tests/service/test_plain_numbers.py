import json
from typing import Annotated

import pytest
from fastapi.testclient import TestClient
from pydantic import Field, TypeAdapter, ValidationError

from service.validation import PLAIN_INTEGER, PLAIN_NUMBER
from tests.service.asking import b64, form, problem_of
from tests.support.bundles import solid

INTEGER = TypeAdapter[int](Annotated[int, Field(ge=-5), PLAIN_INTEGER])
NUMBER = TypeAdapter[float](Annotated[float, PLAIN_NUMBER])


@pytest.mark.parametrize("said", ["0", "-5", "10", "12345678901234567890"])
def test_what_json_writes_as_an_integer_is_one(said: str) -> None:
    assert INTEGER.validate_python(said) == json.loads(said)


@pytest.mark.parametrize("said", ["0.5", "10", "-1.25", "1e1", "2.5E-3"])
def test_what_json_writes_as_a_number_is_one(said: str) -> None:
    assert NUMBER.validate_python(said) == json.loads(said)


@pytest.mark.parametrize("said", ["1_0", "1.0", "01", "+1", " 1", "1 ", "1\n", "", "one", "0x1", "\u0661", "1e1"])
def test_nothing_else_is_an_integer(said: str) -> None:
    with pytest.raises(ValidationError, match="int_parsing"):
        INTEGER.validate_python(said)


@pytest.mark.parametrize(
    "said", ["1_0", "1_0.5", "01", "+1", " 1", "1\n", "", ".5", "1.", "\u0661", "1e", "nan", "inf"]
)
def test_nothing_else_is_a_number(said: str) -> None:
    with pytest.raises(ValidationError, match="float_parsing"):
        NUMBER.validate_python(said)


def test_their_bounds_stand_in_the_schema() -> None:
    assert INTEGER.json_schema() == {"type": "integer", "minimum": -5}


def test_numbers_are_integers_too_where_they_are_no_text() -> None:
    assert (INTEGER.validate_python(3), NUMBER.validate_python(3)) == (3, 3.0)


def test_so_are_the_numbers_of_requests_read(client: TestClient) -> None:
    for version in ("1_0", "1.0", "01"):
        detail = problem_of(client.get(f"/models/colours/versions/{version}"), 422, "invalid_request").detail
        assert detail == f"version in the path must be an integer, not '{version}'."
    image = {"instances": [b64(solid("red"))]}
    in_query = client.post("/predict?top_k=1_0", json=image)
    assert "top_k in the query must be an integer" in problem_of(in_query, 422, "invalid_request").detail
    in_form = client.post("/predict", files=form(solid("red")), data={"top_k": "1_0"})
    assert "'top_k' must be an integer" in problem_of(in_form, 422, "invalid_request").detail
