"""The epochs of a run as TensorBoard event files, beside its checkpoints."""

import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.errors import UsageError
from trainer.training.progress import Epoch, Reporter


class TensorBoardReporter:
    """Passes everything on to another reporter, and writes the epochs. Raises UsageError without tensorboard."""

    def __init__(self, inner: Reporter, folder: Path) -> None:
        self._inner = inner
        self.note, self.step = inner.note, inner.step
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the package tensorboard. Install it with the extra [tensorboard]."
            ) from error
        self._writer = SummaryWriter(folder)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        self._inner.epoch(epoch, epochs, progress)
        for name, value in dataclasses.asdict(epoch).items():
            if name != "epoch":
                split, _, figure = name.partition("_")
                tag = f"{figure}/{split}" if split in {"train", "validation"} else name
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
