"""The model card: README.md of a bundle, with Hugging Face front matter (Mitchell et al., 2019)."""

import json

from schemas.evaluation import Interval, Metrics
from schemas.manifest import ModelManifest


def model_card(manifest: ModelManifest) -> str:
    test, data = manifest.metrics.test, manifest.provenance.data
    spec = manifest.input
    kind = "grey" if spec.channels == 1 else "RGB"
    network = manifest.provenance.recipe["network"]
    name = json.dumps(data.name, ensure_ascii=False)  # which is YAML as well, whatever a folder is called
    architecture = network["name"] if isinstance(network, dict) else network
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

Classifies {kind} images of {spec.height}x{spec.width} as one of {len(manifest.labels)} classes:
{", ".join(manifest.labels)}.
{_views(manifest)}Network: {architecture}, {manifest.provenance.parameters:,} parameters.

## Data
{data.name}: {data.train:,} images trained on, {data.validation:,} for validation, {data.test:,} for the test.
Content hash `{data.content_hash}`.

## How good it is
On the test split, which was measured once, through ONNX Runtime on `model.onnx`:

| accuracy | 95% interval | precision | recall | F1 | log loss | calibration error |
|---|---|---|---|---|---|---|
| {test.accuracy:.2%} | {test.accuracy_interval.lower:.2%} to {test.accuracy_interval.upper:.2%} \
| {test.macro.precision:.4f} | {test.macro.recall:.4f} | {test.macro.f1:.4f} | {test.log_loss:.4f} | \
{test.calibration.expected_calibration_error:.4f} |

Precision, recall and F1 are means over the classes:

{_per_class(test)}

![confusion matrix](report/confusion_matrix.png)
![loss and accuracy over the epochs](report/curves.png)
{_calibration(manifest)}{_reject(manifest)}{_variants(manifest)}
## Intended use and limits
For telling apart the classes above, in images like those of the test split: the figures hold for such; measure it on
your own with `POST /evaluate`. It answers with one of its classes for any image at all, also for one that shows none of
them, and how sure it is then means nothing. Whether it treats the people in images alike was not measured.

## How it was made
{manifest.provenance.epochs} epochs, of which epoch {manifest.provenance.best_epoch} was the best on validation, in \
{manifest.provenance.duration_seconds:.1f} s on {manifest.provenance.device}{_processes(manifest)}; \
seed {manifest.provenance.seed}.
{_start(manifest)}The recipe as run is in `manifest.json`.

## How to use it
`make serve`, then

    curl --data-binary @image.png -H 'Content-Type: image/png' http://127.0.0.1:8000/models/{manifest.name}/predict

or, with ONNX Runtime alone, give `{manifest.fp32.file}` uint8 `images` [batch, {spec.height}, {spec.width}, \
{spec.channels}]: normalisation is inside.
"""


def _views(manifest: ModelManifest) -> str:
    """Bundles of before there were views have no such setting."""
    views = manifest.provenance.recipe.get("test_views", "one")
    described = {"mirror": "the image and its mirror", "shift": "the image, its mirror and four shifts by a pixel"}
    if not isinstance(views, str) or views not in described:
        return ""
    return f"Each answer is averaged over test-time views inside the graph: {described[views]}.\n"


def _start(manifest: ModelManifest) -> str:
    transfer = manifest.provenance.recipe.get("transfer")
    if not isinstance(transfer, dict) or transfer.get("weights") is None:
        return ""
    return f"Started from `{transfer['weights']}` (sha256 `{transfer.get('sha256')}`).\n"


def _processes(manifest: ModelManifest) -> str:
    """Bundles of before do not say in how many."""
    processes = manifest.provenance.processes
    if processes is None:
        return ""
    return ", in one process" if processes == 1 else f", in {processes} processes"


def _calibration(manifest: ModelManifest) -> str:
    """Bundles of before there was calibration have none."""
    scaling = manifest.calibration
    if scaling is None:
        return ""
    return f"""
## How sure it is
Probabilities are calibrated on the validation split, by a temperature of {scaling.temperature:.3f} inside the graph.
Expected calibration error on the test split: {scaling.test.before:.4f} before, {scaling.test.after:.4f} after.

![reliability diagram](report/reliability.png)
![accuracy against coverage](report/coverage.png)
"""


def _reject(manifest: ModelManifest) -> str:
    reject = manifest.reject
    if reject is None:
        return ""
    if reject.threshold is None or reject.test is None:
        return f"\nNo reject threshold: {reject.reason}.\n"
    test, n = reject.test, manifest.metrics.test.n
    share = f"{test.coverage:.2%}{_interval(test.coverage_interval)} of the {n:,} images"
    right = (
        ""
        if test.accuracy is None
        else f", and {test.accuracy:.2%}{_interval(test.accuracy_interval)} of the answers are right"
    )
    return f"""
For {reject.target_accuracy:.2%} of the answers to be right, answer only from a probability of
{reject.threshold:.4f} on: so says the validation split.
On the test split {share} are answered then{right}.
"""


def _interval(interval: Interval | None) -> str:
    """Bundles of before have none."""
    return "" if interval is None else f" (95% interval {interval.lower:.2%} to {interval.upper:.2%})"


def _variants(manifest: ModelManifest) -> str:
    kept = [variant for variant in manifest.variants if variant is not manifest.fp32]
    if not kept and not manifest.dropped_variants:
        return ""
    rows = [
        f"- {variant.name}: test accuracy {variant.metrics.accuracy:.2%} (fp32: {manifest.fp32.metrics.accuracy:.2%}); "
        f"of fp32's speed {', '.join(f'{entry.ratio:.2f} times at batch {entry.batch}' for entry in variant.speed)}"
        for variant in kept
    ]
    rows += [f"- {dropped.name}: dropped; {dropped.reason}" for dropped in manifest.dropped_variants]
    return "\n".join(["", "## Variants", *rows, ""])


def _per_class(metrics: Metrics) -> str:
    rows = [
        f"| {entry.label} | {entry.precision:.4f} | {entry.recall:.4f} | {entry.f1:.4f} | {entry.support:,} |"
        for entry in metrics.per_class
    ]
    return "\n".join(["| class | precision | recall | F1 | images |", "|---|---|---|---|---|", *rows])
