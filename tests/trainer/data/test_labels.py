import numpy as np
import pytest

from trainer.data.dataset import LabelledImages
from trainer.data.labels import Values, index_classes, read_labels, rename_classes
from trainer.errors import DataError


def read(values: object) -> Values:
    return read_labels(np.array(values), "labels[{}]".format)


@pytest.mark.parametrize(
    ("values", "classes", "indices"),
    [
        ([0, 1, 2, 1], ("0", "1", "2"), [0, 1, 2, 1]),
        ([1, 2, 10, 2], ("1", "2", "10"), [0, 1, 2, 1]),
        ([-1, 1], ("-1", "1"), [0, 1]),
        ([[3], [5]], ("3", "5"), [0, 1]),
        ([3.0, 5.0], ("3", "5"), [0, 1]),
        (["3", " 5.0"], ("3", "5"), [0, 1]),
        ([True, False], ("0", "1"), [1, 0]),
        (["dog ", "ant"], ("ant", "dog"), [1, 0]),
        ([b"dog", b"ant"], ("ant", "dog"), [1, 0]),
        ([[0, 1, 0], [0, 0, 1]], ("1", "2"), [0, 1]),
        ([["0", "1"], ["1", "0"]], ("0", "1"), [1, 0]),
    ],
)
def test_numbers_names_and_one_hot_rows_become_classes(
    values: object, classes: tuple[str, ...], indices: list[int]
) -> None:
    found, parts = index_classes({"train": read(values)})
    assert (found, parts["train"].tolist()) == (classes, indices)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([0, 0.5], r"labels\[1\]: the label 0.5 is not a whole number"),
        ([0, np.nan], r"labels\[1\]: the label nan is not a whole number"),
        (["a", ""], r"labels\[1\]: the label is empty"),
        ([[0, 1], [1, 1]], r"labels\[1\]: 2 values per image, which are not one-hot"),
        ([["a", "b"]], r"labels\[0\]: each image has several values"),
    ],
)
def test_names_the_place_of_a_label_that_is_none(values: object, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read(values)


@pytest.mark.parametrize(
    ("classes", "given", "names", "indices"),
    [
        (("0", "1"), ("a", "b", "c"), ("a", "b", "c"), [0, 1]),
        (("1", "2"), ("a", "b"), ("a", "b"), [0, 1]),
        (("1", "2"), ("a", "b", "c"), ("a", "b", "c"), [1, 2]),
        (("9", "10"), ("8", "9", "10"), ("8", "9", "10"), [1, 2]),
        (("a", "b"), ("b", "a"), ("b", "a"), [1, 0]),
        (("a", "b"), ("x", "y"), ("a", "b"), [0, 1]),
        (("3", "7"), (), ("3", "7"), [0, 1]),
    ],
)
def test_labels_match_given_names_by_name_else_by_number(
    classes: tuple[str, ...], given: tuple[str, ...], names: tuple[str, ...], indices: list[int]
) -> None:
    images = LabelledImages(np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 1]))
    renamed, parts = rename_classes(classes, given, {"train": images})
    assert (renamed, parts["train"].labels.tolist()) == (names, indices)
