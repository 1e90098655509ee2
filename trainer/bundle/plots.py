"""The plots of a report: curves, confusion matrix, reliability, coverage. None grows with the number of classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from schemas.evaluation import Calibration, Metrics
from schemas.manifest import Reject
from schemas.metrics import calibration
from schemas.selective_prediction import CoverageCurve
from trainer.bundle.image_grid import shortened
from trainer.data.split import Splits
from trainer.evaluation.calibration import uncalibrated
from trainer.evaluation.evaluate import Evaluation
from trainer.recipe import AugmentConfig
from trainer.training.loop import Fitted

_MAX_MARKED_EPOCHS = 20
_MAX_CLASSES_WITH_COUNTS = 20
_MAX_CLASSES_WITH_NAMES = 60
_MAX_CELLS = 250  # a side of the matrix; more classes are merged into blocks
_SHOWN_CONFUSIONS = 20

Counts = npt.NDArray[np.int64]


def curves(fitted: Fitted, data: Splits, augment: AugmentConfig) -> Figure:
    """Loss and accuracy of training and validation over the epochs, of which a linear probe is the first."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{len(data.train):,} training images, {len(data.validation):,} validation images")
    epochs = [epoch.epoch for epoch in fitted.history]
    mixed = "on mixed images: harder than validation" if augment.mixup or augment.cutmix else "augmented"
    probe_alone = len(epochs) == len(fitted.steps) == 1
    labels = {
        "train": "training" if probe_alone else f"training ({mixed})",
        "validation": "validation" if fitted.held is None else "cross-validation",
    }
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, label in labels.items():
            values = [getattr(epoch, f"{part}_{name}") for epoch in fitted.history]
            axes.plot(epochs, values, marker="o" if len(epochs) <= _MAX_MARKED_EPOCHS else None, label=label)
        axes.axvline(fitted.best_epoch, color="grey", linestyle=":", label=f"kept: epoch {fitted.best_epoch}")
        axes.set(
            xlabel="epoch (1: linear probe)" if fitted.steps else "epoch",
            title=name.capitalize(),
            xlim=(epochs[0] - 0.5, epochs[-1] + 0.5),
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def confusion(metrics: Metrics) -> Figure:
    """The confusion matrix, coloured by the share of the true class.

    Up to 20 classes show their counts, and up to 60 their names. Beyond 250 classes, neighbouring classes are merged
    into blocks. From 21 classes on, a list of the most frequent confusions stands beside the matrix.
    """
    labels = [row.label for row in metrics.per_class]
    counts = np.array(metrics.confusion_matrix)
    if len(labels) <= _MAX_CLASSES_WITH_COUNTS:
        side = max(5.0, 1.8 + 0.45 * len(labels))
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        _write_counts(axes, counts)
    else:
        side = max(7.5, 1.5 + 0.16 * min(len(labels), _MAX_CLASSES_WITH_NAMES))
        figure = Figure(figsize=(side + 5.5, side), layout="constrained")
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 4))
        _list_confusions(beside, counts, labels)
    picture, block = _draw_matrix(axes, counts)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    title = f"Test split, n = {metrics.n:,}: accuracy {metrics.accuracy:.2%}"
    axes.set_title(f"{title}\neach cell is {block}x{block} classes" if block > 1 else title)
    if len(labels) <= _MAX_CLASSES_WITH_NAMES:
        _write_names(axes, labels)
        axes.set(xlabel="predicted class", ylabel="true class")
    else:
        axes.set(xlabel="index of the predicted class", ylabel="index of the true class")
    return figure


def reliability(test: Evaluation) -> Figure:
    """Accuracy by confidence, before and after calibration, above how often each confidence occurs."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    rows = figure.subplots(2, 2, height_ratios=(3, 1), sharex=True, sharey="row", squeeze=False)
    before = calibration(test.labels, uncalibrated(test))
    for column, (name, measured) in enumerate((("Before", before), ("After", test.metrics.calibration))):
        _diagram(rows[0, column], measured)
        _histogram(rows[1, column], measured)
        error = measured.expected_calibration_error
        rows[0, column].set_title(f"{name} calibration: expected calibration error {error:.4f}")
    rows[0, 0].set(ylabel="accuracy")
    rows[0, 0].legend(loc="upper left")
    rows[1, 0].set(ylabel="share of images")
    figure.suptitle(f"Test split, n = {test.metrics.n:,}")
    return figure


def coverage(curve: CoverageCurve, reject: Reject | None, n: int) -> Figure:
    """Accuracy of the most confident predictions, over the share of the n test images that they cover."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(curve.coverage) == 1 else None  # a line needs two points
    axes.plot(curve.coverage, curve.accuracy, marker=marker, label="most confident first")
    if reject is not None:
        axes.axhline(reject.target_accuracy, color="grey", linestyle=":", label=f"target {reject.target_accuracy:.2%}")
    if reject is not None and reject.test is not None and reject.test.accuracy is not None:
        label = f"threshold {reject.threshold:.3f}, from validation; bars: 95% intervals"
        axes.plot(reject.test.coverage, reject.test.accuracy, "o", color="tab:red", label=label)
        if reject.test.coverage_interval and reject.test.accuracy_interval:
            across, along = reject.test.coverage_interval, reject.test.accuracy_interval
            axes.hlines(reject.test.accuracy, across.lower, across.upper, color="tab:red")
            axes.vlines(reject.test.coverage, along.lower, along.upper, color="tab:red")
    axes.set(
        xlim=(0, 1.01),
        xlabel="coverage: share of the test images",
        ylabel="accuracy of these predictions",
        title=f"Test split, n = {n:,}",
    )
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _shares(counts: Counts) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _draw_matrix(axes: Axes, counts: Counts) -> tuple[AxesImage, int]:
    """Returns the picture, and the number of classes per side of a cell."""
    block = -(-len(counts) // _MAX_CELLS)
    starts = np.arange(0, len(counts), block)
    merged = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    end = len(starts) * block - 0.5
    extent = (-0.5, end, end, -0.5)
    return axes.imshow(_shares(merged), cmap="Blues", vmin=0, vmax=1, extent=extent, interpolation="nearest"), block


def _write_names(axes: Axes, labels: Sequence[str]) -> None:
    names, few = [shortened(label) for label in labels], len(labels) <= _MAX_CLASSES_WITH_COUNTS
    angle = 0 if max(map(len, labels)) <= 2 else 45 if few else 90
    axes.set_yticks(range(len(labels)), names, fontsize=9 if few else 7)
    axes.set_xticks(range(len(labels)), names, fontsize=9 if few else 7, rotation=angle)
    if angle == 45:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _write_counts(axes: Axes, counts: Counts) -> None:
    shares = _shares(counts)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)


def _list_confusions(axes: Axes, counts: Counts, labels: Sequence[str]) -> None:
    """Draws the most frequent confusions as bars."""
    wrong = counts - np.diag(np.diag(counts))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:_SHOWN_CONFUSIONS]
    pairs = [
        (row, column) for row, column in zip(*np.unravel_index(largest, wrong.shape), strict=True) if wrong[row, column]
    ]
    support, shares = counts.sum(axis=1), _shares(counts)
    axes.barh(range(len(pairs)), [shares[pair] for pair in pairs], color="tab:red", alpha=0.6)
    names = [f"{shortened(labels[true], 20)} as {shortened(labels[predicted], 20)}" for true, predicted in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    for i, pair in enumerate(pairs):
        axes.text(shares[pair], i, f" {wrong[pair]} of {support[pair[0]]}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="share of the true class", title="Most frequent confusions", xlim=(0, 1))


def _diagram(axes: Axes, measured: Calibration) -> None:
    bins = [part for part in measured.bins if part.count]
    lower, upper = ([getattr(part, edge) for part in bins] for edge in ("lower", "upper"))
    accuracy, confidence = ([getattr(part, value) for part in bins] for value in ("accuracy", "confidence"))
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect calibration")
    width = np.subtract(upper, lower)
    axes.bar(lower, accuracy, width, align="edge", alpha=0.6, edgecolor="white", color="tab:blue", label="accuracy")
    axes.hlines(confidence, lower, upper, color="tab:red", label="mean confidence")
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _histogram(axes: Axes, measured: Calibration) -> None:
    counts = np.array([part.count for part in measured.bins])
    lower, upper = ([getattr(part, edge) for part in measured.bins] for edge in ("lower", "upper"))
    axes.bar(lower, counts / counts.sum(), np.subtract(upper, lower), align="edge", color="tab:grey", edgecolor="white")
    axes.set(xlabel="confidence")
