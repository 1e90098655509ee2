"""The figure on the validation split that chooses the epoch: higher is better."""

import torch
from torch import Tensor

from trainer.recipe import Monitor


class ClassCounts:
    """Counts per class, float32 [3, classes]: correct predictions, predictions, and images."""

    def __init__(self, classes: int, device: torch.device | None = None) -> None:
        self.tensor = torch.zeros(3, classes, device=device)

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts predictions; both are class indices [n]. Nothing is read from the device."""
        hits = (predicted == labels).float()
        ones = torch.ones_like(hits)
        for row, index, values in zip(self.tensor, (labels, predicted, labels), (hits, ones, ones), strict=True):
            row.scatter_add_(0, index, values)


def score(monitor: Monitor, counts: Tensor, loss: float) -> float:
    """Returns the figure from class counts and the mean loss. Classes without images do not count."""
    counts = counts.double().cpu()
    hits, predicted, images = counts[:, counts[2] > 0]
    match monitor:
        case Monitor.ACCURACY:
            return float(hits.sum() / images.sum())
        case Monitor.BALANCED_ACCURACY:
            return float((hits / images).mean())
        case Monitor.MACRO_F1:
            return float((2 * hits / (predicted + images)).mean())
        case Monitor.LOG_LOSS:
            return -loss
