"""What pydantic finds wrong with a value, in words for the caller."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_INTEGER, _NUMBER, _LIST, _OBJECT = "be an integer", "be a number", "be a list", "be a JSON object"

# pydantic's type of an error -> what the value must do, with what the error says of it.
_MUST = {
    "bool_parsing": "be true or false",
    "bool_type": "be true or false",
    "dict_type": _OBJECT,
    "enum": "be {expected}",
    "finite_number": "be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "be more than {gt:g}",
    "greater_than_equal": "be {ge} or more",
    "int_from_float": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": "be a smaller integer",
    "int_type": _INTEGER,
    "list_type": _LIST,
    "model_type": _OBJECT,
    "string_type": "be a string",
    "too_short": "have {min_length} or more elements",
    "tuple_type": _LIST,
}


def shortened(text: object, length: int = 60) -> str:
    """What a caller sent, fit to be said back to it."""
    said = str(text).encode("utf-8", "backslashreplace").decode()  # half a character can be put into no answer
    return said if len(said) <= length else f"{said[:length]}..."


def fault(error: Mapping[str, Any]) -> str:
    """What follows the name of the value: 'must be an integer, not 'two'', 'is missing'.

    error is one of pydantic's, with its input or without.
    """
    kind = error["type"]
    if kind == "missing":
        return "is missing"
    if kind not in _MUST:
        return f"cannot be used: {error['msg'][:1].lower()}{error['msg'][1:]}"
    sent = error.get("input")
    return f"must {_MUST[kind].format(**error.get('ctx', {}))}" + (
        f", not '{shortened(sent)}'" if isinstance(sent, str) else ""
    )


# Numbers in paths, queries, headers and forms: as JSON writes them, not all that Python reads.
#
# Without this, pydantic takes 1_0 for 10, and 1.0 for the version 1.

_INTEGER_TEXT = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER_TEXT = re.compile(rf"{_INTEGER_TEXT.pattern}(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _integer(value: object) -> object:
    if isinstance(value, str) and not _INTEGER_TEXT.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


def _number(value: object) -> object:
    if isinstance(value, str) and not _NUMBER_TEXT.fullmatch(value):
        raise PydanticKnownError("float_parsing")
    return value


# To stand last in an Annotated: of the bounds behind it, OpenAPI would not know.
PLAIN_INTEGER = BeforeValidator(_integer)
PLAIN_NUMBER = BeforeValidator(_number)
