import io

from rich.console import Console

from tests.support import colour_images
from tests.support.recorder import CPU
from trainer.models.build import build_network
from trainer.training.loop import fit
from trainer.training.progress import BarReporter, Epoch, LineReporter, Reporter

EPOCH = Epoch(3, 0.1, 0.5, 0.9, 0.6, 0.8, 0.8, 1.5, 2000)


def test_a_line_numbers_the_epochs_only_without_a_time_budget() -> None:
    assert EPOCH.line(200).startswith("epoch   3/200  train loss 0.5000 accuracy 90.00%")
    assert EPOCH.line(None).startswith("epoch 3  train loss")


def lines(reporter: Reporter, stream: io.StringIO, **changes: object) -> list[str]:
    recipe = colour_images.recipe(**changes)
    data = colour_images.splits(recipe)
    fit(build_network(recipe, data), data, recipe, CPU, reporter)
    return [line for line in stream.getvalue().splitlines() if "epoch" in line]


def test_a_run_with_a_time_budget_does_not_print_its_nominal_epochs() -> None:
    stream = io.StringIO()
    printed = lines(LineReporter(stream), stream, epochs=1000, max_seconds=0.5)
    assert printed
    assert not any("/1000" in line for line in printed)


def test_the_bar_reaches_the_end_of_a_run_with_a_time_budget() -> None:
    stream = io.StringIO()
    reporter = BarReporter(Console(file=stream, force_terminal=True, width=200))
    lines(reporter, stream, epochs=1000, max_seconds=0.5)
    assert reporter._progress.finished


def test_the_bar_is_full_after_an_epoch_in_whose_validation_the_time_ended() -> None:
    reporter = BarReporter(Console(file=io.StringIO(), force_terminal=True, width=200))
    with reporter:
        reporter.step(1, 0.99, 0.5, 0.9, 2000)
        assert not reporter._progress.finished
        reporter.epoch(EPOCH, None, 1.0)
        assert reporter._progress.finished
