from pathlib import Path

import pytest

from schemas.image import encode_png
from schemas.model_comparison import Comparison
from tests.support import colour_images
from tests.support.bundles import write_bundle
from trainer.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 photos of 16x16: small ones are read at 8x8 by both."""
    data = colour_images.colours(60)
    for i, (image, label) in enumerate(zip(data.train.images, data.train.labels, strict=True)):
        file = tmp_path / "photos" / data.labels[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(image.repeat(2, axis=0).repeat(2, axis=1)))
    return tmp_path / "photos"


def test_two_bundles_are_compared_on_the_same_images(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second model always predicts the first class, because its output does not depend on the image."""
    good, bad = write_bundle(tmp_path), write_bundle(tmp_path, version=2, scale=0.0)
    assert main(["compare", str(bad), str(good), "--data", str(photos)]) == 0
    head, a, b, difference, verdict = capsys.readouterr().out.splitlines()
    assert head == "On photos, all images: 60 images"
    assert a.split()[:2] == ["A", "33.33%"]
    assert b.split()[:2] == ["B", "100.00%"]
    assert difference.startswith("B - A: +66.67 points (95% +")
    assert difference.endswith("correct only by A: 0 images, only by B: 40")
    assert verdict == f"{good} (fp32) is better than {bad} (fp32) by more than chance (p = 1.8e-12)."


def test_bundles_of_different_sizes_each_see_the_images_at_their_own(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_bundle(tmp_path)
    train = ["train", "photos", "--data", str(photos), "--artifacts", str(tmp_path / "artifacts"), "--epochs", "2"]
    train += ["--runs", str(tmp_path / "runs")]
    settings = ["data.input=16,16,3", "data.validation=0.2", "data.test=0.2", "batch_size=16", "precision=fp32"]
    network = ["--preset", "scratch", "--network", "plain", "--set", "network.widths=4", "--set", "network.dense=8"]
    assert main([*train, *network, *(word for each in settings for word in ("--set", each))]) == 0
    capsys.readouterr()
    large = tmp_path / "artifacts" / "photos-scratch"
    assert main(["compare", str(small), str(large), "--data", str(photos), "--json"]) == 0
    output = capsys.readouterr()
    assert f"{large / '1'} was trained on this data: scored on its recipe's test split" in output.err
    found = Comparison.model_validate_json(output.out)
    assert (found.n, found.a.accuracy) == (12, 1)


def test_bundles_of_other_labels_are_refused(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles = [write_bundle(tmp_path, version=version) for version in (1, 2)]
    manifest = bundles[1] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"blue"', '"teal"'))
    assert main(["compare", *map(str, bundles), "--data", str(photos)]) == 2
    assert f"{bundles[0]} has blue, {bundles[1]} does not" in capsys.readouterr().err
