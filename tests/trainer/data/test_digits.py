import numpy as np
from sklearn.datasets import load_digits

from trainer.data.digits import DigitsSource


def test_the_images_and_labels_are_those_of_scikit_learn() -> None:
    expected, found = load_digits(), DigitsSource().load()
    assert np.array_equal(found.train.images[:][..., 0], np.round(expected.images * (255 / 16)))
    assert np.array_equal(found.train.labels, expected.target)
    assert found.labels == tuple(map(str, expected.target_names))
