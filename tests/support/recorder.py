"""A reporter that keeps what a run reports."""

from types import TracebackType
from typing import Self

import torch

from trainer.training.progress import Epoch

CPU = torch.device("cpu")


class Recorder:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[Epoch] = []
        self.left = False

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, done: int, of: int, loss: float, accuracy: float, images_per_second: float) -> None:
        self.steps.append((done, of))

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        self.epochs.append(epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left = True
