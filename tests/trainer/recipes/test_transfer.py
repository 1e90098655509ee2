from pathlib import Path

import pytest

from schemas.bundle import open_bundle
from tests.support.bundles import write_solid
from trainer.cli.main import main
from trainer.recipes.registry import find_recipe

COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for colour in COLOURS:
        for side in range(20, 30):
            write_solid(folder / colour / f"{side}.png", colour, (side, 40))
    return folder


def train(photos: Path, artifacts: Path, recipe: str, *settings: str) -> None:
    size = ["--set", "data.input.height=16", "--set", "data.input.width=16"]
    arguments = ["train", recipe, "--data", str(photos), "--artifacts", str(artifacts), "--batch-size", "8", *size]
    arguments += ["--runs", str(artifacts.parent / "runs")]
    assert main([*arguments, *settings]) == 0


def test_it_starts_from_a_bundle_trained_on_other_photos(photos: Path, tmp_path: Path) -> None:
    small = ["--preset", "scratch", "--network", "fast", "--set", "network.widths=8", "--epochs", "1"]
    train(photos, tmp_path / "art", "photos", "--name", "photos", *small)
    more = ["--weights", str(tmp_path / "art" / "photos"), "--epochs", "4", "--set", "data.test=0.3"]
    train(photos, tmp_path / "art", "transfer", "--name", "transfer", *more)
    first, second = (open_bundle(tmp_path / "art" / name / "1").manifest for name in ("photos", "transfer"))
    assert second.provenance.recipe["network"] == first.provenance.recipe["network"]
    transfer = second.provenance.recipe["transfer"]
    assert isinstance(transfer, dict)
    assert first.weights is not None
    assert (transfer["sha256"], transfer["head_epochs"]) == (first.weights.sha256, 5)


@pytest.mark.parametrize("name", ["photos", "cats-dogs"])
def test_photos_start_from_pretrained_weights_with_a_linear_probe(name: str) -> None:
    transfer = find_recipe(name, "default").transfer
    assert (transfer.weights, transfer.probe, transfer.fine_tune) == ("pretrained", True, "auto")
    assert transfer.body_rate < 1
    assert find_recipe(name, "scratch").transfer.weights is None
