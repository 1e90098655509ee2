"""The model card: README.md of a bundle, with Hugging Face front matter (Mitchell et al., 2019)."""

import json
from pathlib import Path

from schemas.evaluation import Interval, Metrics
from schemas.manifest import ModelManifest
from schemas.metrics import learnt_something
from trainer.data.duplicates import REMEDY

FEW_TEST_IMAGES = 100
_SHOWN_CLASSES = 50
_ENOUGH_TO_BE_PREDICTED = 5  # test images of a class; of fewer, a good model may get none right


def model_card(manifest: ModelManifest, folder: Path) -> str:
    """Returns the card; it shows the plots that are in the bundle's folder."""
    test, data = manifest.metrics.test, manifest.provenance.data
    spec = manifest.input
    kind = "grey" if spec.channels == 1 else "RGB"
    name = json.dumps(data.name, ensure_ascii=False)  # JSON strings are YAML too, whatever characters they contain
    return f"""---
library_name: onnx
pipeline_tag: image-classification
tags: [convoy, image-classification]
datasets: [{name}]
metrics: [accuracy, f1]
model-index:
- name: {manifest.name}
  results:
  - task: {{type: image-classification}}
    dataset: {{name: {name}, type: {name}, split: test}}
    metrics:
    - {{type: accuracy, value: {test.accuracy:.6f}}}
    - {{type: f1, value: {test.macro.f1:.6f}, name: macro F1}}
---
# {manifest.name}, version {manifest.version}

Classifies {kind} images of {spec.height}x{spec.width} as one of {len(manifest.labels):,} classes:
{_first(manifest.labels)}.
{_views(manifest)}{_network(manifest)}
{_warnings(manifest)}
## Data
{data.name}: {data.train:,} {"" if "network" in manifest.provenance.recipe else "unused "}training images, \
{data.validation:,} validation images and {data.test:,} test images.
Content hash `{data.content_hash}`.

## Metrics
Measured once on the test split, through ONNX Runtime on `{manifest.fp32.file}`, n = {test.n:,}:

| accuracy | 95% interval | precision | recall | F1 | log loss | calibration error |
|---|---|---|---|---|---|---|
| {test.accuracy:.2%} | {test.accuracy_interval} | {test.macro.precision:.4f} | {test.macro.recall:.4f} \
| {test.macro.f1:.4f} | {test.log_loss:.4f} | {test.calibration.expected_calibration_error:.4f} |

Precision, recall and F1 are means over the classes:

{_per_class(test)}
{_plot(folder, "confusion_matrix", "confusion matrix")}{_plot(folder, "curves", "loss and accuracy over the epochs")}\
{_calibration(manifest, folder)}{_reject(manifest)}{_variants(manifest)}
## Intended use and limits
The model distinguishes the classes above in images like those of the test split; the metrics hold for such images only.
Measure it on your own images with `POST /evaluate`. It assigns one of its classes to every image. For images of other
things, the confidence is meaningless. Fairness towards the people in images was not measured.

{_training(manifest)}
## How to use it
`make serve`, then

    curl --data-binary @image.png -H 'Content-Type: image/png' http://127.0.0.1:8000/models/{manifest.name}/predict

With ONNX Runtime alone, give `{manifest.fp32.file}` uint8 `images` [batch, {spec.height}, {spec.width}, \
{spec.channels}]. The graph normalises them itself.
"""


def warnings_of(manifest: ModelManifest) -> list[str]:
    """Returns a sentence for each reason to distrust the model or its metrics."""
    test, duplicates = manifest.metrics.test, manifest.provenance.data.duplicates
    warnings = []
    if not learnt_something(test):
        warnings.append(
            f"The model is no better than guessing: its test accuracy is {test.accuracy:.2%} on "
            f"{len(manifest.labels):,} classes. {_check(manifest)}"
        )
    if test.n < FEW_TEST_IMAGES:
        interval = test.accuracy_interval
        warnings.append(
            f"The test split has only {test.n} images: the true accuracy may be anything from {interval.lower:.0%} to "
            f"{interval.upper:.0%}."
        )
    never_predicted = [
        row.label
        for row, count in zip(test.per_class, map(sum, zip(*test.confusion_matrix, strict=True)), strict=True)
        if row.support >= _ENOUGH_TO_BE_PREDICTED and not count
    ]
    if never_predicted:
        them = "these classes" if len(never_predicted) > 1 else "this class"
        advice = "" if _is_imported(manifest) else f" Add images of {them}, or try --set class_weights=balanced."
        warnings.append(f"The model never predicts {_first(never_predicted)} on the test split.{advice}")
    if duplicates is not None:
        warnings += [
            f"{count:,} of {n:,} {split} images are also training images, so the {split} metrics are too optimistic. "
            f"{REMEDY}"
            for split, count, n in (
                ("validation", duplicates.validation, manifest.metrics.validation.n),
                ("test", duplicates.test, test.n),
            )
            if count
        ]
    suspects = manifest.provenance.data.suspects
    if suspects is not None and (suspects.equal or suspects.uniform or suspects.unlike):
        kinds = (
            (suspects.equal, "equal to at least two others"),
            (suspects.uniform, "nearly uniform"),
            (suspects.unlike or 0, "unlike all others"),
        )
        found = ", ".join(f"{n:,} {'is' if n == 1 else 'are'} {kind}" for n, kind in kinds if n)
        warnings.append(
            f"Some images may be placeholders or mistakes: {found}. Look at the files in `report/suspects.csv`, and "
            "remove those that do not show their class."
        )
    return warnings


def _check(manifest: ModelManifest) -> str:
    if _is_imported(manifest):
        return "Check the order of the labels, and --mean and --std."
    return "Check the labels." if manifest.provenance.steps else "Check the labels, and try another learning rate."


def _is_imported(manifest: ModelManifest) -> bool:
    return "imported" in manifest.provenance.recipe


def _warnings(manifest: ModelManifest) -> str:
    warnings = warnings_of(manifest)
    return "\n".join(["", "## Warnings", *(f"- {warning}" for warning in warnings), ""]) if warnings else ""


def _first(labels: list[str] | tuple[str, ...]) -> str:
    rest = len(labels) - _SHOWN_CLASSES
    return ", ".join(labels[:_SHOWN_CLASSES]) + (f" and {rest:,} more" if rest > 0 else "")


def _plot(folder: Path, name: str, description: str) -> str:
    return f"\n![{description}](report/{name}.png)\n" if (folder / "report" / f"{name}.png").exists() else ""


def _views(manifest: ModelManifest) -> str:
    """Old bundles lack the setting."""
    views = manifest.provenance.recipe.get("test_views", "one")
    described = {"mirror": "the image and its mirror image", "shift": "the image, its mirror image and four shifts"}
    if not isinstance(views, str) or views not in described:
        return ""
    return f"The graph averages its answer over test-time views: {described[views]}.\n"


def _network(manifest: ModelManifest) -> str:
    network = manifest.provenance.recipe.get("network")
    if network is None:
        return "The network was imported; see Origin."
    name = network["name"] if isinstance(network, dict) else network
    return f"Network: {name}, {manifest.provenance.parameters:,} parameters."


def _training(manifest: ModelManifest) -> str:
    source = manifest.provenance
    if (origin := source.recipe.get("imported")) is not None:
        assert isinstance(origin, dict)  # noqa: S101 - as provenance_of_import writes it
        return f"""## Origin
Imported from `{origin["file"]}` (sha256 `{origin["sha256"]}`), which was trained elsewhere.
If it was trained on some of the images above, the metrics are too optimistic. The graph normalises with
`{origin["normalisation"]}`.
"""
    epochs = "1 epoch" if source.epochs == 1 else f"{source.epochs} epochs"
    best = f" The weights are those of epoch {source.best_epoch}, the best on validation." if source.epochs > 1 else ""
    return f"""## Training
{epochs} in {source.duration_seconds:.1f} s on {source.device}{_processes(manifest)}; seed {source.seed}.{best}
{_start(manifest)}{_steps(manifest)}The recipe is in `manifest.json`.
"""


def _start(manifest: ModelManifest) -> str:
    transfer = manifest.provenance.recipe.get("transfer")
    if not isinstance(transfer, dict) or transfer.get("weights") is None:
        return ""
    return f"Training started from `{transfer['weights']}` (sha256 `{transfer.get('sha256')}`).\n"


def _steps(manifest: ModelManifest) -> str:
    """Ends in an empty line, without which the text after it would belong to the last item."""
    steps = "".join([*(f"- {step.sentence}\n" for step in manifest.provenance.steps), "\n"])
    both = "After cross-validation, the last layer learnt from the training and the validation images.\n"
    return steps + both * _cross_validated(manifest)


def _cross_validated(manifest: ModelManifest) -> bool:
    return any(step.folds for step in manifest.provenance.steps)


def _chosen_on(manifest: ModelManifest) -> str:
    return "the predictions of the cross-validation" if _cross_validated(manifest) else "the validation split"


def _processes(manifest: ModelManifest) -> str:
    """Old bundles do not record the number."""
    processes = manifest.provenance.processes
    if processes is None:
        return ""
    return ", in one process" if processes == 1 else f", in {processes} processes"


def _calibration(manifest: ModelManifest, folder: Path) -> str:
    """Old bundles have no calibration."""
    scaling = manifest.calibration
    if scaling is None:
        return ""
    fitted = (
        f"Temperature 1: scaling did not improve the calibration on {_chosen_on(manifest)}."
        if scaling.temperature == 1
        else f"The graph divides logits by a temperature of {scaling.temperature:.3f}, fitted on "
        f"{_chosen_on(manifest)}."
    )
    return f"""
## Calibration
{fitted}
Expected calibration error on the test split: {scaling.test.before:.4f} before, {scaling.test.after:.4f} after.
{_plot(folder, "reliability", "reliability diagram")}{_plot(folder, "coverage", "accuracy against coverage")}"""


def _reject(manifest: ModelManifest) -> str:
    reject = manifest.reject
    if reject is None:
        return ""
    if reject.threshold is None or reject.test is None:
        return f"\nThere is no confidence threshold: {reject.reason}.\n"
    test, n = reject.test, manifest.metrics.test.n
    accuracy = (
        "" if test.accuracy is None else f" with an accuracy of {test.accuracy:.2%}{_interval(test.accuracy_interval)}"
    )
    return f"""
A confidence threshold of {reject.threshold:.4f} reaches an accuracy of {reject.target_accuracy:.2%} on
{_chosen_on(manifest)}.
On the test split, {test.coverage:.2%}{_interval(test.coverage_interval)} of the {n:,} images reach it{accuracy}.
"""


def _interval(interval: Interval | None) -> str:
    """Old bundles have none."""
    return "" if interval is None else f" (95% interval {interval})"


def _variants(manifest: ModelManifest) -> str:
    kept = [variant for variant in manifest.variants if variant is not manifest.fp32]
    if not kept and not manifest.dropped_variants:
        return ""
    rows = [
        f"- {variant.name}: test accuracy {variant.metrics.accuracy:.2%} (fp32: {manifest.fp32.metrics.accuracy:.2%}), "
        f"n = {manifest.metrics.test.n:,}; speed relative to fp32: "
        f"{', '.join(f'{entry.ratio:.2f} at batch size {entry.batch}' for entry in variant.speed)}"
        for variant in kept
    ]
    rows += [f"- {dropped.name}: dropped, because {dropped.reason}" for dropped in manifest.dropped_variants]
    return "\n".join(["", "## Variants", *rows, ""])


def _per_class(metrics: Metrics) -> str:
    """Returns a table of the classes; of many classes, only those with the lowest F1."""
    classes, note = metrics.per_class, ""
    if len(classes) > _SHOWN_CLASSES:
        classes = tuple(sorted(classes, key=lambda entry: entry.f1))[:_SHOWN_CLASSES]
        note = (
            f"\n\nThe {_SHOWN_CLASSES} classes with the lowest F1, of {len(metrics.per_class):,}; all are in "
            "`report/classification_report.json`."
        )
    rows = [
        f"| {entry.label} | {entry.precision:.4f} | {entry.recall:.4f} | {entry.f1:.4f} | {entry.support:,} |"
        for entry in classes
    ]
    return "\n".join(["| class | precision | recall | F1 | images |", "|---|---|---|---|---|", *rows]) + note
