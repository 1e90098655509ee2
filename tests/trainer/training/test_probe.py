from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.support import probe_runs
from tests.support.recorder import CPU, Recorder
from tests.support.training import train_bundle
from trainer.data.split import Splits, split
from trainer.export.onnx import network_logits
from trainer.models.build import build_network
from trainer.models.layers import as_input
from trainer.models.pretrained import starting_weights
from trainer.recipe import Recipe
from trainer.run import CheckpointOptions
from trainer.training.features import Features, compute_features
from trainer.training.probe import FeatureProblem, Probe, body_of, fit_probe


def fitted(recipe: Recipe, data: Splits, cache: Path | None = None) -> tuple[Probe, torch.nn.Sequential, Recorder]:
    torch.manual_seed(1)
    network = build_network(recipe, data, starting_weights(recipe))
    assert isinstance(network, torch.nn.Sequential)
    reporter = Recorder()
    return fit_probe(network, data, recipe, CPU, reporter, cache), network.eval(), reporter


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_network_answers_with_the_logits_that_validation_judged(tmp_path: Path, sigmoid: bool) -> None:
    recipe = probe_runs.recipe(tmp_path).model_copy(update={"sigmoid": sigmoid})
    data = split(probe_runs.source(150, classes=2).load(), recipe.data)
    probe, network, _ = fitted(recipe, data)
    assert probe.folds == 0
    logits = network_logits(network, np.asarray(data.validation.images))
    assert np.array_equal(probe.held.labels, data.validation.labels)
    margin, expected = (each[:, 1] - each[:, 0] for each in (logits, probe.held.logits))
    assert np.allclose(margin, expected, atol=1e-3)
    assert probe.held.accuracy > 0.9


def test_few_images_are_validated_by_folds_and_all_learnt_from(tmp_path: Path) -> None:
    recipe = probe_runs.recipe(tmp_path)
    data = split(probe_runs.source(60).load(), recipe.data)
    probe, _, reporter = fitted(recipe, data)
    assert probe.folds == 5
    assert len(probe.held.labels) == len(data.train) + len(data.validation)
    assert "in 5-fold cross-validation (95% interval" in reporter.notes[-1]


def test_two_images_per_class_make_a_bundle(tmp_path: Path) -> None:
    bundle = train_bundle(probe_runs.recipe(tmp_path), tmp_path, probe_runs.source(6))
    (step,) = bundle.manifest.provenance.steps
    assert step.folds == 2
    assert bundle.manifest.metrics.validation.n == step.validation_images
    card = (bundle.path / "README.md").read_text()
    assert "3 of 3 test images are also training images" in card
    assert "After cross-validation, the last layer learnt from the training and the validation images." in card
    assert "on the validation split" not in card


def test_the_bundle_holds_the_probe_and_its_cost(tmp_path: Path) -> None:
    bundle = train_bundle(probe_runs.recipe(tmp_path), tmp_path, probe_runs.source(150))
    assert bundle.manifest.metrics.test.accuracy > 0.9
    (step,) = bundle.manifest.provenance.steps
    assert (step.name, step.kept) == ("linear probe", True)
    assert step.validation_accuracy == bundle.manifest.metrics.validation.accuracy
    assert not any("could not be made" in variant.reason for variant in bundle.manifest.dropped_variants)
    card = (bundle.path / "README.md").read_text()
    assert f"- {step.sentence}" in card
    assert "95% interval" in step.sentence


def test_fine_tuning_is_a_second_step_that_is_kept_only_if_validation_improves(tmp_path: Path) -> None:
    bundle = train_bundle(probe_runs.recipe(tmp_path, fine_tune=5), tmp_path, probe_runs.source(150))
    provenance = bundle.manifest.provenance
    probe, tuned = provenance.steps
    assert (probe.name, tuned.name) == ("linear probe", "fine-tuning")
    assert probe.kept is not tuned.kept
    assert tuned.kept is (provenance.best_epoch > 1)
    assert provenance.epochs > 1
    page = (bundle.path / "report" / "report.html").read_text()
    for step in provenance.steps:
        assert f"{step.name}{' (kept)' if step.kept else ''}</th><td>{step.validation_accuracy:.2%} (95% inter" in page
        assert f"<td>{step.seconds:.1f}</td>" in page
    assert provenance.duration_seconds == pytest.approx(probe.seconds + tuned.seconds, abs=0.2)


def test_fine_tuning_from_a_kept_last_layer_ends_after_its_seconds(tmp_path: Path) -> None:
    bundle = train_bundle(probe_runs.recipe(tmp_path), tmp_path, probe_runs.source(60))
    recipe = probe_runs.recipe(tmp_path, weights=str(bundle.path), keep_head=True, fine_tune=1)
    provenance = train_bundle(
        recipe.model_copy(update={"epochs": 500}), tmp_path, probe_runs.source(60)
    ).manifest.provenance
    assert not provenance.steps
    assert 1 <= provenance.epochs < 500


@pytest.mark.parametrize("probe", [True, False])
def test_fine_tuning_keeps_the_statistics_of_batch_norm_that_the_probe_was_fitted_to(
    tmp_path: Path, probe: bool
) -> None:
    recipe = probe_runs.recipe(tmp_path, probe=probe)
    data = split(probe_runs.source(1800).load(), recipe.data)
    network = build_network(recipe, data, starting_weights(recipe))
    assert network[1].frozen_norms is probe  # type: ignore[index]


def test_auto_does_not_fine_tune_on_few_images(tmp_path: Path) -> None:
    reporter = Recorder()
    bundle = train_bundle(
        probe_runs.recipe(tmp_path, fine_tune="auto"), tmp_path, probe_runs.source(30), reporter=reporter
    )
    assert len(bundle.manifest.provenance.steps) == 1
    assert any(note.startswith("fine-tuning skipped: ") for note in reporter.notes)


def test_reads_features_from_the_cache_until_images_or_weights_change(tmp_path: Path) -> None:
    recipe, runs = probe_runs.recipe(tmp_path), CheckpointOptions(tmp_path / "runs")

    def reuses(source_count: int, used: Recipe) -> bool:
        reporter = Recorder()
        train_bundle(used, tmp_path / "artifacts", probe_runs.source(source_count), reporter=reporter, runs=runs)
        return any(note.startswith("using cached features from") for note in reporter.notes)

    assert not reuses(60, recipe)
    assert reuses(60, recipe)
    assert not reuses(63, recipe)
    (damaged,) = sorted((tmp_path / "runs" / "features").glob("*.npz"), key=lambda file: file.stat().st_mtime)[-1:]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert not reuses(63, recipe)


def test_another_network_with_the_same_weights_does_not_read_the_cached_features(tmp_path: Path) -> None:
    recipe = probe_runs.recipe(tmp_path)
    data = split(probe_runs.source(60).load(), recipe.data)
    body = body_of(build_network(recipe, data, starting_weights(recipe)))  # type: ignore[arg-type]
    first, again = (compute_features(body, data.input, [data.train], CPU, Recorder(), tmp_path) for _ in range(2))
    assert first.body
    assert first.body == again.body
    for norm in (module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eps *= 100
    reporter = Recorder()
    found = compute_features(body, data.input, [data.train], CPU, reporter, tmp_path)
    assert not reporter.notes
    assert np.array_equal(found.images, compute_features(body, data.input, [data.train], CPU, Recorder()).images)


def test_the_features_are_those_of_the_network_in_pytorch(tmp_path: Path) -> None:
    recipe = probe_runs.recipe(tmp_path)
    data = split(probe_runs.source(60).load(), recipe.data)
    body = body_of(build_network(recipe, data, starting_weights(recipe)))  # type: ignore[arg-type]
    found = compute_features(body, data.input, [data.train], CPU, Recorder())
    images = as_input(torch.from_numpy(np.asarray(data.train.images)))
    with torch.no_grad():
        assert np.allclose(found.images, body(images)[0], atol=1e-4)
        assert np.allclose(found.mirrored, body(images.flip(3))[0], atol=1e-4)


def test_the_head_predicts_as_logistic_regression_on_standardised_features_does() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = (random.normal(size=(90, 5)) * 7 + 3 + labels[:, None]).astype(np.float32)
    problem = FeatureProblem(Features(features, features, 0.0), labels, 3, balanced=False, seed=0)
    logits = problem.fit(np.arange(90), 0.1)(features)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    twice = LogisticRegression(C=0.1, max_iter=300).fit(np.tile(scaled, (2, 1)), np.tile(labels, 2))
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(found, twice.predict_proba(scaled), atol=1e-3)


def test_a_class_that_a_fold_lacks_gets_a_low_logit() -> None:
    features = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    problem = FeatureProblem(Features(features, features, 0.0), np.arange(9) % 3, 3, balanced=False, seed=0)
    logits = problem.fit(np.flatnonzero(np.arange(9) % 3 != 1), 1.0)(features)
    assert logits.shape == (9, 3)
    assert (logits[:, 1] == -10).all()
