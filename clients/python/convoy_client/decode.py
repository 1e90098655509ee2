"""JSON -> frozen dataclasses. Unknown fields are ignored, so that a newer service does not break an older client."""

import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Decoder = Callable[[Any], Any]
T = TypeVar("T")


def decode(result: type[T], value: object) -> T:
    """Returns the value as a result, a dataclass. Raises ValueError if the value does not have its shape."""
    return cast("T", _decoder(cast("Any", result))(value))


@cache
def _decoder(hint: Any) -> Decoder:
    if is_dataclass(hint):
        return _object(cast("type[object]", hint))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:  # tuple[X, ...]
        return _list(_decoder(arguments[0]))
    if origin in {Union, types.UnionType}:  # X | None
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _optional(_decoder(inner))
    return _scalar(hint)


def _object(result: type[Any]) -> Decoder:
    hints = get_type_hints(result)
    names = [field.name for field in fields(result)]
    required = {field.name for field in fields(result) if field.default is MISSING}
    decoders = {name: _decoder(hints[name]) for name in names}

    def decode_object(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{result.__name__} is {_kind(value)}, not an object")  # noqa: TRY004 - of the response
        if missing := required - value.keys():
            raise ValueError(f"{result.__name__} lacks {', '.join(sorted(missing))}")
        return result(**{name: decoder(value[name]) for name, decoder in decoders.items() if name in value})

    return decode_object


def _list(item: Decoder) -> Decoder:
    def decode_list(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"a list is {_kind(value)}")  # noqa: TRY004 - of the response
        return tuple(map(item, value))

    return decode_list


def _optional(inner: Decoder) -> Decoder:
    return lambda value: None if value is None else inner(value)


def _scalar(kind: type[Any]) -> Decoder:
    accepted = (int, float) if kind is float else (kind,)

    def decode_scalar(value: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"a {kind.__name__} is {_kind(value)}")
        return kind(value)

    return decode_scalar


def _kind(value: object) -> str:
    return type(value).__name__
