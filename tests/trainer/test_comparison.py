from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import VariantName
from schemas.metrics import measure
from tests.bundles import write_bundle
from trainer.comparison import Comparison, check_same_labels, compare, mcnemar, paired_interval
from trainer.errors import DataError
from trainer.scoring import Score, open_model


def answers(right: list[int]) -> Score:
    """Of a model that has these images right (1) or wrong (0)."""
    labels = np.zeros(len(right), np.int64)
    probabilities = np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right], np.float32)
    return Score(labels, probabilities, measure(labels, probabilities, ["yes", "no"]))


def compared(both: int, only_a: int, only_b: int, neither: int) -> Comparison:
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return compare(("a", answers(a)), ("b", answers(b)))


def test_the_table_is_counted_and_the_accuracies_are_those_of_each() -> None:
    found = compared(50, 4, 16, 30)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (50, 4, 16, 30)
    assert (found.a.accuracy, found.b.accuracy, found.difference) == (0.54, 0.66, 0.12)


def test_mcnemar_is_the_binomial_tail_of_the_images_that_tell_them_apart() -> None:
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1


def test_the_verdict_is_a_plain_sentence() -> None:
    assert compared(90, 1, 9, 0).verdict == "b is better than a by more than chance (p = 0.021)."
    assert compared(90, 9, 1, 0).verdict == "a is better than b by more than chance (p = 0.021)."
    assert compared(90, 2, 8, 0).verdict == "The difference may be chance (p = 0.11)."
    assert compared(10, 0, 0, 0).verdict == "The difference may be chance (p = 1)."


def test_the_interval_holds_the_true_difference_in_19_of_20_samples() -> None:
    """Over 4,000 samples of 60 images from known rates; the coverage's own standard error is 0.3 points."""
    rng = np.random.default_rng(0)
    for rates in ([0.7, 0.05, 0.15, 0.1], [0.5, 0.2, 0.2, 0.1], [0.9, 0.03, 0.05, 0.02]):
        held = 0
        for _, only_a, only_b, _ in rng.multinomial(60, rates, size=4000):
            interval = paired_interval(int(only_a), int(only_b), 60)
            held += interval.lower <= rates[2] - rates[1] <= interval.upper
        assert 0.94 < held / 4000 < 0.985


def test_the_interval_is_symmetric_narrows_with_images_and_stays_in_its_range() -> None:
    there, back = paired_interval(3, 12, 100), paired_interval(12, 3, 100)
    assert (there.lower, there.upper) == pytest.approx((-back.upper, -back.lower))
    wide, narrow = paired_interval(3, 12, 100), paired_interval(300, 1200, 10_000)
    assert narrow.upper - narrow.lower < (wide.upper - wide.lower) / 9
    assert paired_interval(0, 1, 1).upper <= 1
    assert paired_interval(1, 0, 1).lower >= -1


def test_bundles_of_other_labels_are_refused_by_name_and_another_order_is_not(tmp_path: Path) -> None:
    a = open_model(write_bundle(tmp_path), VariantName.FP32)
    turned = replace(a, manifest=a.manifest.model_copy(update={"labels": ("blue", "red", "green")}))
    check_same_labels(a, turned)
    other = replace(a, manifest=a.manifest.model_copy(update={"labels": ("red", "green", "teal", "pink")}))
    with pytest.raises(DataError, match="has blue, which"):
        check_same_labels(a, other)
    with pytest.raises(DataError, match="has teal, pink, which"):
        check_same_labels(other, replace(a, manifest=other.manifest.model_copy(update={"labels": ("red", "green")})))
