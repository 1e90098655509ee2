import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.heat_map import overlay


@given(
    side=st.integers(1, 600),
    aspect=st.sampled_from([1, 2, 5]),
    channels=st.sampled_from([1, 3]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_an_overlay_is_rgb_and_enlarged_by_a_whole_factor_to_at_least_224_pixels(
    side: int, aspect: int, channels: int, shape: tuple[int, int]
) -> None:
    image = np.full((side, side * aspect, channels), 100, np.uint8)
    drawn = overlay(image, np.ones(shape, np.float32))
    assert drawn.dtype == np.uint8
    height, width, colours = drawn.shape
    assert colours == 3
    assert width == height * aspect
    assert height % side == 0
    assert width >= 224


def test_the_largest_value_is_coloured_most_and_values_below_zero_not_at_all() -> None:
    image = np.full((300, 300, 1), 80, np.uint8)
    drawn = overlay(image, np.array([[-5, -1], [0.1, 3]], np.float32)).astype(int)
    change = np.abs(drawn - 80).sum(axis=2)
    assert change[:50, :50].max() == 0
    assert change[-1, -1] == change.max() > 100
    assert 0 < change[-1, 0] < change[-1, -1] / 4


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_evidence_is_plainly_visible_on_dark_and_light_images(grey: int) -> None:
    image = np.full((300, 300, 3), grey, np.uint8)
    for share in (0.4, 0.7, 1):
        drawn = overlay(image, np.array([[share, share], [share, 1]], np.float32)).astype(int)
        assert np.abs(drawn[0, 0] - grey).max() > 60


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_map_without_evidence_leaves_the_image_as_it_is(value: float) -> None:
    image = np.arange(300 * 300 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 300, 3)
    assert np.array_equal(overlay(image, np.full((3, 3), value, np.float32)), image)


def test_scaling_a_map_does_not_change_the_drawing() -> None:
    image = np.full((8, 8, 3), 40, np.uint8)
    values = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    assert np.array_equal(overlay(image, values), overlay(image, values * np.float32(1024)))
