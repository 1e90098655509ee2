import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.value_range import BYTES, Numbers, ValueRange, to_bytes
from trainer.data.pixel_range import SIGNED, UNIT, decide_range
from trainer.errors import DataError

PIXELS = np.arange(256, dtype=np.uint8).reshape(4, 64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (PIXELS, BYTES),
        (PIXELS.astype(np.float32), BYTES),
        (PIXELS / 255, UNIT),
        (np.where(PIXELS == 255, 1.0000001, PIXELS / 255), UNIT),
        (PIXELS / 255 - 1e-7, UNIT),
        (PIXELS // 128, UNIT),
        (PIXELS > 127, UNIT),
        (PIXELS / 127.5 - 1, SIGNED),
    ],
)
def test_the_extremes_decide_the_range(values: Numbers, expected: ValueRange) -> None:
    assert decide_range({"train": [values]}, bytes_by_type=values.dtype == np.uint8) == expected


def test_every_block_of_every_file_counts() -> None:
    black = np.zeros((1, 4))
    assert decide_range({"train": [black, PIXELS], "test": [PIXELS]}) == BYTES
    assert decide_range({"train": [PIXELS / 255], "test": [black]}) == UNIT


def test_files_of_different_ranges_are_refused_with_both() -> None:
    with pytest.raises(DataError, match=r"train 0 to 255 and test 0 to 1\. Convert one"):
        decide_range({"train": [PIXELS], "test": [PIXELS / 255]})


def test_an_ambiguous_value_range_names_the_setting() -> None:
    sixteen = PIXELS // 16
    with pytest.raises(DataError, match=r"from 0 to 15\. .* data\.value_range=0,255 or data\.value_range=0,15"):
        decide_range({"train": [sixteen.astype(float)]})
    assert decide_range({"train": [sixteen]}, bytes_by_type=True) == BYTES


def test_values_from_minus_a_half_to_a_half_are_not_taken_for_minus_one_to_one() -> None:
    with pytest.raises(DataError, match=r"or data\.value_range=-0\.5,0\.5"):
        decide_range({"train": [PIXELS / 255 - 0.5]})
    assert decide_range({"train": [PIXELS / 127.5 - 1], "test": [PIXELS / 255 - 0.5]}) == SIGNED


@given(st.sampled_from([BYTES, UNIT, SIGNED, (0.0, 65535.0), (-3.0, 4.0)]))
def test_the_ends_of_a_range_become_black_and_white(value_range: ValueRange) -> None:
    low, high = value_range
    values = low + PIXELS / 255 * (high - low)
    assert np.array_equal(to_bytes(values, value_range), PIXELS)
