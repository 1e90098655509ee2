"""The search space: which settings of a recipe a search varies, each with a distribution of Optuna."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from trainer.errors import RecipeError
from trainer.recipe import OptimizerName, Recipe, with_settings

_FACTOR = 10  # up and down, for rates whose order of magnitude is unknown
_MOST_SMOOTHING, _MOST_DROPOUT = 0.2, 0.5
_LARGEST = {"rotate": 180.0, "scale": 0.9, "crop": 0.9, "colour": 1.0}
# The data and the starting weights are read once for all trials; the other settings do not affect validation.
_FIXED = {
    "name",
    "seed",
    "transfer.weights",
    "transfer.sha256",
    "test_views",
    "validation_batch_size",
    "target_accuracy",
    "variants",
}

Space = dict[str, BaseDistribution]


def default_space(recipe: Recipe) -> Space:
    """Returns ranges around the recipe's rates, regularisation and the strength of each augmentation that is on."""
    optimizer, network = recipe.optimizer, recipe.network.model_dump()
    space: Space = {"optimizer.learning_rate": _around(optimizer.learning_rate)}
    if optimizer.name is OptimizerName.MUON:
        space["optimizer.muon_rate"] = _around(optimizer.muon_rate)
    if optimizer.weight_decay:
        space["optimizer.weight_decay"] = _around(optimizer.weight_decay)
    space["label_smoothing"] = FloatDistribution(0, max(_MOST_SMOOTHING, recipe.label_smoothing))
    for name, value in recipe.augment:
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            high = max(value, min(2 * value, _LARGEST.get(name, 2 * value)))
            whole = isinstance(value, int)
            space[f"augment.{name}"] = IntDistribution(0, int(high)) if whole else FloatDistribution(0, high)
    if "dropout" in network:
        space["network.dropout"] = FloatDistribution(0, max(_MOST_DROPOUT, network["dropout"]))
    return space


def parse_space(texts: Sequence[str], recipe: Recipe) -> Space:
    """Parses KEY=LOW:HIGH, KEY=LOW:HIGH:log and KEY=a,b,c. Raises RecipeError for a wrong key, range or value."""
    space: Space = {}
    for text in texts:
        key, separator, values = (part.strip() for part in text.partition("="))
        if not separator or not values:
            raise RecipeError(f"--space {text} is not a search space. Use KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c.")
        if key in _FIXED or key.startswith("data."):
            raise RecipeError(f"A search cannot vary '{key}'. Set it once for all trials with --set.")
        if ":" in values:
            space[key] = distribution = _parse_range(key, values, recipe)
            ends: tuple[Any, ...] = (distribution.low, distribution.high)
        else:
            ends = tuple(values.split(","))
            space[key] = CategoricalDistribution(ends)
        for value in ends:
            with_settings(recipe, {key: value})
    return space


def own_values(space: Space, recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe's own values, which are tried first. Raises RecipeError for one outside the space."""
    own: dict[str, Any] = {}
    for key, distribution in space.items():
        value = setting(recipe, key)
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            found = next((each for each in choices if with_settings(recipe, {key: each}) == recipe), None)
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101 - narrows the type
            found = value if distribution.low <= value <= distribution.high else None
        if found is None:
            raise RecipeError(
                f"--space {key}={format_distribution(distribution)} does not contain the recipe's value {value}, "
                f"which is the first trial. Widen the range, or set another value with --set {key}=VALUE."
            )
        own[key] = found
    return own


def setting(recipe: Recipe, key: str) -> Any:
    """Returns the value of a dotted key. Raises RecipeError for an unknown key."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            with_settings(recipe, {key: ""})  # raises, and lists the known settings
        value = value[part]
    return value


def format_distribution(distribution: BaseDistribution) -> str:
    """Formats a distribution as --space accepts it."""
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return f"{distribution.low:g}:{distribution.high:g}{':log' * distribution.log}"
    assert isinstance(distribution, CategoricalDistribution)  # noqa: S101 - narrows the type
    return ",".join(map(str, distribution.choices))


def _around(value: float) -> FloatDistribution:
    return FloatDistribution(value / _FACTOR, value * _FACTOR, log=True)


def _parse_range(key: str, text: str, recipe: Recipe) -> FloatDistribution | IntDistribution:
    own = setting(recipe, key)
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise RecipeError(f"'{key}' is {own!r}, not a number. Give choices: --space {key}=a,b,c.")
    whole, log = isinstance(own, int), text.endswith(":log")
    try:
        low, high = map(float, text.removesuffix(":log").split(":"))
    except ValueError:
        low = high = math.nan
    valid = (0 if log else -math.inf) < low < high < math.inf
    if not valid or (whole and not (low.is_integer() and high.is_integer())):
        raise RecipeError(
            f"--space {key}={text} is not a range of {'whole ' * whole}numbers. "
            "Use LOW:HIGH with LOW below HIGH, or LOW:HIGH:log with LOW above 0."
        )
    return IntDistribution(int(low), int(high), log=log) if whole else FloatDistribution(low, high, log=log)
