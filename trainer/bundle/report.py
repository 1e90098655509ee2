"""The bundle's report/: curves, confusion heat map, what the network sees and says, how sure it is, how rightly."""

import csv
import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from schemas.evaluation import Metrics
from schemas.image import Pixels
from schemas.manifest import Reject
from trainer.bundle.plots import coverage, reliability, write_coverage
from trainer.evaluation.calibration import coverage_of
from trainer.evaluation.evaluate import Evaluation
from trainer.training.progress import Epoch

GRID = 25
_LARGEST_ANNOTATED_MATRIX = 20
_RIGHT, _WRONG = "#1a7f37", "#cf222e"


@dataclasses.dataclass(frozen=True)
class ReportInput:
    """samples: training images as the network sees them, uint8 [n, height, width, channels], with class indices."""

    labels: tuple[str, ...]
    history: Sequence[Epoch]
    best_epoch: int
    test: Evaluation
    reject: Reject | None
    samples: Pixels
    sample_labels: npt.NDArray[np.int64]
    summary: str
    seed: int


def write_report(folder: Path, report: ReportInput) -> None:
    folder.mkdir()
    _write_history(folder / "history.csv", report.history)
    (folder / "model.txt").write_text(report.summary)
    (folder / "classification_report.json").write_text(report.test.metrics.model_dump_json(indent=2) + "\n")
    save(_curves(report.history, report.best_epoch), folder / "curves.png")
    save(_confusion(report.test.metrics, report.labels), folder / "confusion_matrix.png")
    curve = coverage_of(report.test)
    write_coverage(folder / "coverage.csv", curve)
    save(coverage(curve, report.reject), folder / "coverage.png")
    save(reliability(report.test), folder / "reliability.png")
    save(_samples(report), folder / "samples.png")
    save(_predictions(report), folder / "predictions.png")
    save(_mistakes(report), folder / "mistakes.png")


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Epoch)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in history)


def save(figure: Figure, path: Path) -> None:
    """As PNG. A class may be called what the font has no signs for: they are boxes, and nobody is warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=110, format="png")


def shortened(label: str, length: int = 16) -> str:
    """The name of a class, fit to stand beside others in a picture."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _curves(history: Sequence[Epoch], best_epoch: int) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    marker = "o" if len(history) == 1 else None  # one epoch makes a point, not a line
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        for part in ("train", "validation"):
            values = [getattr(epoch, f"{part}_{name}") for epoch in history]
            axes.plot(epochs, values, marker=marker, label="training (augmented)" if part == "train" else part)
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", title=name.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _confusion(metrics: Metrics, labels: tuple[str, ...]) -> Figure:
    """Colour is the share of the true class, so that a rare class shows as well as a common one; numbers are counts."""
    counts = np.array(metrics.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(5.0, 1.8 + 0.45 * len(labels))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    # The root of the share: one mistake in a thousand must not look like none.
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    ticks = range(len(labels))
    shown = [shortened(label) for label in labels]
    axes.set_xticks(ticks, shown, rotation=45 if max(map(len, labels)) > 2 else 0)
    axes.set_yticks(ticks, shown)
    axes.set(xlabel="predicted", ylabel="true", title=f"Test split, n = {metrics.n:,}: accuracy {metrics.accuracy:.2%}")
    if len(labels) <= _LARGEST_ANNOTATED_MATRIX:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.25 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=9)
    return figure


def _samples(report: ReportInput) -> Figure:
    figure, cells = grid("Training images as the network sees them, augmented", len(report.samples))
    for axes, image, label in zip(cells, report.samples, report.sample_labels, strict=False):
        draw(axes, image, shortened(report.labels[label]))
    return figure


def _predictions(report: ReportInput) -> Figure:
    chosen = np.random.default_rng(report.seed).permutation(report.test.metrics.n)[:GRID]
    figure, cells = grid("Random test images: what was said, and how surely", len(chosen))
    _show_answers(cells, chosen, report)
    return figure


def _mistakes(report: ReportInput) -> Figure:
    predicted = report.test.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != report.test.data.labels)
    surest = wrong[np.argsort(-report.test.probabilities[wrong, predicted[wrong]], kind="stable")][:GRID]
    title = f"Wrong on the test split: {len(wrong):,} of {len(predicted):,}" + (
        ", the surest first" if len(wrong) > 1 else ""
    )
    figure, cells = grid(title, len(surest))
    _show_answers(cells, surest, report)
    return figure


def _show_answers(cells: Sequence[Axes], chosen: npt.NDArray[np.int64], report: ReportInput) -> None:
    for axes, i in zip(cells, chosen, strict=False):
        row, true = report.test.probabilities[i], int(report.test.data.labels[i])
        said = int(row.argmax())
        text = f"{shortened(report.labels[said])} ({row[said]:.0%})"
        if said != true:
            text += f"\nis {shortened(report.labels[true])}"
        draw(axes, report.test.data.images[i], text, _RIGHT if said == true else _WRONG)


def grid(title: str, count: int, columns: int = 5) -> tuple[Figure, list[Axes]]:
    """A figure of so many empty cells, row by row."""
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(1.7 * columns, 1.9 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells:
        axes.axis("off")
    return figure, cells


def draw(axes: Axes, image: Pixels, title: str, colour: str = "black") -> None:
    """A picture, grey or in colour, with its title above."""
    grey = image.shape[2] == 1
    axes.imshow(image[:, :, 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_title(title, color=colour, fontsize=9)
