import json
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.evaluation import Metrics
from tests.support import colour_images
from tests.support.bundles import write_bundle
from trainer.cli.main import main


def test_digits_are_scored_on_their_test_split_as_the_manifest_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--artifacts", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main(["train", "digits", "--epochs", "1", *where]) == 0
    manifest = open_bundle(tmp_path / "digits" / "1").manifest
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "digits"), "--data", "digits", "--json"]) == 0
    output = capsys.readouterr()
    assert Metrics.model_validate_json(output.out) == manifest.metrics.test
    assert "was trained on this data: scored on its recipe's test split" in output.err
    assert "warning: of these" not in output.err
    assert main(["evaluate", str(tmp_path / "digits"), "--data", "digits", "--split", "all", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["n"] == 1797
    assert "was trained on 1,258 and selected on 360" in output.err


def test_a_table_gives_the_figures_by_class_and_names_the_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = colour_images.colours(60).train
    data = data.take(np.flatnonzero(data.labels != 1))
    np.savez(tmp_path / "mine.npz", images=data.images[:], labels=data.labels)
    arguments = ["evaluate", str(write_bundle(tmp_path)), "--data", str(tmp_path / "mine.npz")]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "was not trained on this data: scored on all images" in output.err
    head, accuracy, *_ = output.out.splitlines()
    assert head.endswith("colours/1 (fp32) on mine, all images: 40 images")
    assert accuracy.split() == ["accuracy", "100.00%", "(95%", "91.24%", "to", "100.00%)"]
    rows = [line.split() for line in output.out.splitlines() if line.startswith(("red", "green", "blue"))]
    assert rows == [[name, "20", "1.0000", "1.0000", "1.0000"] for name in ("red", "blue")]
    assert "No images of green" in output.out
    assert main([*arguments, "--split", "test"]) == 0
    assert "test split: 4 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data", "nowhere"], "No data found at 'nowhere'"),
        (["--data", "digits"], "digits has the label '0', which"),
        (["--data", "digits", "--source", "npz"], "'digits' holds no npz data, but digits"),
        (["--data", "digits", "--variant", "fp16"], "has no variant fp16. Its variants are fp32"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(["evaluate", str(write_bundle(tmp_path)), *arguments]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert named in last
