import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from trainer.data.dataset import Images, digest

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 2, 3, 1), dtype=np.uint8)


@pytest.fixture(params=["in memory", "mapped"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Images:
    if request.param == "in memory":
        return Images(PIXELS)
    np.save(tmp_path / "images.npy", PIXELS)
    return Images(np.load(tmp_path / "images.npy", mmap_mode="r"))


def test_images_are_read_by_position_slice_or_positions(images: Images) -> None:
    assert images.shape == (7, 2, 3, 1)
    assert np.array_equal(images, PIXELS)
    assert np.array_equal(images[3], PIXELS[3])
    assert np.array_equal(images[2:5], PIXELS[2:5])
    assert np.array_equal(images[[6, 0, 6]], PIXELS[[6, 0, 6]])
    assert np.array_equal(list(images), PIXELS)


def test_reading_returns_a_writable_copy(images: Images) -> None:
    for read in (images[0], images[:], images[[0]]):
        read[...] = 0
    assert np.array_equal(images, PIXELS)


def test_a_view_of_a_view_reads_the_same_pixels(images: Images) -> None:
    view = images.take(np.array([6, 4, 2, 0])).take(np.array([1, 3]))
    assert view.shape == (2, 2, 3, 1)
    assert np.array_equal(view, PIXELS[[4, 0]])
    into = np.empty((2, 2, 3, 1), np.uint8)
    view.gather(np.array([1, 0]), into)
    assert np.array_equal(into, PIXELS[[0, 4]])


def test_digests_follow_the_rows_and_known_ones_are_not_computed_again(images: Images) -> None:
    view = images.take(np.array([5, 1]))
    assert [row.tobytes() for row in view.digests] == [digest(PIXELS[5]), digest(PIXELS[1])]
    known = np.arange(7 * 32, dtype=np.uint8).reshape(7, 32)
    assert np.array_equal(Images(PIXELS, known).take(np.array([5, 1])).digests, known[[5, 1]])


def test_images_that_lie_channel_by_channel_are_laid_out_once_and_not_at_every_batch() -> None:
    """As CIFAR-10 is published: taking rows of such an array copies all of it first."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3, 32, 32), dtype=np.uint8).transpose(0, 2, 3, 1)
    images, into = Images(pixels), np.empty((2, 32, 32, 3), np.uint8)
    tracemalloc.start()
    images.gather(np.array([7, 3]), into)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 10
    assert np.array_equal(into, pixels[[7, 3]])


def test_blocks_are_all_images_in_order(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.dataset._BLOCK_BYTES", 3 * 6)
    assert [len(block) for block in images.blocks()] == [3, 3, 1]
    assert np.array_equal(np.concatenate(list(images.blocks())), PIXELS)
