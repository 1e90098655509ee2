"""python -m trainer import: from a file of another exporter to a bundle that serves."""

import argparse
import json
from pathlib import Path

import pytest

from schemas.bundle import open_bundle
from tests.support.service_process import serving_bundles
from trainer.cli.argument_types import deviations
from trainer.cli.import_model import read_labels
from trainer.cli.main import main
from trainer.errors import DataError

MADE = Path(__file__).parents[1] / "export" / "made_elsewhere"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("\n".join("0123456789") + "\n")
    return file


def imported(model: str, labels: Path, *more: str) -> int:
    artifacts = str(labels.parent / "artifacts")
    begin = ["import", str(MADE / model), "--name", "digits", "--labels", str(labels), "--data", "digits"]
    return main([*begin, "--artifacts", artifacts, *more])


def test_an_imported_model_serves(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported("keras.onnx", labels) == 0
    output = capsys.readouterr()
    assert "images of 8x8x1, nhwc, 10 classes, logits" in output.err
    assert "normalisation: pixels from 0 to 255" in output.err
    assert "test accuracy 9" in output.out
    bundle = open_bundle(labels.parent / "artifacts" / "digits" / "1")
    manifest = bundle.manifest
    assert manifest.metrics.test.accuracy > 0.9
    assert manifest.weights is None
    assert manifest.fp32.parity.argmax_agreement == 1
    card = (bundle.path / "README.md").read_text()
    assert "Imported from `keras.onnx`" in card
    assert "![confusion matrix](report/confusion_matrix.png)" in card
    sample = bundle.golden_samples()[0]
    with serving_bundles(labels.parent / "artifacts") as service, service.client() as client:
        answer = client.post("/predict", content=sample.image, headers={"Content-Type": "image/png"})
    assert answer.json()["predictions"][0]["label"] == manifest.labels[int(sample.probabilities.argmax())]


def test_the_normalisation_can_be_given(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported("scikit_learn.onnx", labels, "--input", "8,8,1", "--mean", "0", "--std", "1") == 0
    assert "taken:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--std", "1"], "--mean and --std go together"),
        (["--input", "9,9,1"], "does not fit --input 9,9,1"),
        (["--source", "npz"], "holds no npz data"),
    ],
)
def test_wrong_options_are_reported(
    labels: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported("keras.onnx", labels, *arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "1,0,1", "-1"])
def test_a_standard_deviation_must_be_positive(text: str) -> None:
    assert deviations("0.5,1,2") == (0.5, 1, 2)
    with pytest.raises(argparse.ArgumentTypeError, match="must be above 0"):
        deviations(text)


def test_a_wrong_number_of_labels_is_reported(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels.write_text("a\nb\n")
    assert imported("keras.onnx", labels) == 2
    assert "has 10 outputs, but" in capsys.readouterr().err


def test_data_with_other_labels_is_reported(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels.write_text("\n".join("abcdefghij"))
    assert imported("keras.onnx", labels) == 2
    assert "digits has images of '0', which is not among the labels of the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "cat\n dog \n",
        "\ufeffcat\r\ndog",
        '["cat", "dog"]',
        '{"0": "cat", "1": "dog"}',
        json.dumps({"id2label": {"0": "cat", "1": "dog"}, "other": 1}),
    ],
)
def test_labels_are_read_from_lines_and_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels") == ("cat", "dog")


@pytest.mark.parametrize("text", ["", "cat", "cat\ncat", "cat\n\ndog", '{"1": "cat", "2": "dog"}', '["cat"', "{}"])
def test_refuses_invalid_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels").write_text(text)
    with pytest.raises(DataError, match="labels"):
        read_labels(tmp_path / "labels")
