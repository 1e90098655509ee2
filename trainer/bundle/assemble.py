"""What a run ends with, in the order of the data: calibrate -> export -> evaluate -> variants -> bundle with report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schemas.bundle import hash_file
from schemas.manifest import (
    Golden,
    ModelManifest,
    Parity,
    Reject,
    SplitMetrics,
    Task,
    TemperatureScaling,
    Variant,
    VariantMetrics,
    VariantName,
)
from trainer.bundle.preview import as_seen
from trainer.bundle.provenance import provenance
from trainer.bundle.report import GRID, ReportInput, write_report
from trainer.bundle.writer import new_bundle, publish, read_golden, write_golden
from trainer.data.split import Splits
from trainer.evaluation.calibration import describe_scaling, find_reject, fit_temperature
from trainer.evaluation.evaluate import Evaluation, evaluate, judge
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import Exported, export, network_logits
from trainer.export.quantize import CALIBRATION_IMAGES, Reference, Variants, make_variants
from trainer.models.layers import Shape
from trainer.models.summary import summary
from trainer.models.tta import with_views
from trainer.recipe import Recipe
from trainer.training.checkpoint import save_weights
from trainer.training.loop import Fitted

# Probabilities differ by about 1e-6 between CPUs; a thousandth is a different model.
GOLDEN_TOLERANCE_FP32 = 1e-3


@dataclass(frozen=True)
class Trained:
    path: Path
    manifest: ModelManifest


def finish(recipe: Recipe, data: Splits, fitted: Fitted, device: torch.device, artifacts: Path) -> Trained:
    """calibrate -> export -> evaluate -> variants -> bundle with report. Raises ExportError, and WriteError."""
    deployed = with_views(fitted.network, recipe.test_views)
    temperature = fit_temperature(network_logits(deployed, data.validation.images), data.validation.labels)
    exported = export(deployed, data.input, data.test.images, temperature)
    with new_bundle(artifacts, recipe.name) as folder:
        (folder / "model.onnx").write_bytes(exported.model)
        save_weights(fitted.network, folder / "weights.safetensors")
        onnx_model = OnnxModel(exported.model)
        golden = write_golden(folder, data.test, data.input, onnx_model)
        validation = evaluate(onnx_model, data.validation, data.labels)
        test = judge(*exported.answers, data.test, data.labels)
        scaling = describe_scaling(temperature, validation, test)
        reject = find_reject(recipe.target_accuracy, validation, test)
        reference = _reference(folder, data, exported, golden, validation=validation, test=test)
        variants = make_variants(recipe.variants, reference, folder)
        write_report(folder / "report", _report_input(recipe, data, fitted, test, reject))
        parts = _Parts(
            recipe, data, fitted, exported.parity, golden, validation, test, device, scaling, reject, variants
        )
        path, manifest = publish(folder, lambda version: _manifest(folder, version, parts), onnx_model)
    return Trained(path, manifest)


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
        provenance=provenance(parts.recipe, parts.data, parts.fitted, parts.device),
    )
