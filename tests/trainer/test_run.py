import base64
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from schemas.bundle import Bundle, open_bundle
from schemas.manifest import Task
from schemas.metrics import measure
from schemas.promotion import read_promotion
from tests.support import colour_images, probe_runs
from tests.support.bundles import write_bundle
from tests.support.recorder import Recorder
from tests.support.training import train_bundle
from trainer.data.dataset import FakeSource
from trainer.data.split import split
from trainer.errors import ArtifactsError, NonFiniteError, RecipeError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.models.build import build_network
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe
from trainer.run import CheckpointOptions
from trainer.training.progress import Epoch

REPORT = {
    "history.csv",
    "curves.png",
    "confusion_matrix.png",
    "coverage.csv",
    "coverage.png",
    "reliability.png",
    "classification_report.json",
    "model.txt",
    "samples.png",
    "predictions.png",
    "mistakes.png",
    "predictions.csv",
    "report.html",
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return colour_images.recipe(seed=3, epochs=6)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    artifacts = tmp_path_factory.mktemp("artifacts")
    return train_bundle(recipe, artifacts)


def test_the_bundle_verifies_and_answers_its_golden_samples(trained: Bundle) -> None:
    bundle = open_bundle(trained.path)
    assert bundle.manifest == trained.manifest
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    bundle.check_signature(model.inputs, model.outputs)
    bundle.check_golden(bundle.manifest.fp32, model.probabilities)


def test_the_manifest_has_the_metrics_of_the_file_on_each_split(trained: Bundle, recipe: Recipe) -> None:
    bundle = open_bundle(trained.path)
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    splits = split(colour_images.source().load(), recipe.data)
    for part, recorded in (
        (splits.validation, bundle.manifest.metrics.validation),
        (splits.test, bundle.manifest.metrics.test),
    ):
        assert measure(part.labels, model.probabilities(part.images), bundle.manifest.labels) == recorded
    assert bundle.manifest.fp32.metrics.accuracy == bundle.manifest.metrics.test.accuracy


def test_the_manifest_records_recipe_data_and_libraries(trained: Bundle, recipe: Recipe) -> None:
    provenance = trained.manifest.provenance
    assert Recipe.model_validate(provenance.recipe) == recipe
    assert provenance.data.content_hash == colour_images.colours().content_hash()
    assert (provenance.data.train, provenance.data.validation, provenance.data.test) == (54, 18, 18)
    assert (provenance.seed, provenance.epochs, provenance.processes) == (3, 6, 1)
    assert 1 <= provenance.best_epoch <= 6
    commit = provenance.git_commit
    assert commit is None or len(commit.removesuffix("+")) == 40
    assert (commit is None) == (not (Path(__file__).parents[2] / ".git").exists())
    assert provenance.libraries["torch"] == torch.__version__.split("+")[0]


def test_the_report_is_complete(trained: Bundle) -> None:
    report = trained.path / "report"
    assert {file.name for file in report.iterdir()} == REPORT
    for picture in report.glob("*.png"):
        with Image.open(picture) as image:
            assert len(image.convert("L").getcolors() or range(256)) > 3, f"{picture.name} is blank"
    with (report / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert {"train_loss", "validation_loss", "train_accuracy", "validation_accuracy"} <= set(rows[0])
    figures = json.loads((report / "classification_report.json").read_text())
    assert figures["accuracy"] == trained.manifest.metrics.test.accuracy


def test_the_predictions_of_the_test_split_are_listed(trained: Bundle) -> None:
    with (trained.path / "report" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "prediction", "probability"]
    test = trained.manifest.metrics.test
    assert len(rows) == test.n
    assert {row["label"] for row in rows} == set(trained.manifest.labels)
    assert sum(row["label"] == row["prediction"] for row in rows) / len(rows) == pytest.approx(test.accuracy)
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)


def test_the_report_page_contains_every_picture(trained: Bundle) -> None:
    report = trained.path / "report"
    page = (report / "report.html").read_text()
    for picture in report.glob("*.png"):
        assert base64.b64encode(picture.read_bytes()).decode() in page
    assert f"{trained.manifest.metrics.test.accuracy:.2%}" in page


def test_the_bundle_holds_the_weights_of_the_network(trained: Bundle) -> None:
    weights = load_file(trained.path / "weights.safetensors")
    assert sum(tensor.numel() for name, tensor in weights.items() if "1.0.0.weight" in name) == 3 * 4 * 9


def test_the_card_states_the_measured_metrics(trained: Bundle) -> None:
    card = (trained.path / "README.md").read_text()
    test = trained.manifest.metrics.test
    assert card.startswith("---\n")
    assert f"{test.accuracy:.2%}" in card
    assert trained.manifest.provenance.data.content_hash in card
    assert "[batch, 8, 8, 3]" in card


def test_mistakes_are_drawn_if_there_are_any_and_if_there_are_none(trained: Bundle, tmp_path: Path) -> None:
    bad = colour_images.recipe(epochs=1, optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e-9))
    untrained = train_bundle(bad, tmp_path)
    assert untrained.manifest.metrics.test.accuracy < 1
    assert trained.manifest.metrics.test.accuracy == 1
    pictures = [(bundle.path / "report" / "mistakes.png").read_bytes() for bundle in (untrained, trained)]
    assert pictures[0] != pictures[1]


def test_a_failed_run_leaves_no_bundle(tmp_path: Path) -> None:
    wild = colour_images.recipe(optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e30))
    with pytest.raises(NonFiniteError):
        train_bundle(wild, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_after_training_keeps_the_weights_and_explains_how_to_continue(tmp_path: Path) -> None:
    """The model's folder disappears during training, so the bundle cannot be written; then it is back."""
    artifacts, runs = tmp_path / "artifacts", tmp_path / "runs"
    recipe = colour_images.recipe(epochs=2)

    class Blocking(Recorder):
        def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
            super().epoch(epoch, epochs, progress)
            if artifacts.is_dir():
                artifacts.rmdir()
            artifacts.write_text("a file, not a folder")

    artifacts.mkdir()
    with pytest.raises(ArtifactsError, match="not writable") as caught:
        train_bundle(recipe, artifacts, reporter=Blocking(), runs=CheckpointOptions(runs))
    assert caught.value.__notes__ == [
        f"The trained weights are in {runs / 'colours-1'}. Add --resume to the same command to export them."
    ]
    artifacts.unlink()
    recorder = Recorder()
    bundle = train_bundle(recipe, artifacts, reporter=recorder, runs=CheckpointOptions(runs, resume=True))
    assert recorder.epochs == []
    assert bundle.manifest.provenance.epochs == 2


def test_an_error_after_a_linear_probe_keeps_its_weights(tmp_path: Path) -> None:
    artifacts, runs = tmp_path / "artifacts", tmp_path / "runs"

    class Blocking(Recorder):
        def note(self, sentence: str) -> None:
            super().note(sentence)
            if sentence.startswith("linear probe"):
                artifacts.rmdir()
                artifacts.write_text("a file, not a folder")

    artifacts.mkdir()
    with pytest.raises(ArtifactsError, match="not writable") as caught:
        train_bundle(
            probe_runs.recipe(tmp_path),
            artifacts,
            probe_runs.source(60),
            reporter=Blocking(),
            runs=CheckpointOptions(runs),
        )
    file = runs / "colours-1" / "weights.safetensors"
    assert caught.value.__notes__ == [f"The trained weights are in {file}, from which --weights starts another run."]
    assert load_file(file)


def test_a_run_that_learnt_nothing_does_not_replace_the_version_that_serves(tmp_path: Path) -> None:
    """Without promoted.json the latest version serves, so the run has to record it."""
    write_bundle(tmp_path, version=2)
    recorder = Recorder()
    bad = colour_images.recipe(epochs=1, optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e-9))
    assert train_bundle(bad, tmp_path, reporter=recorder).manifest.version == 3
    record = read_promotion(tmp_path / "colours")
    assert record is not None
    assert record.version == 2
    assert (
        recorder.notes[-1]
        == "colours/3 stays a candidate, and colours/2 serves, because it is no better than guessing."
    )


def test_a_run_promotes_a_version_that_is_not_worse_and_only_then_reports_it(tmp_path: Path, recipe: Recipe) -> None:
    write_bundle(tmp_path, version=2)
    recorder = Recorder()
    train_bundle(recipe, tmp_path, reporter=recorder)
    record = read_promotion(tmp_path / "colours")
    assert record is not None
    assert record.comparison is not None
    assert (record.version, record.previous, record.comparison.n) == (3, 2, 18)
    assert recorder.notes[-1].startswith(
        "colours/3 is promoted. Accuracy on the same 18 test images: colours/2 100.00%"
    )


def test_a_run_reports_its_warnings(tmp_path: Path) -> None:
    recorder = Recorder()
    train_bundle(colour_images.recipe(epochs=1), tmp_path, reporter=recorder)
    assert any(note.startswith("warning: The test split has only 18 images") for note in recorder.notes)


def test_the_graph_normalises_as_the_training_split_does(trained: Bundle, recipe: Recipe) -> None:
    weights = load_file(trained.path / "weights.safetensors")
    images = split(colour_images.source().load(), recipe.data).train.images[:] / 255
    scale, shift = weights["0.scale"].numpy().ravel(), weights["0.shift"].numpy().ravel()
    assert np.allclose(1 / scale, images.std(axis=(0, 1, 2)), atol=1e-5)
    assert np.allclose(-shift / scale, images.mean(axis=(0, 1, 2)), atol=1e-5)


def test_a_sigmoid_is_exported_as_two_columns(tmp_path: Path) -> None:
    data = colour_images.colours(90)
    two = data.train.take(np.flatnonzero(data.train.labels < 2))
    pair = FakeSource(replace(data, labels=("red", "green"), train=two))
    bundle = train_bundle(colour_images.recipe(sigmoid=True, epochs=8), tmp_path, pair)
    assert bundle.manifest.task is Task.BINARY
    assert bundle.manifest.metrics.test.accuracy == 1
    probabilities = OnnxModel((bundle.path / "model.onnx").read_bytes()).probabilities(two.images)
    assert probabilities.shape == (60, 2)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_refuses_a_sigmoid_for_more_than_two_classes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="sigmoid=true is for two classes"):
        train_bundle(colour_images.recipe(sigmoid=True), tmp_path)


def test_without_a_sigmoid_the_task_is_multiclass(trained: Bundle) -> None:
    assert trained.manifest.task is Task.MULTICLASS


def test_test_time_views_are_averaged_inside_the_graph(tmp_path: Path) -> None:
    recipe = colour_images.recipe(seed=3, epochs=1, test_views="mirror")
    trained = train_bundle(recipe, tmp_path)
    data = split(colour_images.source().load(), recipe.data)
    network = build_network(recipe, data).eval()
    network.load_state_dict(load_file(trained.path / "weights.safetensors"))
    images = np.random.default_rng(0).integers(0, 256, (4, *data.input.shape), np.uint8)
    seen = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = ((network(seen) + network(seen.flip(3))) / 2).numpy()
    answered = OnnxModel((trained.path / "model.onnx").read_bytes()).logits(images)
    np.testing.assert_allclose(answered, expected, atol=1e-4)
    assert "averages its answer over test-time views: the image and its mirror image" in (
        trained.path / "README.md"
    ).read_text(encoding="utf-8")
