"""Compares two models on the same images and tests whether the difference may be chance. Uses NumPy only."""

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from schemas.base import Frozen
from schemas.evaluation import WILSON, EvaluationReport, Interval, Rate
from schemas.metrics import Z_95, wilson_interval

Right = npt.NDArray[np.bool_]
"""bool [images]: whether the model classifies each image correctly."""

SIGNIFICANCE = 0.05
Difference = Annotated[float, Field(ge=-1, le=1)]


class Contestant(Frozen):
    model: str
    accuracy: Rate
    accuracy_interval: Annotated[Interval, Field(description=WILSON)]


class DifferenceInterval(Frozen):
    lower: Difference
    upper: Difference


class Comparison(Frozen):
    """Two models on the same n images. Differences are B's accuracy minus A's."""

    n: Annotated[int, Field(ge=1, description="images")]
    a: Contestant
    b: Contestant
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    difference: Difference
    difference_interval: Annotated[DifferenceInterval, Field(description="95% interval for paired proportions")]
    p_value: Annotated[Rate, Field(description="McNemar's exact test, two-sided")]
    verdict: Annotated[str, Field(description="one sentence for readers who do not know the test")]

    @property
    def b_is_worse(self) -> bool:
        """Returns whether A is better than B by more than chance."""
        return self.difference < 0 and self.p_value < SIGNIFICANCE


class EvaluationComparison(Frozen):
    """Two versions of a model on the same images. Images that either version cannot read are excluded."""

    a: EvaluationReport
    b: EvaluationReport
    comparison: Comparison


def compare(a: tuple[str, Right], b: tuple[str, Right]) -> Comparison:
    """Compares two models on the same images. a and b are each a name and Right, with at least one image."""
    both, only_a, only_b, neither = _paired(a[1], b[1])
    n = len(a[1])
    p_value = mcnemar(only_a, only_b)
    return Comparison(
        n=n,
        a=_contestant(*a),
        b=_contestant(*b),
        both_right=both,
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=neither,
        difference=(only_b - only_a) / n,
        difference_interval=paired_interval(only_a, only_b, n),
        p_value=p_value,
        verdict=_verdict(*((b[0], a[0]) if only_b > only_a else (a[0], b[0])), p_value),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the p-value of McNemar's exact two-sided test (1947).

    Images that both models classify correctly, or both incorrectly, do not count.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    log_scale = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(math.exp(log_scale - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(fewer + 1))
    return min(1.0, 2 * tail)  # if the counts are equal, both tails contain the middle term


def paired_interval(only_a: int, only_b: int, n: int) -> DifferenceInterval:
    """Returns the 95% interval of B's accuracy minus A's on the same n images.

    Wald's interval with 0.5 added to each cell of the table, which is accurate for small n too (Agresti & Min, 2005).
    """
    b, c, total = only_a + 0.5, only_b + 0.5, n + 2
    centre = (c - b) / total
    half = Z_95 * math.sqrt((b + c) - (c - b) ** 2 / total) / total
    return DifferenceInterval(lower=max(-1.0, centre - half), upper=min(1.0, centre + half))


def _paired(a: Right, b: Right) -> tuple[int, int, int, int]:
    """Returns how many images both classify correctly, only a, only b, and neither."""
    return int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum()), int((~a & ~b).sum())


def _contestant(name: str, right: Right) -> Contestant:
    hits = int(right.sum())
    return Contestant(model=name, accuracy=hits / len(right), accuracy_interval=wilson_interval(hits, len(right)))


def _verdict(better: str, worse: str, p_value: float) -> str:
    if p_value >= SIGNIFICANCE:
        return f"The difference may be chance (p = {p_value:.2g})."
    return f"{better} is better than {worse} by more than chance (p = {p_value:.2g})."
