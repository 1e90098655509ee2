from pathlib import Path

import pytest

from schemas.bundle import open_bundle
from tests.support.bundles import solid
from trainer.cli.main import main
from trainer.recipes.registry import find_recipe

COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for side in range(20, 30):
            (folder / colour / f"{side}.png").write_bytes(solid(colour, (side, 40)))
    return folder


def train(photos: Path, artifacts: Path, recipe: str, *settings: str) -> None:
    size = ["--set", "data.input.height=16", "--set", "data.input.width=16"]
    arguments = ["train", recipe, "--data", str(photos), "--artifacts", str(artifacts), "--batch-size", "8", *size]
    arguments += ["--runs", str(artifacts.parent / "runs")]
    assert main([*arguments, *settings]) == 0


def test_it_starts_from_a_bundle_trained_on_other_photos(photos: Path, tmp_path: Path) -> None:
    small = ["--network", "fast", "--set", "network.widths=8", "--epochs", "1"]
    train(photos, tmp_path / "art", "photos", *small)
    train(photos, tmp_path / "art", "transfer", "--weights", str(tmp_path / "art" / "photos"), "--epochs", "4")
    first, second = (open_bundle(tmp_path / "art" / name / "1").manifest for name in ("photos", "transfer"))
    assert second.provenance.recipe["network"] == first.provenance.recipe["network"]
    transfer = second.provenance.recipe["transfer"]
    assert isinstance(transfer, dict)
    assert (transfer["sha256"], transfer["head_epochs"]) == (first.weights.sha256, 3)


def test_by_default_it_starts_from_published_weights_and_trains_the_head_first_and_the_body_slower() -> None:
    transfer = find_recipe("transfer", "default").transfer
    assert transfer.weights == "pretrained"
    assert transfer.head_epochs > 0
    assert transfer.body_rate < 1
