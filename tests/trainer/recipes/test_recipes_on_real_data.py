"""Each recipe, for a few steps on a slice of its own data: it trains, and its bundle passes the checks."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.recorder import CPU, Recorder
from tests.support.training import train_bundle
from trainer.data.dataset import FakeSource, LabelledImages, SourceData
from trainer.data.detect import open_source
from trainer.data.split import split
from trainer.evaluation.onnx_session import OnnxModel
from trainer.models.build import build_network
from trainer.network_config import NETWORKS, BackboneConfig
from trainer.recipe import DataConfig, Precision, Recipe, Source, TransferConfig, with_settings
from trainer.recipes.registry import RECIPES, presets
from trainer.training.loop import fit

pytestmark = pytest.mark.slow

PLACES = {Source.CSV: "cats-dogs", Source.FOLDER: "flowers"}
EVERY_PRESET = [(name, preset) for name in RECIPES for preset in presets(name)]
A_CLASS = 12


@cache
def read(config: DataConfig, data: Path) -> SourceData:
    source = open_source(config, data / PLACES.get(config.source, ""))
    return source.load()


def slice_of(part: LabelledImages) -> LabelledImages:
    """The first images of each class."""
    return part.take(np.concatenate([np.flatnonzero(part.labels == i)[:A_CLASS] for i in np.unique(part.labels)]))


def few_steps(name: str, preset: str, data: Path) -> tuple[Recipe, FakeSource]:
    settings = {
        "epochs": 1,
        "max_seconds": 0,
        "batch_size": 16,
        "data.validation": 0.25,
        "data.test": 0.25,
        "variants": (),
    }
    recipe = with_settings(presets(name)[preset], settings)
    if isinstance(recipe.network, BackboneConfig):
        recipe = with_settings(recipe, {"data.input": "64,64,3"})
    if recipe.transfer.weights is not None:  # which take long to read
        recipe = recipe.model_copy(update={"transfer": TransferConfig()})
    whole = read(recipe.data, data)
    test = slice_of(whole.test) if whole.test is not None else None
    return recipe, FakeSource(replace(whole, train=slice_of(whole.train), test=test))


@pytest.mark.parametrize(("name", "preset"), EVERY_PRESET)
def test_a_few_steps_change_the_weights(name: str, preset: str, real_data: Path) -> None:
    recipe, source = few_steps(name, preset, real_data)
    data = split(source.load(), recipe.data)
    torch.manual_seed(0)
    network = build_network(recipe, data)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fitted = fit(network, data, recipe, CPU, Recorder())
    assert np.isfinite(fitted.history[0].train_loss)
    assert any(not torch.equal(value, before[key]) for key, value in fitted.network.state_dict().items())


@pytest.mark.parametrize("name", ["cifar10", "cats-dogs", "photos"])
def test_the_bundle_passes_its_golden_check_and_records_the_recipe(name: str, real_data: Path, tmp_path: Path) -> None:
    recipe, source = few_steps(name, "default", real_data)
    bundle = train_bundle(recipe, tmp_path, source)
    bundle.check_golden(bundle.manifest.fp32, OnnxModel(bundle.read(bundle.manifest.fp32)).probabilities)
    recorded = Recipe.model_validate(bundle.manifest.provenance.recipe)
    assert recorded == recipe.model_copy(update={"precision": recorded.precision})  # auto has become a choice
    assert recorded.precision is not Precision.AUTO


@pytest.mark.parametrize("network", NETWORKS)
def test_photos_train_with_any_network(network: str, real_data: Path) -> None:
    recipe, source = few_steps("photos", "default", real_data)
    recipe = with_settings(recipe, {"network": network})
    data = split(source.load(), recipe.data)
    assert len(fit(build_network(recipe, data), data, recipe, CPU, Recorder()).history) == 1
