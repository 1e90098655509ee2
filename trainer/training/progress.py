"""What a person sees of a run while it goes on."""

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv. Losses are mean cross-entropies in nats, without label smoothing.

    Training figures are over the augmented images, as the network saw them, with dropout at work.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    images_per_second: float

    def line(self, epochs: int) -> str:
        return (
            f"epoch {self.epoch:>{len(str(epochs))}}/{epochs}"
            f"  train loss {self.train_loss:.4f} accuracy {self.train_accuracy:.2%}"
            f"  validation loss {self.validation_loss:.4f} accuracy {self.validation_accuracy:.2%}"
            f"  {self.images_per_second:,.0f} images/s  {self.seconds:.1f} s"
        )


class Reporter(Protocol):
    """Told of steps and epochs by the loop; a context that is left when the run ends, however it ends."""

    def note(self, sentence: str) -> None: ...
    def step(self, done: int, of: int, loss: float, accuracy: float, images_per_second: float) -> None: ...
    def epoch(self, epoch: Epoch, epochs: int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class SilentReporter:
    """Says nothing: of all processes of a run but the first, and to build others on."""

    def note(self, sentence: str) -> None:
        pass

    def step(self, done: int, of: int, loss: float, accuracy: float, images_per_second: float) -> None:
        pass

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class LineReporter(SilentReporter):
    """One line an epoch: for logs, and wherever there is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def note(self, sentence: str) -> None:
        print(sentence, file=self._stream, flush=True)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        print(epoch.line(epochs), file=self._stream, flush=True)


class BarReporter:
    """A bar over the whole run with loss, accuracy, images/s and the time left, and a line an epoch above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}  {task.fields[speed]:,.0f} images/s"
            ),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, loss=0.0, accuracy=0.0, speed=0.0)

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def step(self, done: int, of: int, loss: float, accuracy: float, images_per_second: float) -> None:
        self._progress.update(
            self._task, completed=done, total=of, loss=loss, accuracy=accuracy, speed=images_per_second
        )

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self._progress.console.print(epoch.line(epochs), highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


def reporter_for(stream: TextIO = sys.stderr) -> Reporter:
    return BarReporter(Console(file=stream)) if stream.isatty() else LineReporter(stream)
