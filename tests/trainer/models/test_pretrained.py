import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from schemas.errors import HashMismatchError
from tests.support import colour_images
from tests.support.training import train_bundle
from trainer.data.split import Splits, split
from trainer.errors import DataError
from trainer.models.build import build_network
from trainer.models.layers import Shape
from trainer.models.pretrained import as_run, starting_weights
from trainer.models.registry import build
from trainer.network_config import AnyNetwork, FastConfig, MobileNetV3SmallConfig, PlainConfig, ResNet18Config, Stem
from trainer.recipe import Recipe, TransferConfig
from trainer.recipes.registry import network_of_bundle

CPU = torch.device("cpu")
FAST = FastConfig(widths=(4,), whitening_stride=1)


def recipe_from(weights: Path | str, network: AnyNetwork, **changes: object) -> Recipe:
    return colour_images.recipe(network=network, transfer=TransferConfig(weights=str(weights)), **changes)


def other_data() -> Splits:
    """Not those that the bundle was trained on: fewer, so that their mean and deviation differ."""
    return split(colour_images.source(60).load(), colour_images.recipe().data)


def built(recipe: Recipe) -> nn.Sequential:
    start = starting_weights(recipe)
    torch.manual_seed(1)
    network = build_network(as_run(recipe, start), other_data(), start)
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


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's are, with its names and a thousand classes."""
    path = tmp_path_factory.mktemp("published") / "mobilenet.safetensors"
    shape = Shape(height=64, width=64, channels=3, classes=1000)
    network = build(MobileNetV3SmallConfig(), shape)
    save_file({key: value for key, value in network.state_dict().items() if "num_batches" not in key}, path)
    return path


def test_a_state_dict_of_torchvision_brings_its_stem_and_its_normalisation(published: Path) -> None:
    recipe = recipe_from(published, MobileNetV3SmallConfig())
    assert as_run(recipe, starting_weights(recipe)).network == MobileNetV3SmallConfig(stem=Stem.PUBLISHED)
    # A stem that is asked for stays, and images of 8x8 need the small one.
    network = built(recipe_from(published, MobileNetV3SmallConfig(stem=Stem.SMALL)))
    given = load_file(published)
    equal = [torch.equal(value, given[key]) for key, value in network[1].state_dict().items() if key in given]
    assert equal.count(False) == 2  # the head's weight and bias
    assert network[1].get_submodule("classifier.3").weight.shape == (3, 1024)
    normalise = network[0].state_dict()
    mean = (-normalise["shift"] / normalise["scale"]).ravel()
    assert torch.allclose(mean, torch.tensor([0.485, 0.456, 0.406]))
    assert torch.allclose((1 / normalise["scale"]).ravel(), torch.tensor([0.229, 0.224, 0.225]))


def test_the_recipe_as_run_names_the_weights_and_their_hash(bundle: Path) -> None:
    recipe = recipe_from(bundle, FAST)
    start = starting_weights(recipe)
    run = as_run(recipe, start)
    assert start is not None
    assert run.transfer == TransferConfig(weights=str(bundle), sha256=start.sha256)
    assert starting_weights(run) is not None
    other = run.transfer.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match=r"not transfer\.sha256 = 0000"):
        starting_weights(run.model_copy(update={"transfer": other}))
    assert as_run(colour_images.recipe(), None) == colour_images.recipe()


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
        (PlainConfig(widths=(4,)), r"another network: they lack the tensor '0\.0\.weight'. Choose the --network"),
        (FastConfig(widths=(4,), whitening_stride=1, residual=True), r"lack the tensor 'groups\.0\.last\.0\.weight'"),
        (FastConfig(widths=(5,), whitening_stride=1), r"'groups\.0\.down\.0\.weight' is 4x54x3x3 but must be 5x54"),
    ],
)
def test_weights_that_do_not_fit_are_named_by_their_first_tensor(bundle: Path, network: AnyNetwork, named: str) -> None:
    with pytest.raises(DataError, match=named):
        built(recipe_from(bundle, network))


def test_a_tensor_too_many_is_named(bundle: Path, tmp_path: Path) -> None:
    tensors = load_file(bundle / "weights.safetensors") | {"1.groups.1.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "more.safetensors")
    with pytest.raises(DataError, match=r"have the unknown tensor 'groups\.1\.weight'"):
        built(recipe_from(tmp_path / "more.safetensors", FAST))


def test_weights_for_grey_images_are_refused_for_colour(tmp_path: Path) -> None:
    grey = build(ResNet18Config(stem=Stem.SMALL), Shape(height=8, width=8, channels=1, classes=3))
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    with pytest.raises(DataError, match=r"for grey images .* these are RGB. Set data\.input\.channels=1"):
        built(recipe_from(tmp_path / "grey.safetensors", ResNet18Config(stem=Stem.SMALL)))


def test_a_file_that_is_not_there_or_holds_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"weights nowhere cannot be read \(No such file"):
        starting_weights(recipe_from("nowhere", FAST))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights\.pth is not a safetensors file .* pickled files are never loaded"):
        starting_weights(recipe_from(tmp_path / "weights.pth", FAST))
    with pytest.raises(DataError, match="is not a bundle"):
        starting_weights(recipe_from(tmp_path, FAST))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No way out, whether the machine has a network or not, and an empty folder for downloads."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_pretrained_weights_that_cannot_be_downloaded_are_said_with_what_to_do(offline: Path) -> None:
    with pytest.raises(DataError) as caught:
        starting_weights(recipe_from("pretrained", ResNet18Config()))
    sentence = str(caught.value)
    for part in (
        "resnet18",
        str(offline),
        "https://download.pytorch.org/",
        "urlopen error",
        "give --weights a safetensors file",
    ):
        assert part in sentence
    assert "\n" not in sentence


def test_a_download_that_is_not_what_was_published_is_refused(offline: Path) -> None:
    offline.mkdir(parents=True)
    torch.save(build(ResNet18Config(), Shape(height=64, width=64, channels=3, classes=3)).state_dict(), offline / "it")
    (offline / "it").rename(offline / "resnet18-f37072fd.pth")
    with pytest.raises(DataError, match=r"resnet18-f37072fd\.pth .* sha256 is not the published one"):
        starting_weights(recipe_from("pretrained", ResNet18Config()))


def test_a_network_that_nobody_published_weights_of_has_no_pretrained_ones() -> None:
    with pytest.raises(DataError, match="no pretrained weights for the network fast"):
        starting_weights(recipe_from("pretrained", FAST))
