"""Measures an exported classifier, makes its variants, and writes its bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.bundle import Bundle, hash_file
from schemas.manifest import (
    Explanation,
    ModelManifest,
    Provenance,
    Reject,
    SplitMetrics,
    Task,
    Variant,
    VariantMetrics,
    VariantName,
)
from trainer.bundle.model_card import warnings_of
from trainer.bundle.promotion import keep_serving
from trainer.bundle.report_page import write_page
from trainer.bundle.writer import new_bundle, publish, write_golden, write_golden_maps
from trainer.data.split import Splits
from trainer.evaluation.calibration import describe_scaling, find_reject
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.export.graph import Graph
from trainer.export.onnx import NetworkOutput, check_batches, check_classes
from trainer.export.quantize import Reference, make_variants
from trainer.training.progress import Reporter

# Probabilities differ by about 1e-6 between CPUs; a difference of 1e-3 means another model.
GOLDEN_TOLERANCE_FP32 = 1e-3
WEIGHTS_FILE = "weights.safetensors"

WriteFiles = Callable[[Path, Evaluation, Reject | None], list[str]]
"""Writes weights and report into the bundle's folder; returns a sentence for each part that failed."""


@dataclass(frozen=True)
class Exported:
    """A bundle's fp32 graph, calibrated with a temperature.

    original are the logits of the network or graph that the file was made from.
    held are cross-validated predictions, if the validation split took part in fitting the weights.
    """

    graph: Graph
    temperature: float
    original: NetworkOutput
    explanation: Explanation
    held: Evaluation | None = None


@dataclass(frozen=True)
class BundleSettings:
    name: str
    task: Task
    target_accuracy: float = 0.0
    variants: Sequence[VariantName] = (VariantName.INT8, VariantName.FP16)


def assemble(
    exported: Exported,
    data: Splits,
    settings: BundleSettings,
    provenance: Provenance,
    write_files: WriteFiles,
    artifacts: Path,
    reporter: Reporter,
) -> tuple[Bundle, Evaluation]:
    """Writes the model's next version, and returns it with its evaluation on the test split.

    If another version serves, the new one does not serve yet. Raises ExportError and WriteError.
    """
    graph = exported.graph
    check_batches(graph.model, exported.original)
    validation, test = (evaluate(graph.model, part, data.labels) for part in (data.validation, data.test))
    parity = check_classes(test.logits, exported.original)
    chosen = exported.held or validation
    reject = find_reject(settings.target_accuracy, chosen, test)
    with new_bundle(artifacts, settings.name) as folder:
        golden, images, probabilities = write_golden(folder, data.test, data.input, graph.model)
        golden, maps = write_golden_maps(folder, golden, graph, images)
        map_tolerance = None if maps is None else GOLDEN_TOLERANCE_FP32 * maps.scale
        fp32_map = graph.write(folder / "model.onnx", map_tolerance)
        accuracy = validation.metrics.accuracy
        reference = Reference(graph.whole, data, accuracy, exported.original, images, probabilities, maps)
        variants = make_variants(settings.variants, reference, folder)
        failures = write_files(folder, test, reject)
        write_page(folder / "report", settings.name, data.name, test.metrics, provenance.steps)
        weights = folder / WEIGHTS_FILE
        fp32 = Variant(
            name=VariantName.FP32,
            **hash_file(folder / "model.onnx", folder).model_dump(),
            metrics=VariantMetrics(accuracy=test.metrics.accuracy, log_loss=test.metrics.log_loss),
            parity=parity,
            golden_tolerance=GOLDEN_TOLERANCE_FP32,
            explanation=fp32_map,
        )
        manifest = ModelManifest(
            name=settings.name,
            version=1,  # publish sets it
            task=settings.task,
            labels=data.labels,
            input=data.input,
            variants=(fp32, *variants.kept),
            dropped_variants=variants.dropped,
            golden=golden,
            weights=hash_file(weights, folder) if weights.exists() else None,
            metrics=SplitMetrics(validation=chosen.metrics, test=test.metrics),
            calibration=describe_scaling(exported.temperature, chosen, test),
            reject=reject,
            explanation=exported.explanation,
            provenance=provenance,
        )
        keep_serving(folder.parent)
        bundle = publish(folder, manifest, graph)
    for warning in (*warnings_of(bundle.manifest), *failures):
        reporter.note(f"warning: {warning}")
    return bundle, test
