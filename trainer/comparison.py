"""Two models on the same images: how far apart they are, and whether that is more than chance."""

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import binomtest

from schemas.base import Frozen
from schemas.evaluation import Interval, Rate
from schemas.metrics import wilson_interval
from trainer.errors import DataError
from trainer.scoring import Model, Score

Right = npt.NDArray[np.bool_]

SIGNIFICANCE = 0.05
_Z_95 = 1.959963984540054
Difference = Annotated[float, Field(ge=-1, le=1)]


class Contestant(Frozen):
    model: str
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description="95% Wilson score interval of the accuracy")]


class DifferenceInterval(Frozen):
    lower: Difference
    upper: Difference


class Comparison(Frozen):
    """What two models say of the same n images. Differences are B's accuracy less A's."""

    n: Annotated[int, Field(ge=1, description="images")]
    a: Contestant
    b: Contestant
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    difference: Difference
    difference_interval: Annotated[DifferenceInterval, Field(description="95%, of paired proportions")]
    p_value: Annotated[Rate, Field(description="McNemar's exact test, two-sided")]

    @property
    def verdict(self) -> str:
        """One sentence for a person who does not know the test."""
        if self.p_value >= SIGNIFICANCE:
            return f"The difference may be chance (p = {self.p_value:.2g})."
        better, worse = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
        return f"{better.model} is better than {worse.model} by more than chance (p = {self.p_value:.2g})."


def check_same_labels(a: Model, b: Model) -> None:
    """Raises DataError naming the labels that only one of them has; their order may differ."""
    for one, other in ((a, b), (b, a)):
        alone = [label for label in one.manifest.labels if label not in other.manifest.labels]
        if alone:
            raise DataError(
                f"Only bundles of the same labels can be compared: {one.path} has {', '.join(alone)}, which "
                f"{other.path} has not."
            )


def compare(a: tuple[str, Score], b: tuple[str, Score]) -> Comparison:
    """The names of two models and their scores on the same images, in the same order."""
    rights = [score.probabilities.argmax(axis=1) == score.labels for _, score in (a, b)]
    both, only_a, only_b, neither = _paired(*rights)
    n = len(rights[0])
    return Comparison(
        n=n,
        a=_contestant(a[0], rights[0]),
        b=_contestant(b[0], rights[1]),
        both_right=both,
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=neither,
        difference=(only_b - only_a) / n,
        difference_interval=paired_interval(only_a, only_b, n),
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that as many images or more fall to one side (McNemar, 1947).

    Images that both models get right, or both wrong, say nothing of which is better.
    """
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(only_a: int, only_b: int, n: int) -> DifferenceInterval:
    """95% interval of B's accuracy less A's on the same n images.

    Wald's, after half an image is added to each cell of the table: close to 95% for small n too (Agresti & Min, 2005).
    """
    b, c, total = only_a + 0.5, only_b + 0.5, n + 2
    centre = (c - b) / total
    half = _Z_95 * math.sqrt((b + c) - (c - b) ** 2 / total) / total
    return DifferenceInterval(lower=max(-1.0, centre - half), upper=min(1.0, centre + half))


def _paired(a: Right, b: Right) -> tuple[int, int, int, int]:
    """How many images both have right, only a, only b, and neither."""
    return int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum()), int((~a & ~b).sum())


def _contestant(name: str, right: Right) -> Contestant:
    hits = int(right.sum())
    return Contestant(model=name, accuracy=hits / len(right), accuracy_interval=wilson_interval(hits, len(right)))
