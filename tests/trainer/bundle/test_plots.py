from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from schemas.evaluation import Interval, Metrics
from schemas.manifest import TrainingStep
from schemas.metrics import measure
from tests.support import colour_images
from trainer.bundle.image_grid import MAX_IMAGES, Captioned, image_grid, plain, save, shortened
from trainer.bundle.plots import confusion, curves
from trainer.bundle.report import write_plots
from trainer.data.split import split
from trainer.recipe import AugmentConfig, Precision
from trainer.training.loop import Fitted
from trainer.training.progress import Epoch


def metrics_of(classes: int, images: int = 5) -> Metrics:
    """Returns metrics in which each class is predicted once as the class after it."""
    labels = np.repeat(np.arange(classes), images)
    predicted = labels.copy()
    predicted[::images] = (predicted[::images] + 1) % classes
    probabilities = np.full((len(labels), classes), 0.1 / classes, np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.9
    return measure(labels, probabilities, [f"class {i}" for i in range(classes)])


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 60, 61, 1000])
def test_the_confusion_plot_has_a_bounded_size_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    save(confusion(metrics_of(classes)), tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert max(image.size) < 2000
        assert len(image.convert("L").getcolors() or range(256)) > 3


def test_the_confusion_plot_shows_counts_for_few_classes_and_the_largest_confusions_for_many() -> None:
    assert {"4", "1"} <= texts(confusion(metrics_of(20)))
    many = confusion(metrics_of(1000))
    assert texts(many) == {" 1 of 5"}
    names = [label.get_text() for axes in many.axes for label in axes.get_yticklabels()]
    assert "class 0 as class 1" in names


def test_a_confusion_matrix_without_mistakes_is_drawn(tmp_path: Path) -> None:
    labels = np.arange(30)
    save(confusion(measure(labels, np.eye(30, dtype=np.float32), [str(i) for i in labels])), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size


def test_labels_may_contain_any_characters(tmp_path: Path) -> None:
    cells = [Captioned(np.zeros((8, 8, 1), np.uint8), shortened(label)) for label in ("$a$", r"$\x", "ローズ", "_b")]
    save(image_grid("labels", cells), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size


def test_a_grid_has_a_bounded_number_of_images() -> None:
    figure = image_grid("many", [Captioned(np.zeros((8, 8, 3), np.uint8), "")] * 10_000)
    assert len(figure.axes[0].images) == MAX_IMAGES


def test_a_plot_that_fails_is_reported_and_the_others_are_drawn(tmp_path: Path) -> None:
    def fails() -> Figure:
        raise MemoryError("no memory\nfor so large a plot")

    failures = write_plots(tmp_path, {"first": fails, "second": lambda: confusion(metrics_of(2))})
    assert failures == ["report/first.png could not be drawn: no memory for so large a plot"]
    assert [file.name for file in tmp_path.iterdir()] == ["second.png"]


def test_a_full_disk_is_not_the_fault_of_a_plot(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_plots(tmp_path / "missing", {"first": lambda: confusion(metrics_of(2))})


def test_names_that_are_not_utf_8_and_dollar_signs_are_drawn(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    save(image_grid("names", [Captioned(pixels, plain("caf\udce9 $x$"), "black")]), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").exists()


def test_the_curves_of_a_linear_probe_name_it_and_its_cross_validation() -> None:
    step = TrainingStep(
        name="linear probe",
        seconds=1,
        validation_accuracy=0.8,
        validation_interval=Interval(lower=0.7, upper=0.9),
        validation_images=90,
        folds=5,
        kept=True,
    )
    epoch = Epoch(1, 0.0, 0.1, 1.0, 0.5, 0.8, 0.8, 1.0, 90.0)
    held = np.zeros(90, np.int64), np.zeros((90, 3), np.float32)
    probe = Fitted(nn.Identity(), (epoch,), 1, 1.0, 1, Precision.FP32, steps=(step,), held=held)
    data = split(colour_images.colours(90), colour_images.recipe().data)
    for axes in curves(probe, data, AugmentConfig(crop=0.5)).axes:
        assert axes.get_xlabel() == "epoch (1: linear probe)"
        assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
        assert [line.get_label() for line in axes.lines] == ["training", "cross-validation", "kept: epoch 1"]
