import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn

from schemas.errors import MetricsError
from schemas.evaluation import Averages
from schemas.metrics import (
    CALIBRATION_BINS,
    Labels,
    Probabilities,
    calibration,
    learnt_something,
    measure,
    wilson_interval,
    with_intervals,
    worst_mistakes,
)
from tests.support.encoded_images import BOUNDED

Case = tuple[Labels, Probabilities]


def names(probabilities: Probabilities) -> list[str]:
    return [f"class {i}" for i in range(probabilities.shape[1])]


@st.composite
def cases(draw: st.DrawFn, classes: int | None = None) -> Case:
    """Few images and few probability levels, so that ties, exact 0 and 1, and absent classes are common."""
    classes, n = classes or draw(st.integers(2, 7)), draw(st.integers(1, 12))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    weights = np.array(
        draw(st.lists(st.lists(st.integers(0, 3), min_size=classes, max_size=classes), min_size=n, max_size=n)),
        dtype=np.float64,
    )
    weights[weights.sum(axis=1) == 0] = 1
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    number = draw(st.sampled_from([np.float32, np.float64]))
    return np.array(labels, dtype=np.int64), probabilities.astype(number)


def random_case(classes: int, n: int, number: type[np.floating], seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return rng.integers(0, classes, n), probabilities.astype(number)


ONE_IMAGE: Case = (np.array([1]), np.array([[0.0, 1.0]]))
ONE_CLASS: Case = (np.zeros(5, dtype=np.int64), np.full((5, 3), [0.5, 0.5, 0.0], dtype=np.float32))
CERTAIN_AND_WRONG: Case = (np.array([0, 1]), np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32))


@given(cases())
@example(ONE_IMAGE)
@example(ONE_CLASS)
@example(CERTAIN_AND_WRONG)
@example(random_case(10, 500, np.float32))
@example(random_case(3, 500, np.float64))
@BOUNDED
def test_every_metric_equals_scikit_learns(case: Case) -> None:
    labels, probabilities = case
    predicted, classes = probabilities.argmax(axis=1), range(probabilities.shape[1])
    present = sorted(set(labels.tolist()))
    found = measure(labels, probabilities, names(probabilities))

    assert found.n == len(labels)
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert found.log_loss == pytest.approx(sklearn.log_loss(labels, probabilities, labels=list(classes)), rel=1e-5)
    assert np.array_equal(found.confusion_matrix, sklearn.confusion_matrix(labels, predicted, labels=list(classes)))
    for averages, how, of in (
        (found.macro, "macro", present),
        (found.micro, "micro", list(classes)),
        (found.weighted, "weighted", list(classes)),
    ):
        expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=of, average=how, zero_division=0)
        assert figures(averages) == pytest.approx(expected[:3]), how
    per_class = sklearn.precision_recall_fscore_support(labels, predicted, labels=list(classes), zero_division=0)
    for i, found_class in enumerate(found.per_class):
        assert (*figures(found_class), found_class.support) == pytest.approx([column[i] for column in per_class])
    for one in found.top_k:  # scikit-learn ranks the last of tied classes first, so it gets the classes reversed
        backwards = len(classes) - 1 - labels, probabilities[:, ::-1]
        if len(classes) > 2:
            rate = sklearn.top_k_accuracy_score(*backwards, k=one.k, labels=list(classes))
            assert one.accuracy == pytest.approx(rate), one.k
    assert [one.label for one in found.per_class] == names(probabilities)
    assert found.absent_classes == tuple(f"class {i}" for i in classes if i not in present)


@given(cases(classes=2))
@example(ONE_IMAGE)
@example(CERTAIN_AND_WRONG)
@example(random_case(2, 500, np.float32))
@example(random_case(2, 500, np.float64))
@BOUNDED
def test_areas_equal_scikit_learns_and_are_null_if_a_class_is_missing(case: Case) -> None:
    labels, probabilities = case
    found = measure(labels, probabilities, ["no", "yes"])
    if len(set(labels.tolist())) == 1:
        assert (found.roc_auc, found.average_precision) == (None, None)
        assert found.notes[1].endswith(f"all are {['no', 'yes'][labels[0]]}.")
    else:
        assert found.roc_auc == pytest.approx(sklearn.roc_auc_score(labels, probabilities[:, 1]))
        assert found.average_precision == pytest.approx(sklearn.average_precision_score(labels, probabilities[:, 1]))
        assert found.notes == ()


def figures(averages: Averages) -> tuple[float, float, float]:
    return (averages.precision, averages.recall, averages.f1)


def test_a_tie_goes_to_the_first_class() -> None:
    found = measure(np.array([1]), np.array([[0.5, 0.5]]), ["a", "b"])
    assert found.confusion_matrix == ((0, 0), (1, 0))


@given(cases())
@BOUNDED
def test_top_1_equals_the_accuracy_and_its_interval(case: Case) -> None:
    found = measure(*case, names(case[1]))
    assert (found.top_k[0].k, found.top_k[0].accuracy) == (1, found.accuracy)
    assert found.top_k[0].accuracy_interval == found.accuracy_interval


@pytest.mark.parametrize(("classes", "ks"), [(2, [1]), (3, [1]), (4, [1, 3]), (5, [1, 3]), (6, [1, 3, 5])])
def test_top_k_is_given_for_k_below_the_number_of_classes(classes: int, ks: list[int]) -> None:
    found = measure(*random_case(classes, 50, np.float64), [str(i) for i in range(classes)])
    assert [one.k for one in found.top_k] == ks


def test_areas_are_null_for_more_than_two_classes() -> None:
    found = measure(*random_case(3, 50, np.float64), ["a", "b", "c"])
    assert (found.roc_auc, found.average_precision, found.notes) == (None, None, ())


def test_a_note_lists_at_most_ten_absent_classes() -> None:
    few = measure(np.array([0, 2]), np.full((2, 3), 1 / 3), ["a", "b", "c"]).notes
    assert len(few) == 1
    assert few[0].startswith("1 of the 3 classes has no images (b), which counts as 0 in per_class and is excluded")
    many = measure(np.array([0]), np.full((1, 500), 1 / 500), [f"class {i}" for i in range(500)]).notes
    assert "class 10, ...)" in many[0]
    assert len(many[0]) < 300


@given(cases())
@BOUNDED
def test_class_intervals_are_wilsons_or_null_without_images(case: Case) -> None:
    labels, probabilities = case
    predicted = probabilities.argmax(axis=1)
    for i, one in enumerate(with_intervals(measure(labels, probabilities, names(probabilities)))):
        hits = int(((labels == i) & (predicted == i)).sum())
        for interval, count in (
            (one.precision_interval, int((predicted == i).sum())),
            (one.recall_interval, int((labels == i).sum())),
        ):
            assert interval == (wilson_interval(hits, count) if count else None)


@given(cases(), st.integers(1, 4))
@BOUNDED
def test_worst_mistakes_have_the_highest_probabilities_in_falling_order(case: Case, most: int) -> None:
    labels, probabilities = case
    wrong = [(-float(row.max()), i) for i, row in enumerate(probabilities) if int(row.argmax()) != int(labels[i])]
    found = worst_mistakes(labels, probabilities, names(probabilities), most)
    assert [(-one.probability, one.index) for one in found] == sorted(wrong)[:most]
    for one in found:
        row = probabilities[one.index]
        assert (one.label, one.predicted) == (f"class {labels[one.index]}", f"class {row.argmax()}")


def test_log_loss_is_finite_for_a_label_of_probability_zero() -> None:
    for number in (np.float32, np.float64):
        loss = measure(np.array([0]), np.array([[0.0, 1.0]], dtype=number), ["a", "b"]).log_loss
        assert loss == pytest.approx(-math.log(np.finfo(number).eps))


def reference_ece(labels: Labels, probabilities: Probabilities) -> tuple[float, list[int]]:
    """The definition of Guo et al., 2017: bins (lower, upper], weighted by their fraction of the images."""
    counts, error = [], 0.0
    for m in range(CALIBRATION_BINS):
        lower, upper = m / CALIBRATION_BINS, (m + 1) / CALIBRATION_BINS
        confidences, hits = [], []
        for label, row in zip(labels, probabilities, strict=True):
            confidence = float(row.max())
            if lower < confidence <= upper:
                confidences.append(confidence)
                hits.append(float(row.argmax() == label))
        counts.append(len(hits))
        if hits:
            error += len(hits) / len(labels) * abs(sum(hits) / len(hits) - sum(confidences) / len(confidences))
    return error, counts


@given(cases())
@example(random_case(10, 500, np.float32))
@example(random_case(2, 300, np.float64))
@BOUNDED
def test_calibration_matches_the_plain_definition(case: Case) -> None:
    labels, probabilities = case
    found = calibration(labels, probabilities)
    error, counts = reference_ece(labels, probabilities)
    assert found.expected_calibration_error == pytest.approx(error, abs=1e-9)
    assert [one.count for one in found.bins] == counts


@pytest.mark.parametrize("edge", [i / CALIBRATION_BINS for i in range(8, CALIBRATION_BINS)])
def test_a_confidence_on_a_bin_edge_belongs_to_the_lower_bin(edge: float) -> None:
    for confidence, inside in ((edge, "upper"), (math.nextafter(edge, 2), "lower")):
        found = calibration(np.array([0]), np.array([[confidence, 1 - confidence]]))
        (filled,) = [one for one in found.bins if one.count]
        assert getattr(filled, inside) == edge


def test_an_empty_bin_has_no_confidence_and_no_accuracy_and_a_filled_one_has_both() -> None:
    found = calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.92, 0.08]]))
    (filled,) = [one for one in found.bins if one.count]
    assert filled is found.bins[13]
    assert filled.confidence == pytest.approx(0.91)
    assert filled.accuracy == 0.5
    assert {(one.confidence, one.accuracy) for one in found.bins if not one.count} == {(None, None)}
    assert (found.bins[0].lower, found.bins[-1].upper) == (0, 1)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((0, 1))
@example((1, 1))
@example((0, 5000))
@example((5000, 5000))
@BOUNDED
def test_wilson_interval_equals_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    found = wilson_interval(successes, n)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_matches_published_values() -> None:
    """Newcombe, 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 by method 3."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), bounds in published.items():
        found = wilson_interval(successes, n)
        assert (found.lower, found.upper) == pytest.approx(bounds, abs=5e-5)


TWO = np.array([[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("labels", "probabilities", "reason"),
    [
        pytest.param([], np.empty((0, 2)), "no labelled images", id="nothing"),
        pytest.param([0], TWO, "shape", id="fewer labels than rows"),
        pytest.param([0, 1, 1], TWO, "shape", id="more labels than rows"),
        pytest.param([0, 1], np.full((2, 3), 1 / 3), "shape", id="more columns than names"),
        pytest.param([0, 1], np.full(2, 0.5), "shape", id="one column for two classes"),
        pytest.param([0, 2], TWO, "outside 0 to 1", id="label too large"),
        pytest.param([0, -1], TWO, "outside 0 to 1", id="label below 0"),
        pytest.param([0, 1], np.array([[0.5, np.nan], [0.5, 0.5]]), "finite", id="NaN"),
        pytest.param([0, 1], np.array([[0.5, np.inf], [0.5, 0.5]]), "finite", id="infinity"),
        pytest.param([0, 1], np.array([[-3.2, 7.1], [0.5, 0.5]]), "logits", id="logits"),
        pytest.param([0, 1], np.array([[0.5, -0.1], [0.5, 0.5]]), "outside 0 to 1", id="below 0"),
        pytest.param([0, 1], np.array([[0.5, 1.1], [0.5, 0.5]]), "outside 0 to 1", id="above 1"),
    ],
)
def test_refuses_labels_and_probabilities_that_do_not_match(
    labels: list[int], probabilities: npt.NDArray[np.float64], reason: str
) -> None:
    with pytest.raises(MetricsError, match=reason):
        measure(np.array(labels, dtype=np.int64), probabilities, ["a", "b"])


def test_accepts_a_probability_that_rounding_put_above_one() -> None:
    found = measure(np.array([0]), np.array([[np.nextafter(np.float32(1), 2), 0]], dtype=np.float32), ["a", "b"])
    assert (found.accuracy, found.calibration.bins[-1].confidence) == (1, 1)


def test_perfect_predictions_of_nine_classes_score_exactly_one() -> None:
    """In floating point, the sum of nine times 1/9 is above 1."""
    found = measure(np.arange(9), np.eye(9), [str(i) for i in range(9)])
    assert figures(found.macro) == figures(found.weighted) == (1, 1, 1)


@pytest.mark.parametrize("n", [1, 7, 12, 1000])
def test_wilson_interval_ends_at_0_and_1_for_rates_0_and_1(n: int) -> None:
    assert wilson_interval(0, n).lower == 0
    assert wilson_interval(n, n).upper == 1


@pytest.mark.parametrize(
    ("classes", "images", "correct", "expected"),
    [
        (10, 1000, 100, False),  # always the same class
        (10, 10_000, 1030, False),  # above guessing by chance
        (10, 1000, 150, True),
        (2, 4, 3, True),  # too few images to be sure, but far above guessing
        (1000, 5000, 400, True),  # low recall, but far above guessing
    ],
)
def test_a_model_learnt_something_if_its_recall_is_above_guessing(
    classes: int, images: int, correct: int, expected: bool
) -> None:
    labels = np.arange(images) % classes
    predicted = np.where(np.arange(images) < correct, labels, (labels + 1) % classes)
    metrics = measure(labels, np.eye(classes, dtype=np.float32)[predicted], [str(i) for i in range(classes)])
    assert learnt_something(metrics) is expected
