"""Numbers in paths, queries, headers and forms: as JSON writes them, not all that Python reads.

Without this, pydantic takes 1_0 for 10, and 1.0 for the version 1.
"""

import re

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(rf"{_INTEGER.pattern}(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _integer(value: object) -> object:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


def _number(value: object) -> object:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticKnownError("float_parsing")
    return value


# To stand last in an Annotated: of the bounds behind it, OpenAPI would not know.
PLAIN_INTEGER = BeforeValidator(_integer)
PLAIN_NUMBER = BeforeValidator(_number)
