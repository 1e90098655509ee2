"""Converts the labels of a file (numbers, names, one-hot rows) to classes and class indices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.dataset import LabelledImages, Labels
from trainer.errors import DataError

Values = npt.NDArray[Any]
_SHOWN = 10


def read_labels(values: Values, place: Callable[[int], str]) -> Values:
    """Returns one label per image, int64 or names [n], from numbers or text [n], [n, 1] or one-hot [n, classes].

    place(i) describes the position of label i in its file. Raises DataError for a label that is empty or not a whole
    number, and for rows that are not one-hot.
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "U":
        values = np.char.strip(values)
        empty = np.flatnonzero((values == "").reshape(len(values), -1).any(axis=1))
        if len(empty):
            raise DataError(f"{place(empty[0])}: the label is empty.")
        try:
            values = values.astype(np.float64)
        except ValueError:
            if values.ndim == 1:
                return values
            raise DataError(f"{place(0)}: each image has several values, which are not one-hot numbers.") from None
    if values.ndim == 2:
        wrong = np.flatnonzero(((values != 0) & (values != 1)).any(axis=1) | (values.sum(axis=1) != 1))
        if len(wrong):
            raise DataError(f"{place(wrong[0])}: {values.shape[1]:,} values per image, which are not one-hot.")
        classes: Values = values.argmax(axis=1)
        return classes
    wrong = np.flatnonzero(~(values == np.round(values)))  # NaN is wrong
    if len(wrong):
        raise DataError(f"{place(wrong[0])}: the label {values[wrong[0]]:g} is not a whole number.")
    return values.astype(np.int64)


def index_classes(parts: Mapping[str, Values]) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Returns the classes that occur, in numerical or alphabetical order, and each part's indices into them.

    Raises DataError if one part has names and another has numbers.
    """
    if len({values.dtype.kind for values in parts.values()}) > 1:
        raise DataError("The labels are names in one split and numbers in another.")
    classes, indices = np.unique(np.concatenate(list(parts.values())), return_inverse=True)
    ends = np.cumsum([len(values) for values in parts.values()])
    return tuple(map(str, classes.tolist())), dict(zip(parts, np.split(indices, ends[:-1]), strict=True))


def rename_classes(
    classes: tuple[str, ...], given: Sequence[str], parts: Mapping[str, LabelledImages]
) -> tuple[tuple[str, ...], dict[str, LabelledImages]]:
    """Returns the names of the classes and the parts with their indices, where `given` are the expected names, if any.

    Labels match given names as names, else as indices that count from 0, else from 1. Raises DataError for numbers
    beyond the given names.
    """
    if not given or (not _are_numbers(classes) and not set(classes) <= set(given)):
        return classes, dict(parts)
    if set(classes) <= set(given):
        index = [list(given).index(name) for name in classes]
    else:
        numbers = [int(name) for name in classes]
        first = min(numbers) if min(numbers) in {0, 1} and max(numbers) == len(given) else 0
        index = [number - first for number in numbers]
        if min(index) < 0 or max(index) >= len(given):
            shown = ", ".join(given[:_SHOWN])
            raise DataError(
                f"The labels go from {numbers[0]} to {numbers[-1]}, but there are {len(given)} names ({shown}). "
                "Set data.labels to all names in order, or to nothing."
            )
    renamed = np.array(index, np.int64)
    return tuple(given), {
        name: LabelledImages(part.images, renamed[part.labels], part.names) for name, part in parts.items()
    }


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(name.removeprefix("-").isdecimal() for name in classes)
