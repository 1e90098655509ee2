"""Progress reporters: a bar, one line per epoch, or silent."""

import sys
from dataclasses import dataclass
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Losses are mean cross-entropies in nats, without label smoothing.

    Training figures are measured during training: on augmented images and with dropout. Under mixup and CutMix a
    prediction scores the share of its label in the mixture, so training accuracy stays well below 1.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    score: float  # the recipe's monitor on validation, of which higher is better
    seconds: float
    images_per_second: float

    def line(self, epochs: int | None) -> str:
        """epochs is None if a time budget decides about their number."""
        number = f"{self.epoch}" if epochs is None else f"{self.epoch:>{len(str(epochs))}}/{epochs}"
        return (
            f"epoch {number}"
            f"  train loss {self.train_loss:.4f} accuracy {self.train_accuracy:.2%}"
            f"  validation loss {self.validation_loss:.4f} accuracy {self.validation_accuracy:.2%}"
            f"  {self.images_per_second:,.0f} images/s  {self.seconds:.1f} s"
        )


class Reporter:
    """Receives the progress of a run. It is a context manager that ends with the run, also after an error.

    `progress` is the completed share of the run, 0..1, by its steps or its time budget. `epochs` is None if a time
    budget decides about the number of epochs. The base class is silent.
    """

    def note(self, sentence: str) -> None:
        pass

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:
        pass

    def probe(self, epoch: Epoch) -> None:
        """Receives the figures of a linear probe, the first epoch of its run; a note has described them."""

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class LineReporter(Reporter):
    """Prints one line per epoch: for logs and other streams that are not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, sentence: str) -> None:
        print(sentence, file=self._stream, flush=True)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:  # noqa: ARG002
        print(epoch.line(epochs), file=self._stream, flush=True)


class BarReporter(Reporter):
    """Shows a bar over the whole run with loss, accuracy, images/s and the time left, and prints a line per epoch."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn(
                "loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}  {task.fields[speed]:,.0f} images/s"
            ),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0, loss=0.0, accuracy=0.0, speed=0.0)

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:  # noqa: ARG002
        self._progress.update(self._task, completed=progress, loss=loss, accuracy=accuracy, speed=images_per_second)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        self._progress.update(self._task, completed=progress)  # a time budget may have ended in validation
        self.note(epoch.line(epochs))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


def reporter_for(stream: TextIO = sys.stderr) -> Reporter:
    return BarReporter(Console(file=stream)) if stream.isatty() else LineReporter(stream)
