"""Rows of the listing of recipes and settings, read from the types."""

from collections.abc import Iterator
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.network_config import NETWORKS
from trainer.recipe import AUGMENT_POLICIES, Recipe
from trainer.recipes.registry import RECIPES, claim, presets

Row = tuple[str, ...]

_WORDS = {bool: "true|false", int: "int", float: "number", str: "text", type(None): "null"}


RECIPE_COLUMNS = ("recipe", "preset", "data", "network", "optimizer", "epochs", "batch")
SETTING_COLUMNS = ("setting", "values", "meaning")


def recipe_rows() -> list[Row]:
    rows: list[Row] = []
    for name in RECIPES:
        for preset, recipe in presets(name).items():
            limit = f"{recipe.max_seconds:g} s" if recipe.max_seconds else str(recipe.epochs)
            optimizer, batch = recipe.optimizer.name, str(recipe.batch_size)
            rows.append((name, preset, recipe.data.source, recipe.network.name, optimizer, limit, batch))
    return rows


def claims() -> str:
    return "\n".join(f"{name}: {claim(name)}" for name in RECIPES)


def setting_rows() -> list[Row]:
    """Returns key, values and meaning of every setting that --set accepts for any recipe."""
    rows: list[Row] = [(key, _values(field.annotation), field.description or "") for key, field in _settings(Recipe)]
    rows.append(("augment.policy", "|".join(AUGMENT_POLICIES), "replaces all of augment; later settings change it"))
    rows.append(
        ("network", "|".join(NETWORKS), "the network, also any timm model; the settings of each network follow")
    )
    for network, config in NETWORKS.items():
        for key, field in _settings(config):
            if key != "name":
                meaning = f"{network}, default {_shown(field.default)}: {field.description}"
                rows.append((f"network.{key}", _values(field.annotation), meaning))
    return rows


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields the dotted keys of a config, in its order, without the network's."""
    for name, field in model.model_fields.items():
        group = _group(field.annotation)
        if prefix + name == "network":
            continue
        if group is not None:
            yield from _settings(group, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _group(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _values(annotation: Any) -> str:
    """Returns the values that a setting of this type accepts."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "|".join(annotation)
    if origin is Annotated:
        return _values(inner[0])
    if origin is Literal:
        return "|".join(inner)
    if origin in {Union, UnionType}:
        return "|".join(map(_values, inner))
    if origin is tuple:
        return ",".join("..." if kind is ... else _values(kind) for kind in inner)
    return _WORDS[annotation]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
