import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.manifest import InputSpec
from tests.support.colour_images import colours
from trainer.data.dataset import LabelledImages, SourceData
from trainer.data.split import split
from trainer.errors import DataError
from trainer.recipe import DataConfig, Source


def numbered(labels: list[int], classes: int, test: list[int] | None = None) -> SourceData:
    """Each image holds its own position, so that a test can tell where it went."""

    def images(values: list[int]) -> LabelledImages:
        pixels = np.zeros((len(values), 2, 1, 1), dtype=np.uint8)
        pixels[:, 0, 0, 0], pixels[:, 1, 0, 0] = np.arange(len(values)) % 256, np.arange(len(values)) // 256
        return LabelledImages(pixels, np.array(values, dtype=np.int64))

    names = tuple(f"class {i}" for i in range(classes))
    spec = InputSpec(height=2, width=1, channels=1)
    return SourceData("numbered", names, spec, images(labels), images(test) if test is not None else None)


def shares(validation: float, test: float, seed: int) -> DataConfig:
    return DataConfig(source=Source.NPZ, validation=validation, test=test, split_seed=seed, value_range=(0, 255))


def unset_range(validation: float, test: float) -> DataConfig:
    return shares(validation, test, 0).model_copy(update={"value_range": None})


def positions(part: LabelledImages) -> list[int]:
    return [int(image[0, 0, 0]) + 256 * int(image[1, 0, 0]) for image in part.images]


@given(
    counts=st.lists(st.integers(10, 60), min_size=2, max_size=5),
    validation=st.floats(0.1, 0.4),
    test=st.floats(0.1, 0.4),
    seed=st.integers(0, 100),
)
def test_every_image_is_in_exactly_one_split_and_each_class_has_its_share(
    counts: list[int], validation: float, test: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
    parts = split(numbered(labels, len(counts)), shares(validation, test, seed))
    everything = positions(parts.train) + positions(parts.validation) + positions(parts.test)
    assert sorted(everything) == list(range(len(labels)))
    for part, share in ((parts.validation, validation), (parts.test, test)):
        for label, count in enumerate(counts):
            assert abs(int((part.labels == label).sum()) - share * count) <= 1


def test_a_limit_keeps_the_shares_of_classes_and_splits_and_the_published_test_split() -> None:
    data = numbered([0] * 60 + [1] * 30, 2, test=[0, 1, 1])
    config = shares(0.2, 0.2, 3).model_copy(update={"limit": 30})
    parts = split(data, config)
    assert np.bincount(parts.train.labels).tolist() == [16, 8]
    assert np.bincount(parts.validation.labels).tolist() == [4, 2]
    assert len(parts.test) == 3
    assert not set(positions(parts.train)) & set(positions(parts.validation))
    unlimited = split(data, config.model_copy(update={"limit": 90}))
    assert len(unlimited.train) + len(unlimited.validation) == 90


def test_comparing_the_splits_takes_little_memory() -> None:
    labels = np.arange(1000) % 2
    images = LabelledImages(np.zeros((1000, 64, 64, 1), np.uint8), labels)
    data = SourceData("black", ("a", "b"), InputSpec(height=64, width=64, channels=1), images, images)
    config = shares(0.2, 0, 0).model_copy(update={"value_range": None})
    split(data, config)  # reads the images' hashes, which are kept
    tracemalloc.start()
    split(data, config)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * images.images.nbytes


def test_images_keep_their_labels() -> None:
    labels = [0, 1, 2] * 20
    parts = split(numbered(labels, 3), shares(0.2, 0.2, 0))
    for part in (parts.train, parts.validation, parts.test):
        assert [labels[position] for position in positions(part)] == part.labels.tolist()


def test_the_seed_decides_the_split() -> None:
    data = numbered([0, 1] * 50, 2)
    assert positions(split(data, shares(0.2, 0.2, 1)).test) == positions(split(data, shares(0.2, 0.2, 1)).test)
    assert positions(split(data, shares(0.2, 0.2, 1)).test) != positions(split(data, shares(0.2, 0.2, 2)).test)


def test_uses_a_published_test_split_unchanged() -> None:
    parts = split(numbered([0, 1] * 50, 2, test=[1, 0, 1]), shares(0.1, 0.5, 0))
    assert parts.test.labels.tolist() == [1, 0, 1]
    assert (len(parts.train), len(parts.validation)) == (90, 10)


def test_reports_the_sizes_of_the_classes() -> None:
    notes = split(numbered([0] * 100 + [1] * 300 + [2] * 50, 3), shares(0.1, 0.1, 0)).notes
    assert notes == (
        "training images per class: class 0: 80, class 1: 240, class 2: 40 (the largest is 6.0 times the smallest)",
    )
    many = split(numbered(list(range(30)) * 10 + [7] * 20, 30), shares(0.1, 0.1, 0)).notes
    assert many == ("training images per class: class 0: 8, class 7: 24 (the largest is 3.0 times the smallest)",)


def test_counts_and_reports_duplicates_across_the_splits() -> None:
    data = numbered([0, 1] * 50, 2)
    twice = LabelledImages(data.train.images.take(np.arange(100) // 2), data.train.labels[np.arange(100) // 2])
    parts = split(replace(data, train=twice), shares(0.2, 0.2, 0))
    train, test = set(positions(parts.train)), positions(parts.test)
    assert parts.duplicates.test == sum(position in train for position in test) > 0
    assert any(f"{parts.duplicates.test} of 20 test images are training images too" in note for note in parts.notes)
    assert "python -m trainer clean DATA" in parts.notes[-1]


def test_images_that_are_nearly_black_are_reported_unless_the_range_is_set() -> None:
    """Values of 0 to 16 in bytes, or of 12 bits in 16, would be trained on as they are."""
    data = numbered([0, 1] * 50, 2)
    pixels = np.full((100, 2, 1, 1), 16, np.uint8)
    dark = replace(data, train=LabelledImages(pixels, data.train.labels))
    assert any("brightest pixel is" in note for note in split(dark, unset_range(0.2, 0.2)).notes)
    assert not any("brightest pixel" in note for note in split(dark, shares(0.2, 0.2, 0)).notes)
    bright = replace(data, train=LabelledImages(pixels + 48, data.train.labels))
    assert not any("brightest pixel" in note for note in split(bright, unset_range(0.2, 0.2)).notes)


def test_digits_split_70_20_10() -> None:
    data = colours(1000)
    parts = split(data, shares(0.2, 0.1, 0))
    assert [round(len(part), -1) for part in (parts.train, parts.validation, parts.test)] == [700, 200, 100]


@pytest.mark.parametrize(
    ("labels", "test", "part"),
    [([0] * 50, None, "training"), ([0, 1] * 50, [0, 0], "test")],
)
def test_a_class_without_images_in_a_split_is_named(labels: list[int], test: list[int] | None, part: str) -> None:
    with pytest.raises(DataError, match=f"{part} split of numbered has no image of class 'class 1'"):
        split(numbered(labels, 2, test), shares(0.2, 0.2, 0))


def test_the_content_hash_follows_pixels_labels_and_names() -> None:
    base = numbered([0, 1] * 5, 2)
    assert base.content_hash() == numbered([0, 1] * 5, 2).content_hash()
    other_pixels = LabelledImages(np.asarray(base.train.images) + 1, base.train.labels)
    other_labels = LabelledImages(base.train.images, base.train.labels[::-1].copy())
    changed = [
        SourceData("numbered", base.labels, base.input, other_pixels, None),
        SourceData("numbered", base.labels, base.input, other_labels, None),
        SourceData("numbered", ("a", "b"), base.input, base.train, None),
        SourceData("numbered", base.labels, base.input, base.train, base.train),
    ]
    assert len({data.content_hash() for data in [base, *changed]}) == 5


@pytest.mark.parametrize("count", range(1, 7))
def test_every_class_is_in_every_split_however_few_images_it_has(count: int) -> None:
    labels = [0] * 60 + [1] * count
    parts = split(numbered(labels, 2), shares(0.2, 0.1, 0))
    sizes = [int((part.labels == 1).sum()) for part in (parts.train, parts.validation, parts.test)]
    assert min(sizes) == 1
    assert sum(sizes) == max(count, 3)
    assert any("are in several splits" in note and "class 1" in note for note in parts.notes) == (count < 3)


def test_uses_a_published_validation_split_unchanged() -> None:
    data = replace(numbered([0, 1] * 50, 2), validation=numbered([1, 0], 2).train)
    parts = split(data, shares(0.5, 0.2, 0))
    assert (len(parts.train), parts.validation.labels.tolist(), len(parts.test)) == (80, [1, 0], 20)
    assert data.content_hash() != replace(data, validation=None, test=data.validation).content_hash()


def test_test_images_of_another_range_are_refused_with_both_figures() -> None:
    bright, dark = (np.full((20, 2, 2, 1), value, np.uint8) for value in (200, 1))
    data = numbered([0, 1] * 10, 2)
    labels = data.train.labels
    data = replace(data, train=LabelledImages(bright, labels), test=LabelledImages(dark, labels))
    config = DataConfig(source=Source.NPZ, validation=0.2)
    with pytest.raises(DataError, match=r"mean 1 against 200, standard deviation 0 against 0, of 255"):
        split(data, config)
    assert len(split(data, config.model_copy(update={"value_range": (0, 255)})).test) == 20


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="have the label 'class 0'"):
        split(numbered([0] * 50, 1), shares(0.2, 0.2, 0))
