"""A reporter that keeps what a run reports."""

import torch

from trainer.training.progress import Epoch, Reporter

CPU = torch.device("cpu")


class Recorder(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.progress: list[float] = []
        self.epochs: list[Epoch] = []
        self.left = False

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:
        self.steps.append(step)
        self.progress.append(progress)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        self.epochs.append(epoch)
        self.progress.append(progress)

    def __exit__(self, *exception: object) -> None:
        self.left = True
