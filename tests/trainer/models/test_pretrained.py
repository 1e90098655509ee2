import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from schemas.errors import HashMismatchError
from schemas.image import decode_image
from tests.support import colour_images
from tests.support.training import train_bundle
from trainer.data.dataset import Labels
from trainer.data.split import Splits, split
from trainer.errors import DataError, RecipeError
from trainer.export.onnx import network_logits
from trainer.models.backbones import TIMM_NAMES, own_input, own_normalisation
from trainer.models.build import build, build_network
from trainer.models.layers import Shape
from trainer.models.pretrained import packaged_tensors, starting_weights, with_weights_hash
from trainer.network_config import PACKAGED, AnyNetwork, BackboneConfig, FastConfig, PlainConfig, unknown_network
from trainer.recipe import Recipe, TransferConfig
from trainer.recipes.registry import network_of_bundle

ROOT = Path(__file__).parents[3]
DAISY = 985  # its class in ImageNet
CPU = torch.device("cpu")
FAST = FastConfig(widths=(4,), whitening_stride=1)
SMALL = BackboneConfig(name="test_resnet")


def recipe_from(weights: Path | str, network: AnyNetwork, **changes: object) -> Recipe:
    return colour_images.recipe(network=network, transfer=TransferConfig(weights=str(weights)), **changes)


def other_data() -> Splits:
    """Returns fewer images than the bundle was trained on, so that their mean and deviation differ."""
    return split(colour_images.source(60).load(), colour_images.recipe().data)


def built(recipe: Recipe) -> nn.Sequential:
    start = starting_weights(recipe)
    torch.manual_seed(1)
    network = build_network(with_weights_hash(recipe, start), other_data(), start)
    assert isinstance(network, nn.Sequential)
    return network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bundle(colour_images.recipe(network=FAST, epochs=1), tmp_path_factory.mktemp("artifacts")).path


def same(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, bool]:
    return {name: torch.equal(value, tensors[name]) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("place", [".", "..", "weights.safetensors"])
def test_from_a_bundle_come_its_body_and_its_normalisation_but_not_its_head(bundle: Path, place: str) -> None:
    equal = same(built(recipe_from(bundle / place, FAST)), load_file(bundle / "weights.safetensors"))
    assert [name for name, is_same in equal.items() if not is_same] == ["1.head.weight"]
    assert {"0.scale", "0.shift", "1.whitening.weight"} <= set(equal)


def test_the_network_comes_out_of_a_bundle(bundle: Path) -> None:
    assert network_of_bundle(str(bundle)) == network_of_bundle(str(bundle.parent)) == FAST
    assert network_of_bundle(str(bundle / "weights.safetensors")) is None


def imagenet_answers(folder: Path) -> Labels:
    """The classes of ImageNet that the packaged weights give to the photos of a folder."""
    network = timm.create_model(TIMM_NAMES[PACKAGED])
    network.load_state_dict(packaged_tensors())
    spec = own_input(BackboneConfig(name=PACKAGED))
    photos = np.stack([decode_image(file.read_bytes(), spec) for file in sorted(folder.iterdir())])
    classifier = nn.Sequential(own_normalisation(BackboneConfig(name=PACKAGED)), network).eval()
    answers: Labels = network_logits(classifier, photos).argmax(axis=1)
    return answers


def test_the_packaged_weights_tell_daisies_from_roses(real_data: Path) -> None:
    photos = real_data / "photos-sample"
    assert (imagenet_answers(photos / "daisy") == DAISY).mean() > 0.7
    assert (imagenet_answers(photos / "rose") == DAISY).mean() < 0.3


def test_the_default_backbone_starts_from_the_packaged_weights_without_a_network_connection(tmp_path: Path) -> None:
    network = built(recipe_from("pretrained", BackboneConfig(name=PACKAGED)))
    tensors = packaged_tensors()
    own = {name: value for name, value in network[1].state_dict().items() if name.startswith("body.")}
    assert len(own) == len(tensors) - 2  # the classifier's weight and bias
    assert all(torch.equal(value, tensors[name.removeprefix("body.")]) for name, value in own.items())
    assert network[1].frozen_norms  # 60 images are too few for statistics


def test_a_state_dict_of_timm_brings_its_normalisation_and_leaves_its_classifier(tmp_path: Path) -> None:
    path = tmp_path / "timm.safetensors"
    save_file(timm.create_model(SMALL.name).state_dict(), path)
    network = built(recipe_from(path, SMALL))
    given = load_file(path)
    assert all(
        torch.equal(value, given[name.removeprefix("body.")])
        for name, value in network[1].state_dict().items()
        if name.startswith("body.")
    )
    assert len(network.state_dict()["1.head.weight"]) == 3
    assert torch.equal(network.state_dict()["0.shift"], own_normalisation(SMALL).shift)


def test_keep_head_continues_with_the_head_of_a_bundle_of_the_same_labels(bundle: Path) -> None:
    transfer = TransferConfig(weights=str(bundle), keep_head=True)
    recipe = colour_images.recipe(network=FAST, transfer=transfer)
    assert all(same(built(recipe), load_file(bundle / "weights.safetensors")).values())


def test_keep_head_refuses_a_bundle_of_other_labels(bundle: Path) -> None:
    recipe = colour_images.recipe(network=FAST, transfer=TransferConfig(weights=str(bundle), keep_head=True))
    data = replace(other_data(), labels=("green", "blue", "red"))
    with pytest.raises(DataError, match=r"labels of the data \(green, blue, red\), but .* has the labels red, green"):
        build_network(recipe, data, starting_weights(recipe))


def test_the_recipe_as_run_names_the_weights_and_their_hash(bundle: Path) -> None:
    recipe = recipe_from(bundle, FAST)
    start = starting_weights(recipe)
    run = with_weights_hash(recipe, start)
    assert start is not None
    assert run.transfer == TransferConfig(weights=str(bundle), sha256=start.sha256)
    assert starting_weights(run) is not None
    other = run.transfer.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match=r"not transfer\.sha256 = 0000"):
        starting_weights(run.model_copy(update={"transfer": other}))
    assert with_weights_hash(colour_images.recipe(), None) == colour_images.recipe()


def test_a_bundle_of_damaged_weights_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "colours" / "1")
    damaged = bytearray((copy / "weights.safetensors").read_bytes())
    damaged[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(damaged)
    with pytest.raises(HashMismatchError, match=r"weights\.safetensors"):
        starting_weights(recipe_from(copy, FAST))


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (PlainConfig(widths=(4,)), r"another network: they lack the tensor '0\.0\.weight'\. Give the --network"),
        (FastConfig(widths=(4,), whitening_stride=1, residual=True), r"lack the tensor 'groups\.0\.last\.0\.weight'"),
        (FastConfig(widths=(5,), whitening_stride=1), r"'groups\.0\.down\.0\.weight' is 4x54x3x3 instead of 5x54"),
    ],
)
def test_weights_that_do_not_fit_are_named_by_their_first_tensor(bundle: Path, network: AnyNetwork, named: str) -> None:
    with pytest.raises(DataError, match=named):
        built(recipe_from(bundle, network))


def test_a_tensor_too_many_is_named(bundle: Path, tmp_path: Path) -> None:
    tensors = load_file(bundle / "weights.safetensors") | {"1.groups.1.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "more.safetensors")
    with pytest.raises(DataError, match=r"have an unknown tensor 'groups\.1\.weight'"):
        built(recipe_from(tmp_path / "more.safetensors", FAST))


def test_weights_for_grey_images_are_refused_for_colour(tmp_path: Path) -> None:
    grey = build(PlainConfig(widths=(4,), dense=None), Shape(height=8, width=8, channels=1, classes=3))
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    with pytest.raises(DataError, match=r"for grey images .* the data is RGB\. Set data\.input\.channels=1"):
        built(recipe_from(tmp_path / "grey.safetensors", PlainConfig(widths=(4,), dense=None)))


def test_names_a_file_that_is_missing_or_holds_no_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="weights nowhere do not exist"):
        starting_weights(recipe_from("nowhere", FAST))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights\.pth is not a file of safetensors .* unpickles nothing"):
        starting_weights(recipe_from(tmp_path / "weights.pth", FAST))
    with pytest.raises(DataError, match="is not a bundle"):
        starting_weights(recipe_from(tmp_path, FAST))


def test_without_a_network_connection_one_sentence_names_the_alternatives(tmp_path: Path) -> None:
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    network = ["--network", "resnet18", "--weights", "pretrained", "--set", "data.input=64,64,1"]
    command = [sys.executable, "-m", "trainer", "train", "digits", *network]
    ended = subprocess.run(command, env=os.environ | unreachable, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    for part in ("weights of resnet18", "Connection refused", "--weights FILE.safetensors", "needs no download"):
        assert part in last


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("efficientnet_lite", "Did you mean efficientnet_lite0 or efficientnet_lite1 or"),
        ("mobilenet", "Did you mean mobilenet"),
        ("zzzz", "List the names with timm.list_models()."),
    ],
)
def test_the_names_that_begin_as_an_unknown_one_are_suggested_first(name: str, hint: str) -> None:
    assert hint in str(unknown_network(name))


def test_a_network_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(DataError, match="no pretrained weights for the network fast"):
        starting_weights(recipe_from("pretrained", FAST))
    with pytest.raises(RecipeError, match=r"Unknown network 'resnet_18'\. Did you mean resnet18 or"):
        starting_weights(recipe_from("pretrained", BackboneConfig(name="resnet_18")))
