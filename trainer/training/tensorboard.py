"""A run's figures as TensorBoard's event files, beside its checkpoints."""

import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.errors import UsageError
from trainer.training.progress import Epoch, Reporter


class TensorBoardReporter:
    """Tells another reporter all that it is told, and writes the epochs. Raises UsageError without tensorboard."""

    def __init__(self, inner: Reporter, folder: Path) -> None:
        self._inner = inner
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the package tensorboard; install it with the extra [tensorboard]."
            ) from error
        self._writer = SummaryWriter(folder)

    def note(self, sentence: str) -> None:
        self._inner.note(sentence)

    def step(self, done: int, of: int, loss: float, accuracy: float, images_per_second: float) -> None:
        self._inner.step(done, of, loss, accuracy, images_per_second)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self._inner.epoch(epoch, epochs)
        for name, value in dataclasses.asdict(epoch).items():
            if name != "epoch":
                part, _, figure = name.partition("_")
                tag = f"{figure}/{part}" if part in {"train", "validation"} else name
                self._writer.add_scalar(tag, value, epoch.epoch)
        self._writer.flush()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, traceback)
        self._writer.close()
