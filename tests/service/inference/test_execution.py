import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.backends.base import CPU, CUDA
from service.backends.fake import FakeSession
from service.inference.execution import LOOP_SECONDS, THREAD_SECONDS, Mode, choose_execution
from tests.support.bundles import SPEC


def session(seconds: Callable[[int], float], provider: str = CPU) -> FakeSession:
    """Uses so many seconds of CPU time for a batch."""

    def answer(images: Pixels) -> FloatArray:
        end = time.thread_time() + seconds(len(images))
        while time.thread_time() < end:
            pass
        return np.zeros((len(images), 3), np.float32)

    return FakeSession(SPEC.shape, 3, answer, provider)


def test_a_fast_model_on_a_cpu_runs_on_the_event_loop_in_full_batches() -> None:
    execution = choose_execution(session(lambda _: 0), SPEC, max_batch=32)
    assert (execution.mode, execution.max_batch) == (Mode.EVENT_LOOP, 32)
    assert "One image takes" in execution.reason


def test_a_model_whose_single_image_exceeds_the_limit_uses_a_thread() -> None:
    execution = choose_execution(session(lambda _: 2 * LOOP_SECONDS), SPEC, max_batch=8)
    assert (execution.mode, execution.max_batch) == (Mode.THREAD, 8)
    assert "more than the event loop's limit of 3 ms" in execution.reason


@pytest.mark.parametrize(("seconds", "images"), [(THREAD_SECONDS / 4.5, range(1, 5)), (2 * THREAD_SECONDS, [1])])
def test_a_batch_in_a_thread_is_as_large_as_its_limit_allows(seconds: float, images: Sequence[int]) -> None:
    execution = choose_execution(session(lambda _: seconds), SPEC, max_batch=32)
    assert execution.mode is Mode.THREAD
    assert execution.max_batch in images


def test_a_batch_on_the_event_loop_is_as_large_as_the_limit_allows() -> None:
    execution = choose_execution(session(lambda images: 0.001 * images), SPEC, max_batch=32)
    assert execution.mode is Mode.EVENT_LOOP
    assert 1 <= execution.max_batch <= 3


def test_a_model_on_a_gpu_uses_a_thread_and_is_not_timed() -> None:
    gpu = FakeSession(SPEC.shape, 3, lambda _: pytest.fail("ran"), CUDA)
    execution = choose_execution(gpu, SPEC, max_batch=32)
    assert (execution.mode, execution.reason) == (Mode.THREAD, "Models on CUDAExecutionProvider use a thread.")
