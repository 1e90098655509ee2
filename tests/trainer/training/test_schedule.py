import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.recipe import ScheduleConfig, ScheduleName
from trainer.training.schedule import learning_rate_factor


@given(progress=st.floats(0, 1), warm_up=st.floats(0, 1), name=st.sampled_from(ScheduleName))
def test_the_factor_stays_between_0_and_1(progress: float, warm_up: float, name: ScheduleName) -> None:
    assert -1e-9 <= learning_rate_factor(ScheduleConfig(name=name, warm_up=warm_up), progress) <= 1 + 1e-9


@pytest.mark.parametrize("name", [ScheduleName.COSINE, ScheduleName.TRIANGULAR])
def test_the_rate_rises_to_its_peak_at_the_end_of_the_warm_up_and_falls_to_0(name: ScheduleName) -> None:
    config = ScheduleConfig(name=name, warm_up=0.25)
    factors = [learning_rate_factor(config, i / 100) for i in range(101)]
    assert factors[0] == 0
    assert factors[25] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)
    assert factors[:26] == sorted(factors[:26])
    assert factors[25:] == sorted(factors[25:], reverse=True)


def test_one_cycle_rises_smoothly_from_a_25th_and_falls_to_0() -> None:
    config = ScheduleConfig(name=ScheduleName.ONE_CYCLE, warm_up=0.25)
    factors = [learning_rate_factor(config, i / 100) for i in range(101)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[25] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)
    rises = [after - before for before, after in itertools.pairwise(factors[:26])]
    assert rises[0] < rises[12] > rises[-1]


def test_a_constant_rate_is_constant() -> None:
    config = ScheduleConfig(name=ScheduleName.CONSTANT)
    assert {learning_rate_factor(config, i / 10) for i in range(11)} == {1.0}
