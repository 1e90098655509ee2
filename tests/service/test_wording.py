import math
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from schemas.base import Frozen
from service.validation import fault


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
    ("kind", "value", "said"),
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
def test_what_is_wrong_with_a_value_is_said_in_plain_words(kind: Any, value: object, said: str) -> None:
    assert fault(errors_of(kind, value)[0]) == said


def test_a_message_that_is_no_object_is_said() -> None:
    class Message(BaseModel):
        asked: Asked

    with pytest.raises(ValidationError) as refused:
        Message.model_validate_json('{"asked": []}')
    assert fault(dict(refused.value.errors()[0])) == "must be a JSON object"


def test_what_has_no_words_here_keeps_pydantics() -> None:
    assert fault(errors_of(Annotated[str, Field(max_length=1)], "ab")[0]) == (
        "cannot be used: string should have at most 1 character"
    )
