from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import VariantName
from schemas.metrics import measure
from tests.support.bundles import write_bundle
from trainer.errors import DataError
from trainer.evaluation.evaluate import Score, check_same_labels, compare, open_model


def answers(right: list[int]) -> Score:
    """Of a model that has these images right (1) or wrong (0)."""
    labels = np.zeros(len(right), np.int64)
    probabilities = np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right], np.float32)
    return Score(labels, probabilities, measure(labels, probabilities, ["yes", "no"]))


def test_an_image_is_right_where_its_most_probable_class_is_its_label() -> None:
    found = compare(("a", answers([1, 1, 1, 0, 0])), ("b", answers([1, 0, 0, 1, 0])))
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (1, 2, 1, 1)


def test_bundles_of_other_labels_are_refused_by_name_and_another_order_is_not(tmp_path: Path) -> None:
    a = open_model(write_bundle(tmp_path), VariantName.FP32)
    turned = replace(a, manifest=a.manifest.model_copy(update={"labels": ("blue", "red", "green")}))
    check_same_labels(a, turned)
    other = replace(a, manifest=a.manifest.model_copy(update={"labels": ("red", "green", "teal", "pink")}))
    with pytest.raises(DataError, match="has blue, which"):
        check_same_labels(a, other)
    with pytest.raises(DataError, match="has teal, pink, which"):
        check_same_labels(other, replace(a, manifest=other.manifest.model_copy(update={"labels": ("red", "green")})))
