"""Writes a bundle's report/: tables and plots. A plot that fails is left out, so that the bundle is still written."""

import csv
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from schemas.bundle import Explain
from schemas.heat_map import overlay
from schemas.manifest import Reject, render_json
from schemas.selective_prediction import CoverageCurve
from trainer.bundle import plots
from trainer.bundle.image_grid import Captioned, image_grid, plain, save, shortened
from trainer.bundle.preview import samples
from trainer.data.split import Splits
from trainer.data.suspects import Suspect
from trainer.errors import one_line
from trainer.evaluation.calibration import coverage_of
from trainer.evaluation.evaluate import Evaluation
from trainer.models.layers import Shape
from trainer.models.summary import summary
from trainer.recipe import Recipe
from trainer.training.loop import Fitted
from trainer.training.progress import Epoch

GRID = 25
_CSV_POINTS = 200
_NAME_LENGTH = 22
_CORRECT, _WRONG = "#1a7f37", "#cf222e"


def write_report(
    folder: Path, data: Splits, test: Evaluation, reject: Reject | None, explain: Explain | None = None
) -> list[str]:
    """Writes the tables and plots of the test split into a new folder; with explain, maps lie over the mistakes.

    Returns a sentence for each plot that could not be drawn. Raises OSError.
    """
    folder.mkdir()
    curve = coverage_of(test)
    _write_table(folder / "coverage.csv", ("threshold", "coverage", "accuracy"), _coverage_rows(curve))
    answered = ("file", "label", "prediction", "probability")
    _write_table(folder / "predictions.csv", answered, _prediction_rows(data, test))
    (folder / "classification_report.json").write_text(render_json(test.metrics), encoding="utf-8")
    return write_plots(
        folder,
        {
            "confusion_matrix": lambda: plots.confusion(test.metrics),
            "coverage": lambda: plots.coverage(curve, reject, test.metrics.n),
            "reliability": lambda: plots.reliability(test),
            "predictions": lambda: _predictions(data, test),
            "mistakes": lambda: _mistakes(data, test, explain),
        },
    )


def write_training_report(
    folder: Path,
    recipe: Recipe,
    data: Splits,
    suspects: Sequence[Suspect],
    fitted: Fitted,
    test: Evaluation,
    reject: Reject | None,
    explain: Explain | None,
) -> list[str]:
    """Like write_report, and describes the network and its training."""
    failures = write_report(folder, data, test, reject, explain)
    epochs = [field.name for field in dataclasses.fields(Epoch)]
    _write_table(folder / "history.csv", epochs, map(dataclasses.astuple, fitted.history))
    if suspects:
        rows = [(suspect.name, suspect.label, suspect.split, suspect.kind) for suspect in suspects]
        _write_table(folder / "suspects.csv", ("file", "label", "split", "reason"), rows)
    shape = Shape(**data.input.model_dump(include={"height", "width", "channels"}), classes=len(data.labels))
    (folder / "model.txt").write_text(summary(fitted.network, shape), encoding="utf-8")
    training: dict[str, Callable[[], Figure]] = {
        "curves": lambda: plots.curves(fitted, data, recipe.augment),
        "samples": lambda: samples(recipe, data),
    }
    return failures + write_plots(folder, training)


def write_plots(folder: Path, figures: dict[str, Callable[[], Figure]]) -> list[str]:
    """Draws <name>.png for each figure; returns a sentence for each that failed. Raises OSError."""
    failures = []
    for name, draw in figures.items():
        path = folder / f"{name}.png"
        try:
            save(draw(), path)
        except OSError:
            raise
        except Exception as error:  # matplotlib raises many types, also for unusual labels
            path.unlink(missing_ok=True)
            failures.append(f"report/{name}.png could not be drawn: {one_line(error)}")
    return failures


def _prediction_rows(data: Splits, test: Evaluation) -> Iterator[Sequence[object]]:
    answers = zip(test.labels, test.predicted, test.probabilities.max(axis=1), strict=True)
    for i, (label, predicted, probability) in enumerate(answers):
        yield data.test.name(i), data.labels[label], data.labels[predicted], f"{probability:.6f}"


def _coverage_rows(curve: CoverageCurve) -> Iterator[Sequence[object]]:
    """Yields at most 200 points, evenly spaced along the curve."""
    count = len(curve.threshold)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _CSV_POINTS)).round().astype(np.int64))
    return zip(*(values[chosen].tolist() for values in (curve.threshold, curve.coverage, curve.accuracy)), strict=True)


def _write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _predictions(data: Splits, test: Evaluation) -> Figure:
    chosen = np.random.default_rng(0).permutation(test.metrics.n)[:GRID]
    title = f"{len(chosen)} of {test.metrics.n:,} test images, with the prediction and its probability"
    return image_grid(title, _answers(data, test, chosen))


def _mistakes(data: Splits, test: Evaluation, explain: Explain | None) -> Figure:
    wrong = np.flatnonzero(~test.correct)
    most_confident = wrong[np.argsort(-test.probabilities[wrong].max(axis=1), kind="stable")][:GRID]
    order = f", the {GRID} most confident" if len(wrong) > GRID else ""
    title = f"Wrong predictions: {len(wrong):,} of {test.metrics.n:,} test images{order}"
    cells = _answers(data, test, most_confident)
    if explain and cells:
        title += "\ncoloured: where the evidence for the predicted class lies"
        _, maps = explain(np.stack([cell.image for cell in cells]))
        cells = [cell._replace(image=overlay(cell.image, map_)) for cell, map_ in zip(cells, maps, strict=True)]
    return image_grid(title, cells)


def _answers(data: Splits, test: Evaluation, positions: npt.NDArray[np.int64]) -> list[Captioned]:
    cells = []
    for i in positions:
        predicted, true = data.labels[test.predicted[i]], data.labels[test.labels[i]]
        lines = [f"{shortened(predicted)} ({test.probabilities[i].max():.0%})", _tail(data.test.name(int(i)))]
        if not test.correct[i]:
            lines.insert(1, f"true: {shortened(true)}")
        cells.append(Captioned(data.test.images[i], "\n".join(lines), _CORRECT if test.correct[i] else _WRONG))
    return cells


def _tail(name: str) -> str:
    """Returns the end of a file name: the start is often the class's folder."""
    return plain(name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}")
