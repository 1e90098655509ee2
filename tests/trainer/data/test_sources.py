import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from trainer.data.digits import DigitsSource
from trainer.data.published import CIFAR10_SET, MNIST_SET, PublishedSet, PublishedSource
from trainer.data.sources import open_source
from trainer.errors import DataError
from trainer.recipes import find_recipe


def test_digits_are_1797_grey_images_of_8x8_over_the_whole_range() -> None:
    data = DigitsSource().load()
    images = data.train.images[:]
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert data.labels == tuple("0123456789")
    assert set(np.unique(images)) <= {round(value * 255 / 16) for value in range(17)}


def test_mnist_is_read_from_the_data_folder(real_data: Path) -> None:
    data = open_source(find_recipe("mnist", "default").data, real_data).load()
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert data.test is not None
    assert data.test.images.shape == (10_000, 28, 28, 1)
    assert data.labels == tuple("0123456789")
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_a_cut_mnist_file_is_one_sentence(real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (real_data / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000])
    with pytest.raises(DataError, match="mnist"):
        PublishedSource(MNIST_SET, tmp_path).load()


def test_mnist_files_that_are_no_idx_files_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"not an idx file")
    with pytest.raises(DataError, match="put its published files there"):
        PublishedSource(MNIST_SET, tmp_path).load()


@pytest.mark.parametrize("published", [MNIST_SET, CIFAR10_SET], ids=lambda published: published.name)
def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path, published: PublishedSet) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(DataError, match=f"{published.name} could not be read"):
        PublishedSource(published, tmp_path / "data").load()
