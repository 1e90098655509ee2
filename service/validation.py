"""What pydantic finds wrong with a value, in words for the caller."""

from collections.abc import Mapping
from typing import Any

from service.inference.inputs import shortened

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
