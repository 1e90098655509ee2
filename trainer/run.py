"""One run, in the order of the data.

source -> split -> network -> loop (augments) -> calibrate -> export -> evaluate -> variants -> report -> bundle
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from scipy.special import softmax
from torch import nn

from schemas.bundle import Bundle, hash_file
from schemas.manifest import ModelManifest, SplitMetrics, Task, Variant, VariantMetrics, VariantName
from trainer.bundle.model_card import warnings_of
from trainer.bundle.provenance import provenance
from trainer.bundle.report import write_report
from trainer.bundle.writer import check_labels, check_writable, new_bundle, publish, write_golden
from trainer.data.dataset import DataSource, LabelledImages
from trainer.data.split import Splits, split
from trainer.evaluation.calibration import describe_scaling, find_reject, fit_temperature
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import NetworkOutput, check_parity, export, network_logits
from trainer.export.quantize import Reference, make_variants
from trainer.models.build import build_network
from trainer.models.pretrained import as_run, starting_weights
from trainer.models.tta import with_views
from trainer.network_config import BackboneConfig
from trainer.recipe import Recipe
from trainer.training.checkpoint import FORMAT, Checkpoints, save_weights
from trainer.training.distributed import ALONE, World
from trainer.training.loop import Fitted, fit
from trainer.training.progress import Reporter
from trainer.training.run_dir import note_bundle, published_bundle, run_folder
from trainer.training.tensorboard import TensorBoardReporter

PARITY_IMAGES = 1024
# Probabilities differ by about 1e-6 between CPUs; a difference of 1e-3 means another model.
GOLDEN_TOLERANCE_FP32 = 1e-3


@dataclass(frozen=True)
class Runs:
    """Where and how often runs write checkpoints; resume continues the last run of the same settings and data."""

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
    world: World = ALONE,
    relabel: bool = False,
) -> Bundle | None:
    """Trains a recipe and writes its bundle; without runs, it writes no checkpoints.

    Of several processes in a world, the main one returns the bundle and the others None. Resuming a run that has
    written its bundle returns that bundle. relabel allows other labels than the previous version has. Raises the errors
    of trainer/errors.py.
    """
    weights = starting_weights(recipe)
    recipe = as_run(recipe, weights)
    with world.main_process_first():  # the first process decodes the images, the others read them from the cache
        data = split(source.load(), recipe.data)
        if world.is_main:  # only after the data was read: a run that cannot start creates nothing
            check_writable(artifacts, recipe.name)
            if not relabel:
                check_labels(artifacts / recipe.name, data.labels)
    for sentence in data.notes:
        reporter.note(sentence)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, data, weights)
    with _checkpoints(runs, world, recipe, data, device, reporter) as checkpoints:
        folder = checkpoints.folder if checkpoints is not None and world.is_main else None
        finished = published_bundle(folder) if folder is not None else None
        if world.broadcast(finished is not None):
            reporter.note(f"{folder} has finished and written its bundle. To train again, leave out --resume.")
            return finished
        if runs is not None and runs.tensorboard and folder is not None:
            reporter = TensorBoardReporter(reporter, folder / "tensorboard")
        fitted = _fit(network, data, recipe, device, reporter, checkpoints, world, runs)
        if not world.is_main:
            return None
        recipe = recipe.model_copy(update={"precision": fitted.precision})  # for auto, the measured one
        with _weights_kept_in(folder):
            bundle = write_bundle(recipe, data, fitted, device, artifacts, reporter)
        if folder is not None:
            note_bundle(folder, bundle.path, reporter)
        return bundle


def _fit(
    network: nn.Module,
    data: Splits,
    recipe: Recipe,
    device: torch.device,
    reporter: Reporter,
    checkpoints: Checkpoints | None,
    world: World,
    runs: Runs | None,
) -> Fitted:
    """Trains all layers at once; or, from a backbone's weights, the last layer first."""
    transfer = recipe.transfer
    if not transfer.probe or transfer.keep_head or not isinstance(recipe.network, BackboneConfig):
        return fit(network, data, recipe, device, reporter, checkpoints=checkpoints, world=world)
    from trainer.training.fine_tune import fine_tune  # noqa: PLC0415 - scikit-learn takes seconds
    from trainer.training.probe import fit_probe  # noqa: PLC0415

    assert isinstance(network, nn.Sequential)  # noqa: S101 - as build_network returns it
    probe = fit_probe(network, data, recipe, device, reporter, None if runs is None else runs.folder / "features")
    return fine_tune(network, probe, data, recipe, device, reporter, checkpoints=checkpoints, world=world)


def write_bundle(
    recipe: Recipe, data: Splits, fitted: Fitted, device: torch.device, artifacts: Path, reporter: Reporter
) -> Bundle:
    """Exports and measures a trained network and writes its bundle. Raises ExportError and WriteError."""
    network = with_views(fitted.network, recipe.test_views)
    labels, logits = fitted.held or (data.validation.labels, network_logits(network, data.validation.images))
    temperature = fit_temperature(logits, labels)
    content = export(network, data.input, temperature)
    model = OnnxModel(content)
    network_output = NetworkOutput.of(network, _spread(data.test, PARITY_IMAGES))
    parity = check_parity(model, network_output)
    validation, test = (evaluate(model, part, data.labels) for part in (data.validation, data.test))
    # By cross-validation, the last layer has learnt from the validation images: those predictions count instead.
    held = Evaluation.of(labels, softmax(logits / temperature, axis=1), logits, data.labels)
    chosen = held if fitted.held else validation
    reject = find_reject(recipe.target_accuracy, chosen, test)
    with new_bundle(artifacts, recipe.name) as folder:
        (folder / "model.onnx").write_bytes(content)
        save_weights(fitted.network, folder / "weights.safetensors")
        golden, golden_images, golden_probabilities = write_golden(folder, data.test, data.input, model)
        reference = Reference(
            content, data, validation.metrics.accuracy, network_output, golden_images, golden_probabilities
        )
        variants = make_variants(recipe.variants, reference, folder)
        failures = write_report(folder / "report", recipe, data, fitted, test, reject)
        fp32 = Variant(
            name=VariantName.FP32,
            **hash_file(folder / "model.onnx", folder).model_dump(),
            metrics=VariantMetrics(accuracy=test.metrics.accuracy, log_loss=test.metrics.log_loss),
            parity=parity,
            golden_tolerance=GOLDEN_TOLERANCE_FP32,
        )
        manifest = ModelManifest(
            name=recipe.name,
            version=1,  # publish sets it
            task=Task.BINARY if recipe.sigmoid else Task.MULTICLASS,
            labels=data.labels,
            input=data.input,
            variants=(fp32, *variants.kept),
            dropped_variants=variants.dropped,
            golden=golden,
            weights=hash_file(folder / "weights.safetensors", folder),
            metrics=SplitMetrics(validation=chosen.metrics, test=test.metrics),
            calibration=describe_scaling(temperature, chosen, test),
            reject=reject,
            provenance=provenance(recipe, data, fitted, device),
        )
        bundle = publish(folder, manifest, model)
    for warning in (*warnings_of(bundle.manifest), *failures):
        reporter.note(f"warning: {warning}")
    return bundle


def _spread(data: LabelledImages, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Returns at most count images from all over a split: it may be sorted by class."""
    return data.images[np.linspace(0, len(data) - 1, min(count, len(data))).astype(np.int64)]


@contextmanager
def _weights_kept_in(folder: Path | None) -> Iterator[None]:
    """Adds to an error after training where the trained weights are, and how to continue."""
    try:
        yield
    except Exception as error:
        if folder is not None:
            error.add_note(
                f"The trained weights are in {folder}. Run the same command with --resume to continue after training."
            )
        raise


@contextmanager
def _checkpoints(
    runs: Runs | None, world: World, recipe: Recipe, data: Splits, device: torch.device, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    if runs is None:
        yield None
    elif not world.is_main:  # it takes part in each checkpoint, and writes nothing
        yield Checkpoints(runs.folder, runs.every_seconds)
    else:
        facts: dict[str, JsonValue] = {
            "recipe": recipe.model_dump(mode="json"),
            "data": data.content_hash,
            "device": device.type,
            "processes": world.size,
            "checkpoint_format": FORMAT,
        }
        with run_folder(runs.folder, recipe.name, facts, reporter, resume=runs.resume) as folder:
            yield Checkpoints(folder, runs.every_seconds)
