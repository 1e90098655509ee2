import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from schemas.bundle import open_bundle
from schemas.manifest import Task
from schemas.metrics import measure
from tests.support import colour_images
from trainer.bundle.assemble import Trained
from trainer.data.dataset import FakeSource
from trainer.data.split import split
from trainer.errors import NonFiniteError, RecipeError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.models.build import build_network
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe
from trainer.run import train
from trainer.training.progress import LineReporter

CPU = torch.device("cpu")
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
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return colour_images.recipe(seed=3, epochs=6)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    artifacts = tmp_path_factory.mktemp("artifacts")
    with Path("/dev/null").open("w") as nowhere:
        return train(recipe, colour_images.source(), CPU, artifacts, LineReporter(nowhere))


def test_the_bundle_verifies_and_answers_its_golden_samples(trained: Trained) -> None:
    bundle = open_bundle(trained.path)
    assert bundle.manifest == trained.manifest
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    bundle.check_signature(model.inputs, model.outputs)
    bundle.check_golden(bundle.manifest.fp32, model.probabilities)


def test_the_manifest_gives_the_figures_of_the_file_on_each_split(trained: Trained, recipe: Recipe) -> None:
    bundle = open_bundle(trained.path)
    model = OnnxModel(bundle.read(bundle.manifest.fp32))
    splits = split(colour_images.source().load(), recipe.data)
    for part, said in (
        (splits.validation, bundle.manifest.metrics.validation),
        (splits.test, bundle.manifest.metrics.test),
    ):
        assert measure(part.labels, model.probabilities(part.images), bundle.manifest.labels) == said
    assert bundle.manifest.fp32.metrics.accuracy == bundle.manifest.metrics.test.accuracy


def test_the_manifest_says_where_the_model_is_from(trained: Trained, recipe: Recipe) -> None:
    provenance = trained.manifest.provenance
    assert Recipe.model_validate(provenance.recipe) == recipe
    assert provenance.data.content_hash == colour_images.colours().content_hash()
    assert (provenance.data.train, provenance.data.validation, provenance.data.test) == (54, 18, 18)
    assert (provenance.seed, provenance.epochs, provenance.processes) == (3, 6, 1)
    assert 1 <= provenance.best_epoch <= 6
    assert provenance.libraries["torch"] == torch.__version__.split("+")[0]


def test_the_report_is_whole(trained: Trained) -> None:
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


def test_the_weights_are_the_network_s(trained: Trained) -> None:
    weights = load_file(trained.path / "weights.safetensors")
    assert sum(tensor.numel() for name, tensor in weights.items() if "1.0.0.weight" in name) == 3 * 4 * 9


def test_the_card_states_the_measured_figures(trained: Trained) -> None:
    card = (trained.path / "README.md").read_text()
    test = trained.manifest.metrics.test
    assert card.startswith("---\n")
    assert f"{test.accuracy:.2%}" in card
    assert trained.manifest.provenance.data.content_hash in card
    assert "[batch, 8, 8, 3]" in card


def test_a_wrong_answer_and_none_at_all_both_make_a_page_of_mistakes(trained: Trained, tmp_path: Path) -> None:
    bad = colour_images.recipe(epochs=1, optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e-9))
    with Path("/dev/null").open("w") as nowhere:
        untrained = train(bad, colour_images.source(), CPU, tmp_path, LineReporter(nowhere))
    assert untrained.manifest.metrics.test.accuracy < 1
    assert trained.manifest.metrics.test.accuracy == 1
    pictures = [(bundle.path / "report" / "mistakes.png").read_bytes() for bundle in (untrained, trained)]
    assert pictures[0] != pictures[1]


def test_a_failed_run_leaves_no_bundle(tmp_path: Path) -> None:
    wild = colour_images.recipe(optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=1e30))
    with Path("/dev/null").open("w") as nowhere, pytest.raises(NonFiniteError):
        train(wild, colour_images.source(), CPU, tmp_path, LineReporter(nowhere))
    assert list(tmp_path.iterdir()) == []


def test_normalisation_inside_the_graph_is_that_of_the_training_split(trained: Trained, recipe: Recipe) -> None:
    weights = load_file(trained.path / "weights.safetensors")
    images = split(colour_images.source().load(), recipe.data).train.images[:] / 255
    scale, shift = weights["0.scale"].numpy().ravel(), weights["0.shift"].numpy().ravel()
    assert np.allclose(1 / scale, images.std(axis=(0, 1, 2)), atol=1e-5)
    assert np.allclose(-shift / scale, images.mean(axis=(0, 1, 2)), atol=1e-5)


def test_a_sigmoid_makes_a_binary_bundle_of_two_columns(tmp_path: Path) -> None:
    data = colour_images.colours(90)
    two = data.train.take(np.flatnonzero(data.train.labels < 2))
    pair = FakeSource(replace(data, labels=("red", "green"), train=two))
    with Path("/dev/null").open("w") as nowhere:
        bundle = train(colour_images.recipe(sigmoid=True, epochs=8), pair, CPU, tmp_path, LineReporter(nowhere))
    assert bundle.manifest.task is Task.BINARY
    assert bundle.manifest.metrics.test.accuracy == 1
    probabilities = OnnxModel((bundle.path / "model.onnx").read_bytes()).probabilities(two.images)
    assert probabilities.shape == (60, 2)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_sigmoid_is_refused_for_more_than_two_classes(tmp_path: Path) -> None:
    with Path("/dev/null").open("w") as nowhere, pytest.raises(RecipeError, match="sigmoid=true is for two classes"):
        train(colour_images.recipe(sigmoid=True), colour_images.source(), CPU, tmp_path, LineReporter(nowhere))


def test_without_a_sigmoid_the_task_is_multiclass(trained: Trained) -> None:
    assert trained.manifest.task is Task.MULTICLASS


def test_a_bundle_averaged_over_views_answers_as_their_mean_and_says_so(tmp_path: Path) -> None:
    recipe = colour_images.recipe(seed=3, epochs=1, test_views="mirror")
    with Path("/dev/null").open("w") as nowhere:
        trained = train(recipe, colour_images.source(), CPU, tmp_path, LineReporter(nowhere))
    data = split(colour_images.source().load(), recipe.data)
    network = build_network(recipe, data).eval()
    network.load_state_dict(load_file(trained.path / "weights.safetensors"))
    images = np.random.default_rng(0).integers(0, 256, (4, *data.input.shape), np.uint8)
    seen = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = ((network(seen) + network(seen.flip(3))) / 2).numpy()
    answered = OnnxModel((trained.path / "model.onnx").read_bytes()).logits(images)
    np.testing.assert_allclose(answered, expected, atol=1e-4)
    assert "averaged over test-time views inside the graph: the image and its mirror" in (
        trained.path / "README.md"
    ).read_text(encoding="utf-8")
