"""How sure the model is, and how right it is then: reliability diagram, accuracy against coverage."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schemas.evaluation import Calibration
from schemas.manifest import Reject
from schemas.metrics import calibration
from schemas.selective_prediction import CoverageCurve
from trainer.evaluation.calibration import uncalibrated
from trainer.evaluation.evaluate import Evaluation

_CSV_POINTS = 200


def reliability(test: Evaluation) -> Figure:
    """Accuracy by confidence, without and with the temperature, above how often each confidence occurs."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    rows = figure.subplots(2, 2, height_ratios=(3, 1), sharex=True, sharey="row", squeeze=False)
    before = calibration(test.data.labels, uncalibrated(test))
    for column, (name, said) in enumerate((("before", before), ("after", test.metrics.calibration))):
        _diagram(rows[0, column], said)
        _histogram(rows[1, column], said)
        error = said.expected_calibration_error
        rows[0, column].set_title(f"{name.capitalize()} calibration: expected calibration error {error:.4f}")
    rows[0, 0].set(ylabel="accuracy")
    rows[0, 0].legend(loc="upper left")
    rows[1, 0].set(ylabel="share of images")
    figure.suptitle(f"Test split, n = {test.metrics.n:,}")
    return figure


def _diagram(axes: Axes, said: Calibration) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as sure as right")
    for part in said.bins:
        if part.accuracy is None or part.confidence is None:
            continue
        width, first = part.upper - part.lower, not axes.patches
        axes.bar(
            part.lower,
            part.accuracy,
            width,
            align="edge",
            alpha=0.6,
            edgecolor="white",
            color="tab:blue",
            label="accuracy" if first else None,
        )
        axes.plot(
            [part.lower, part.upper], [part.confidence] * 2, color="tab:red", label="mean confidence" if first else None
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _histogram(axes: Axes, said: Calibration) -> None:
    counts = np.array([part.count for part in said.bins])
    lower, upper = ([getattr(part, edge) for part in said.bins] for edge in ("lower", "upper"))
    axes.bar(lower, counts / counts.sum(), np.subtract(upper, lower), align="edge", color="tab:grey", edgecolor="white")
    axes.set(xlabel="confidence")


def coverage(curve: CoverageCurve, reject: Reject | None) -> Figure:
    """What accuracy is left where only the surest are answered."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(curve.coverage) == 1 else None  # one confidence makes a point, not a line
    axes.plot(curve.coverage, curve.accuracy, marker=marker, label="answered surest first")
    if reject is not None:
        axes.axhline(reject.target_accuracy, color="grey", linestyle=":", label=f"target {reject.target_accuracy:.2%}")
    if reject is not None and reject.test is not None and reject.test.accuracy is not None:
        label = f"threshold {reject.threshold:.3f}, from validation; bars are 95% intervals"
        axes.plot(reject.test.coverage, reject.test.accuracy, "o", color="tab:red", label=label)
        if reject.test.coverage_interval and reject.test.accuracy_interval:
            across, along = reject.test.coverage_interval, reject.test.accuracy_interval
            axes.hlines(reject.test.accuracy, across.lower, across.upper, color="tab:red")
            axes.vlines(reject.test.coverage, along.lower, along.upper, color="tab:red")
    axes.set(
        xlim=(0, 1.01), xlabel="coverage: share of test images that is answered", ylabel="accuracy of what is answered"
    )
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def write_coverage(path: Path, curve: CoverageCurve) -> None:
    """At most 200 points, evenly over the curve."""
    count = len(curve.threshold)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _CSV_POINTS)).round().astype(np.int64))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("threshold", "coverage", "accuracy"))
        columns = (values[chosen].tolist() for values in (curve.threshold, curve.coverage, curve.accuracy))
        writer.writerows(zip(*columns, strict=True))
