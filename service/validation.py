"""Turns pydantic's errors into sentences, and accepts numbers in text only as JSON writes them."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_INTEGER, _NUMBER, _LIST, _OBJECT = "be an integer", "be a number", "be a list", "be a JSON object"

# pydantic's type of an error -> what the value must do; in braces, values from the error's context.
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
    "less_than_equal": "be {le} or less",
    "list_type": _LIST,
    "literal_error": "be {expected}",
    "model_type": _OBJECT,
    # The only pattern is that of a model's name.
    "string_pattern_mismatch": "be up to 64 lower-case letters, digits, '.', '_' and '-', first a letter or a digit",
    "string_type": "be a string",
    "too_short": "have {min_length} or more elements",
    "tuple_type": _LIST,
}


def shortened(text: object, length: int = 60) -> str:
    """Returns the start of a text from a client, encodable as UTF-8."""
    sendable = str(text).encode("utf-8", "backslashreplace").decode()  # no response can hold half a surrogate pair
    return sendable if len(sendable) <= length else f"{sendable[:length]}..."


def fault(error: Mapping[str, Any]) -> str:
    """Returns the predicate to the name of the value: "must be an integer, not 'two'", "is missing".

    error is one of pydantic's, with or without its input.
    """
    if error["type"] == "missing":
        return "is missing"
    must = requirement(error)
    if must is None:
        return f"is not valid: {reason(error)}"
    value = error.get("input")
    return f"must {must}" + (f", not '{shortened(value)}'" if isinstance(value, str) else "")


def requirement(error: Mapping[str, Any]) -> str | None:
    """Returns what the value must do, such as "be an integer"; None if only pydantic's own message describes it."""
    template = _MUST.get(error["type"])
    return template and template.format(**error.get("ctx", {}))


def reason(error: Mapping[str, Any]) -> str:
    """Returns pydantic's own message, to stand after a colon."""
    message: str = error["msg"]
    return f"{message[:1].lower()}{message[1:]}"


# Numbers in paths, queries, headers and forms, as JSON writes them: pydantic would read 1_0 as 10, and 1.0 as 1.

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


# These go last in an Annotated: OpenAPI would not show the bounds that follow them.
PLAIN_INTEGER = BeforeValidator(_integer)
PLAIN_NUMBER = BeforeValidator(_number)
