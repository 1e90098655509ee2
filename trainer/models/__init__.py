"""The networks, by name. Each file holds one network and the frozen config that builds it."""

from typing import Annotated

from pydantic import Field

from trainer.errors import RecipeError
from trainer.models.fast import FastConfig
from trainer.models.inception import InceptionConfig
from trainer.models.plain import PlainConfig

AnyNetwork = PlainConfig | InceptionConfig | FastConfig
NetworkConfig = Annotated[AnyNetwork, Field(discriminator="name")]

NETWORKS: dict[str, type[PlainConfig | InceptionConfig | FastConfig]] = {
    "plain": PlainConfig,
    "inception": InceptionConfig,
    "fast": FastConfig,
}


def network_named(name: str) -> AnyNetwork:
    """The network's config with its defaults. Raises RecipeError naming the known ones."""
    if name not in NETWORKS:
        raise RecipeError(f"There is no network '{name}'; known are {', '.join(NETWORKS)}.")
    return NETWORKS[name]()
