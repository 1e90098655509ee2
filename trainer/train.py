"""One run, in the order of the data.

source -> split -> network -> loop -> calibrate -> export -> evaluate -> variants -> bundle with report
"""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import nn

from schemas.bundle import hash_file
from schemas.manifest import (
    DataProvenance,
    Golden,
    ModelManifest,
    Parity,
    Provenance,
    Reject,
    SplitMetrics,
    Task,
    TemperatureScaling,
    Variant,
    VariantMetrics,
    VariantName,
)
from trainer.batches import GatheredImages
from trainer.bundle import check_writable, new_bundle, publish, read_golden, write_golden
from trainer.calibrate import describe_scaling, find_reject, fit_temperature
from trainer.checkpoint import Checkpoints, save_weights
from trainer.data.source import DataSource, LabelledImages
from trainer.data.split import Splits, split
from trainer.device import describe
from trainer.distributed import ALONE, World
from trainer.errors import RecipeError
from trainer.evaluate import Evaluation, evaluate
from trainer.export import Exported, export, network_logits
from trainer.inference import OnnxModel
from trainer.loop import Fitted, fit
from trainer.models.fast import FastNetwork
from trainer.models.layers import Normalise, OneNeuron, Shape
from trainer.models.summary import parameter_count, summary
from trainer.models.views import with_views
from trainer.progress import Reporter
from trainer.quantize import CALIBRATION_IMAGES, Reference, Variants, make_variants
from trainer.recipe import Recipe
from trainer.report import GRID, ReportInput, write_report
from trainer.runs import run_folder
from trainer.show import as_seen
from trainer.tensorboard import TensorBoardReporter
from trainer.weights import StartingWeights, as_run, load_body, starting_weights

# Probabilities differ by about 1e-6 between CPUs; a thousandth is a different model.
GOLDEN_TOLERANCE_FP32 = 1e-3
# Enough for the covariance of small patches.
PREPARING_IMAGES = 5000
# Of pixels, for the mean and deviation: more would change the fourth digit, and a run could not start at once.
STATISTICS_BYTES = 2**28


@dataclass(frozen=True)
class Trained:
    path: Path
    manifest: ModelManifest


@dataclass(frozen=True)
class Runs:
    """Where runs keep their checkpoints, and how often; with resume the last such run goes on."""

    folder: Path
    resume: bool = False
    tensorboard: bool = False
    every_seconds: float = 30.0


def train(
    recipe: Recipe,
    source: DataSource,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
    *,
    runs: Runs | None = None,
) -> Trained:
    """Trains the recipe and writes the bundle; without runs there are no checkpoints.

    Raises what trainer/errors.py lists, but for DeviceError.
    """
    trained = train_in(ALONE, recipe, source, device, artifacts, reporter, runs=runs)
    assert trained is not None  # noqa: S101 - a process alone is the first
    return trained


def train_in(
    world: World,
    recipe: Recipe,
    source: DataSource,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
    *,
    runs: Runs | None = None,
) -> Trained | None:
    """As train, in each process of a world; the first writes, and the others return None."""
    if world.first:
        check_writable(artifacts, recipe.name)
    start = starting_weights(recipe)
    recipe = as_run(recipe, start)
    with world.first_one_first():  # the first decodes the images, the others find them
        data = load_splits(recipe, source)
    for sentence in data.told:
        reporter.note(sentence)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, data, start)
    with _checkpoints(runs, world, recipe, data, device, reporter) as checkpoints:
        if runs is not None and runs.tensorboard and checkpoints is not None and world.first:
            reporter = TensorBoardReporter(reporter, checkpoints.folder / "tensorboard")
        fitted = fit(network, data, recipe, device, reporter, checkpoints=checkpoints, world=world)
        return _bundle(recipe, data, fitted, device, artifacts) if world.first else None


@contextmanager
def _checkpoints(
    runs: Runs | None, world: World, recipe: Recipe, data: Splits, device: torch.device, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    if runs is None:
        yield None
    elif not world.first:  # takes part in each checkpoint, and writes none
        yield Checkpoints(runs.folder, runs.every_seconds)
    else:
        facts: dict[str, JsonValue] = {
            "recipe": recipe.model_dump(mode="json"),
            "data": data.content_hash,
            "device": device.type,
            "processes": world.size,
        }
        with run_folder(runs.folder, recipe.name, facts, reporter, resume=runs.resume) as folder:
            yield Checkpoints(folder, runs.every_seconds)


def _bundle(recipe: Recipe, data: Splits, fitted: Fitted, device: torch.device, artifacts: Path) -> Trained:
    deployed = with_views(fitted.network, recipe.test_views)
    temperature = fit_temperature(network_logits(deployed, data.validation.images), data.validation.labels)
    exported = export(deployed, data.input, data.test.images, temperature)
    with new_bundle(artifacts, recipe.name) as folder:
        (folder / "model.onnx").write_bytes(exported.model)
        save_weights(fitted.network, folder / "weights.safetensors")
        onnx_model = OnnxModel(exported.model)
        golden = write_golden(folder, data.test, data.input, onnx_model)
        validation = evaluate(onnx_model, data.validation, data.labels)
        test = evaluate(onnx_model, data.test, data.labels)
        scaling, reject = (
            describe_scaling(temperature, validation, test),
            find_reject(recipe.target_accuracy, validation, test),
        )
        reference = _reference(folder, data, exported, golden, validation=validation, test=test)
        variants = make_variants(recipe.variants, reference, folder)
        write_report(folder / "report", _report_input(recipe, data, fitted, test, reject))
        parts = _Parts(
            recipe, data, fitted, exported.parity, golden, validation, test, device, scaling, reject, variants
        )
        path, manifest = publish(folder, lambda version: _manifest(folder, version, parts), onnx_model)
    return Trained(path, manifest)


def load_splits(recipe: Recipe, source: DataSource) -> Splits:
    """Raises DataError."""
    config = recipe.data
    return split(source.load(), config.validation, config.test, config.split_seed)


def build_network(recipe: Recipe, data: Splits, start: StartingWeights | None = None) -> nn.Module:
    """The recipe's network behind the normalisation that the training images ask for, or its starting weights.

    Raises RecipeError, and DataError for weights that do not fit.
    """
    spec = data.input
    if recipe.sigmoid and len(data.labels) != 2:
        raise RecipeError(
            f"sigmoid=true is for two classes, and {data.name} has {len(data.labels)}; set sigmoid=false."
        )
    outputs = 1 if recipe.sigmoid else len(data.labels)
    shape = Shape(height=spec.height, width=spec.width, channels=spec.channels, classes=outputs)
    normalise, network = _normalise(data.train), recipe.network.build(shape)
    if start is not None:
        load_body(network, start)
        normalise = start.normalise or normalise
    elif isinstance(network, FastNetwork):
        images, _ = GatheredImages(data.train, torch.device("cpu")).batch(
            torch.arange(min(PREPARING_IMAGES, len(data.train)))
        )
        network.prepare(normalise(images))
    return nn.Sequential(normalise, network, *([OneNeuron()] if recipe.sigmoid else []))


def _normalise(train: LabelledImages) -> Normalise:
    """By the mean and deviation of each channel over the training split, or even steps through a very large one."""
    step = -(-train.images.nbytes // STATISTICS_BYTES)
    images = train.images.take(np.arange(0, len(train), step))
    counts = np.zeros((images.shape[3], 256), np.int64)
    for block in images.blocks():
        counts += [np.bincount(block[..., i].ravel(), minlength=256) for i in range(images.shape[3])]
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    deviation = np.sqrt(np.maximum(share @ values**2 - mean**2, 1e-8))
    return Normalise(torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32))


def _reference(
    folder: Path, data: Splits, exported: Exported, golden: Golden, *, validation: Evaluation, test: Evaluation
) -> Reference:
    # Even steps: a source may be sorted by class.
    chosen = np.linspace(0, len(data.train) - 1, min(CALIBRATION_IMAGES, len(data.train))).astype(np.int64)
    images, expected = read_golden(folder, golden, data.input)
    return Reference(
        model=exported.model,
        labels=data.labels,
        images=data.train.images[chosen],
        validation=validation,
        test=test,
        logits=exported.logits,
        golden=images,
        expected=expected,
    )


def _report_input(recipe: Recipe, data: Splits, fitted: Fitted, test: Evaluation, reject: Reject | None) -> ReportInput:
    chosen = np.random.default_rng(recipe.seed).permutation(len(data.train))[:GRID]
    unmixed = recipe.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})  # an image has one label there
    seen, _ = as_seen(data.train.take(chosen), unmixed, recipe.seed)
    spec = data.input
    shape = Shape(height=spec.height, width=spec.width, channels=spec.channels, classes=len(data.labels))
    return ReportInput(
        labels=data.labels,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        test=test,
        reject=reject,
        samples=seen,
        sample_labels=data.train.labels[chosen],
        summary=summary(fitted.network, shape),
        seed=recipe.seed,
    )


@dataclass(frozen=True)
class _Parts:
    recipe: Recipe
    data: Splits
    fitted: Fitted
    parity: Parity
    golden: Golden
    validation: Evaluation
    test: Evaluation
    device: torch.device
    scaling: TemperatureScaling
    reject: Reject | None
    variants: Variants


def _manifest(folder: Path, version: int, parts: _Parts) -> ModelManifest:
    test = parts.test.metrics
    fp32 = Variant(
        name=VariantName.FP32,
        **hash_file(folder / "model.onnx", folder).model_dump(),
        metrics=VariantMetrics(accuracy=test.accuracy, log_loss=test.log_loss),
        parity=parts.parity,
        golden_tolerance=GOLDEN_TOLERANCE_FP32,
    )
    return ModelManifest(
        name=parts.recipe.name,
        version=version,
        task=Task.BINARY if parts.recipe.sigmoid else Task.MULTICLASS,
        labels=parts.data.labels,
        input=parts.data.input,
        variants=(fp32, *parts.variants.kept),
        dropped_variants=parts.variants.dropped,
        golden=parts.golden,
        weights=hash_file(folder / "weights.safetensors", folder),
        metrics=SplitMetrics(validation=parts.validation.metrics, test=test),
        calibration=parts.scaling,
        reject=parts.reject,
        provenance=_provenance(parts),
    )


def _provenance(parts: _Parts) -> Provenance:
    data = parts.data
    return Provenance(
        recipe=parts.recipe.model_dump(mode="json"),
        data=DataProvenance(
            name=data.name,
            content_hash=data.content_hash,
            train=len(data.train),
            validation=len(data.validation),
            test=len(data.test),
            duplicates=data.duplicates,
        ),
        seed=parts.recipe.seed,
        epochs=len(parts.fitted.history),
        best_epoch=parts.fitted.best_epoch,
        parameters=parameter_count(parts.fitted.network),
        device=describe(parts.device),
        duration_seconds=round(parts.fitted.seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        git_commit=_git_commit(),
        libraries=_libraries(),
    )


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "pillow", "torch", "torchvision"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """The commit of this code, with + where files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")
