"""What a search may vary: settings of a recipe, each over a range or a list of choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import RecipeError
from trainer.recipe import Recipe, with_settings

FACTOR = 10  # up and down, for rates whose order of magnitude is in question
_MOST_SMOOTHING, _MOST_DROPOUT = 0.2, 0.5
# Of augmentations and what else must stay below 1.
_LARGEST = {"rotate": 180.0, "scale": 0.9, "crop": 0.9, "colour": 1.0}
# What a search cannot vary: the data and the starting weights are read once, and the rest does not bear on validation.
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


@dataclass(frozen=True)
class Range:
    """From low to high, both included; log spreads the tries evenly over orders of magnitude."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}{':log' * self.log}"


@dataclass(frozen=True)
class Choice:
    """Values as they are typed after --set."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)


Space = dict[str, Range | Choice]


def default_space(recipe: Recipe) -> Space:
    """Rates, regularisation, and the strength of each augmentation that the recipe has on, around its own values."""
    optimizer, network = recipe.optimizer, recipe.network.model_dump()
    space: Space = {"optimizer.learning_rate": _around(optimizer.learning_rate)}
    if optimizer.name == "muon":
        space["optimizer.muon_rate"] = _around(optimizer.muon_rate)
    if optimizer.weight_decay:
        space["optimizer.weight_decay"] = _around(optimizer.weight_decay)
    space["label_smoothing"] = Range(0, max(_MOST_SMOOTHING, recipe.label_smoothing))
    for name, value in recipe.augment:
        if isinstance(value, int | float) and not isinstance(value, bool) and value:
            high = max(value, min(2 * value, _LARGEST.get(name, 2 * value)))
            space[f"augment.{name}"] = Range(0, high, whole=isinstance(value, int))
    if "dropout" in network:
        space["network.dropout"] = Range(0, max(_MOST_DROPOUT, network["dropout"]))
    return space


def parse_space(texts: Sequence[str], recipe: Recipe) -> Space:
    """Reads KEY=LOW:HIGH, KEY=LOW:HIGH:log and KEY=a,b,c. Raises RecipeError naming what is wrong."""
    space: Space = {}
    for text in texts:
        key, separator, values = (part.strip() for part in text.partition("="))
        if not separator or not values:
            raise RecipeError(f"--space takes KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c, not '{text}'.")
        if key in _FIXED or key.startswith("data."):
            raise RecipeError(f"A search cannot vary '{key}'; give it with --set, once for all trials.")
        space[key] = _range(key, values, recipe) if ":" in values else Choice(tuple(values.split(",")))
        for value in _ends(space[key]):
            with_settings(recipe, {key: value})
    return space


def own_values(space: Space, recipe: Recipe) -> dict[str, Any]:
    """The recipe's own values, which are tried first. Raises RecipeError where the space has no place for one."""
    own: dict[str, Any] = {}
    for key, tried in space.items():
        value = setting(recipe, key)
        if isinstance(tried, Range):
            found = value if tried.holds(value) else None
        else:
            found = next((each for each in tried.values if with_settings(recipe, {key: each}) == recipe), None)
        if found is None:
            raise RecipeError(
                f"--space {key}={tried} does not hold the recipe's own value, {value}, which is tried first; "
                f"widen it, or set another with --set {key}=VALUE."
            )
        own[key] = found
    return own


def setting(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key. Raises RecipeError for one that the recipe has not."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            with_settings(recipe, {key: ""})  # says what there is
        value = value[part]
    return value


def _around(value: float) -> Range:
    return Range(value / FACTOR, value * FACTOR, log=True)


def _range(key: str, values: str, recipe: Recipe) -> Range:
    own = setting(recipe, key)
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise RecipeError(f"'{key}' is {own!r} and no number; give choices, as in --space {key}=a,b,c.")
    low, high, *rest = values.split(":")
    try:
        ends = (float(low), float(high))
    except ValueError as error:
        raise RecipeError(f"--space {key}={values}: '{low}:{high}' are no two numbers.") from error
    whole, log = isinstance(own, int), rest == ["log"]
    if (rest and not log) or not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise RecipeError(f"--space {key}={values} is no LOW:HIGH with LOW below HIGH; with :log LOW is above 0.")
    if whole and not all(end.is_integer() for end in ends):
        raise RecipeError(f"--space {key}={values}: '{key}' takes whole numbers.")
    return Range(*ends, log=log, whole=whole)


def _ends(tried: Range | Choice) -> list[Any]:
    if isinstance(tried, Choice):
        return list(tried.values)
    return [int(end) if tried.whole else end for end in (tried.low, tried.high)]
