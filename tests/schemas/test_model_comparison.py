import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from schemas.model_comparison import Comparison, compare, mcnemar, paired_interval
from tests.support.encoded_images import BOUNDED


def compared(both: int, only_a: int, only_b: int, neither: int) -> Comparison:
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return compare(("a", np.array(a)), ("b", np.array(b)))


def test_counts_the_contingency_table_and_the_accuracy_of_each_model() -> None:
    found = compared(50, 4, 16, 30)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (50, 4, 16, 30)
    assert (found.a.accuracy, found.b.accuracy, found.difference) == (0.54, 0.66, 0.12)


def test_mcnemar_is_the_binomial_tail_of_the_discordant_images() -> None:
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1


@given(st.integers(0, 400), st.integers(0, 400))
@example(10_000, 9_800)
@example(60_000, 0)
@example(0, 1)
@BOUNDED
def test_mcnemar_equals_scipys_exact_test(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_the_verdict_is_a_plain_sentence() -> None:
    assert compared(90, 1, 9, 0).verdict == "b is better than a by more than chance (p = 0.021)."
    assert compared(90, 9, 1, 0).verdict == "a is better than b by more than chance (p = 0.021)."
    assert compared(90, 2, 8, 0).verdict == "The difference may be chance (p = 0.11)."
    assert compared(10, 0, 0, 0).verdict == "The difference may be chance (p = 1)."


def test_paired_interval_covers_the_true_difference_in_19_of_20_samples() -> None:
    """Draws 4,000 samples of 60 images with known rates; the standard error of the coverage is 0.3 points."""
    rng = np.random.default_rng(0)
    for rates in ([0.7, 0.05, 0.15, 0.1], [0.5, 0.2, 0.2, 0.1], [0.9, 0.03, 0.05, 0.02]):
        held = 0
        for _, only_a, only_b, _ in rng.multinomial(60, rates, size=4000):
            interval = paired_interval(int(only_a), int(only_b), 60)
            held += interval.lower <= rates[2] - rates[1] <= interval.upper
        assert 0.94 < held / 4000 < 0.985


def test_paired_interval_is_symmetric_narrows_with_n_and_stays_within_bounds() -> None:
    there, back = paired_interval(3, 12, 100), paired_interval(12, 3, 100)
    assert (there.lower, there.upper) == pytest.approx((-back.upper, -back.lower))
    wide, narrow = paired_interval(3, 12, 100), paired_interval(300, 1200, 10_000)
    assert narrow.upper - narrow.lower < (wide.upper - wide.lower) / 9
    assert paired_interval(0, 1, 1).upper <= 1
    assert paired_interval(1, 0, 1).lower >= -1
