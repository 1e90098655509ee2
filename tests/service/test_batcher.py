import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Batcher
from service.errors import InferenceError, NotReadyError, OverloadedError

SOON = 20  # seconds; only a batcher that never answers waits so long


@contextmanager
def batcher_of(
    run: Callable[[Sequence[int]], Sequence[int]], max_batch: int = 4, capacity: int = 100
) -> Iterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(run, max_batch=max_batch, capacity=capacity, name="test")
    try:
        yield batcher
    finally:
        batcher.close()


def squares(items: Sequence[int]) -> list[int]:
    return [item * item for item in items]


class Gate:
    """A run that stands still until it is let go, and remembers its batches. The item 13 makes it raise."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.open.wait(SOON)
        if 13 in items:
            raise ValueError("unlucky")
        return squares(items)

    def wait_until_running(self) -> None:
        assert self.entered.acquire(timeout=SOON)


def held(batcher: Batcher[int, int], gate: Gate) -> Future[list[int]]:
    """Makes the batcher busy, so that what follows gathers."""
    future = batcher.submit([0])
    gate.wait_until_running()
    return future


@given(requests=st.lists(st.lists(st.integers(-1000, 1000), max_size=30), max_size=12), max_batch=st.integers(1, 9))
def test_answers_come_in_order_for_any_split(requests: list[list[int]], max_batch: int) -> None:
    with batcher_of(squares, max_batch, capacity=10_000) as batcher:
        futures = [batcher.submit(items) for items in requests]
        assert [future.result(SOON) for future in futures] == [squares(items) for items in requests]


@given(sizes=st.lists(st.integers(1, 20), min_size=2, max_size=16), max_batch=st.integers(1, 7))
def test_concurrent_callers_never_get_each_others_answers(sizes: list[int], max_batch: int) -> None:
    with batcher_of(squares, max_batch, capacity=10_000) as batcher, ThreadPoolExecutor(len(sizes)) as callers:
        start = threading.Barrier(len(sizes))

        def call(caller: int) -> bool:
            items = [caller * 1000 + i for i in range(sizes[caller])]
            start.wait(SOON)
            return batcher.submit(items).result(SOON) == squares(items)

        assert all(callers.map(call, range(len(sizes))))


def test_what_gathers_while_it_is_busy_becomes_the_next_batch() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4) as batcher:
        futures = [held(batcher, gate), *(batcher.submit([i]) for i in range(1, 7))]
        gate.open.set()
        assert [future.result(SOON) for future in futures] == [[i * i] for i in range(7)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_large_request_lets_small_ones_in_between_its_batches() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4) as batcher:
        held(batcher, gate)
        large = batcher.submit(list(range(20, 32)))
        small = batcher.submit([5])
        gate.open.set()
        assert large.result(SOON) == squares(range(20, 32))
        assert small.result(SOON) == [25]
    assert 5 in gate.batches[2]


def test_a_failing_batch_fails_only_its_own_requests() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=2) as batcher:
        first = held(batcher, gate)
        unlucky = [batcher.submit([13]), batcher.submit([14])]
        later = batcher.submit([15])
        gate.open.set()
        assert first.result(SOON) == [0]
        for future in unlucky:
            with pytest.raises(ValueError, match="unlucky"):
                future.result(SOON)
        assert later.result(SOON) == [225]


def test_what_is_left_of_a_split_request_is_not_run_after_a_part_failed() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=2) as batcher:
        held(batcher, gate)
        split = batcher.submit([13, 14, 15, 16, 17, 18])
        gate.open.set()
        with pytest.raises(ValueError, match="unlucky"):
            split.result(SOON)
        assert batcher.submit([1]).result(SOON) == [1]
    assert gate.batches == [[0], [13, 14], [1]]


def test_a_full_queue_turns_away_and_keeps_what_it_has() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=3) as batcher:
        held(batcher, gate)
        waiting = batcher.submit([1, 2])
        with pytest.raises(OverloadedError, match="2 images wait for test already, and 2 more"):
            batcher.submit([3, 4])
        fits = batcher.submit([5])
        gate.open.set()
        assert waiting.result(SOON) == [1, 4]
        assert fits.result(SOON) == [25]


def test_an_empty_queue_takes_a_request_larger_than_its_capacity() -> None:
    with batcher_of(squares, capacity=3) as batcher:
        assert batcher.submit(list(range(50))).result(SOON) == squares(range(50))


def test_a_further_part_of_an_admitted_request_is_not_turned_away() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=2) as batcher:
        held(batcher, gate)
        batcher.submit([1, 2])
        continued = batcher.submit([3, 4], continued=True)
        gate.open.set()
        assert continued.result(SOON) == [9, 16]


def test_a_cancelled_request_frees_its_places_and_is_not_run() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=3) as batcher:
        held(batcher, gate)
        left = batcher.submit([7, 8, 9])
        assert left.cancel()
        assert batcher.waiting == 0
        gate.open.set()
        assert batcher.submit([2]).result(SOON) == [4]
    assert gate.batches == [[0], [2]]


def test_a_run_that_loses_an_answer_fails_instead_of_shifting_them() -> None:
    with batcher_of(lambda items: squares(items)[:-1]) as batcher, pytest.raises(InferenceError, match="2 of 3"):
        batcher.submit([1, 2, 3]).result(SOON)


def test_close_answers_the_running_batch_and_fails_what_waits() -> None:
    gate = Gate()
    with batcher_of(gate) as batcher:
        running = held(batcher, gate)
        waiting = batcher.submit([1])
        closing = threading.Thread(target=batcher.close)
        closing.start()
        with pytest.raises(NotReadyError, match="shut down"):
            waiting.result(SOON)
        gate.open.set()
        closing.join(SOON)
        assert running.result(SOON) == [0]
        with pytest.raises(NotReadyError, match="shut down"):
            batcher.submit([2])


def test_a_run_that_hangs_does_not_leave_its_callers_waiting_at_close() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_batch=4, capacity=10, name="test", close_seconds=0.01)
    running = held(batcher, gate)
    batcher.close()
    with pytest.raises(NotReadyError):
        running.result(SOON)
    gate.open.set()


def test_a_request_of_nothing_is_answered_with_nothing() -> None:
    with batcher_of(squares) as batcher:
        assert batcher.submit([]).result(SOON) == []
