import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineError, InferenceError, NotReadyError, OverloadedError
from service.inference.batcher import PATIENCE, Batcher
from service.inference.request_context import Call, Priority
from service.inference.retry_after import RETRY_SECONDS
from service.telemetry.observer import Silent, Stage

SOON = 20  # seconds; only a batcher that never answers waits so long


@contextmanager
def batcher_of(
    run: Callable[[Sequence[int]], Sequence[int]], max_batch: int = 4, capacity: int = 100, **more: Any
) -> Iterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(run, max_batch=max_batch, capacity=capacity, name="test", **more)
    try:
        yield batcher
    finally:
        batcher.close()


def squares(items: Sequence[int]) -> list[int]:
    return [item * item for item in items]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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
            with pytest.raises(InferenceError, match="unlucky"):
                future.result(SOON)
        assert later.result(SOON) == [225]


def test_what_is_left_of_a_split_request_is_not_run_after_a_part_failed() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=2) as batcher:
        held(batcher, gate)
        split = batcher.submit([13, 14, 15, 16, 17, 18])
        gate.open.set()
        with pytest.raises(InferenceError, match="unlucky"):
            split.result(SOON)
        assert batcher.submit([1]).result(SOON) == [1]
    assert gate.batches == [[0], [13, 14], [1]]


def test_a_full_queue_turns_away_and_keeps_what_it_has() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=4) as batcher:
        held(batcher, gate)
        waiting = [batcher.submit([1, 2]), batcher.submit([3])]
        with pytest.raises(OverloadedError, match="3 images wait for test already, and 2 more"):
            batcher.submit([4, 5])
        fits = batcher.submit([6])
        gate.open.set()
        assert [future.result(SOON) for future in (*waiting, fits)] == [[1, 4], [9], [36]]


def test_an_empty_queue_takes_a_request_larger_than_its_capacity() -> None:
    with batcher_of(squares, capacity=3) as batcher:
        assert batcher.submit(list(range(50))).result(SOON) == squares(range(50))


def test_a_request_larger_than_the_queue_leaves_half_of_its_places_to_others() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4, capacity=10) as batcher:
        held(batcher, gate)
        large = batcher.submit(list(range(20, 70)))
        small = [batcher.submit([i]) for i in range(5)]
        with pytest.raises(OverloadedError):
            batcher.submit([5])
        gate.open.set()
        assert large.result(SOON) == squares(range(20, 70))
        assert [future.result(SOON) for future in small] == [[i * i] for i in range(5)]
        assert batcher.submit([6]).result(SOON) == [36]


def test_a_large_requests_places_are_free_once_it_is_answered_late_or_cancelled() -> None:
    gate, clock = Gate(), Clock()
    with batcher_of(gate, max_batch=4, capacity=10, clock=clock) as batcher:
        running = held(batcher, gate)
        assert batcher.submit([1] * 20).cancel()
        late = batcher.submit([2] * 20, call=Call(deadline=clock.now + 1))
        answered = batcher.submit([3] * 20)
        clock.now += 1
        gate.open.set()
        assert [running.result(SOON), answered.result(SOON)] == [[0], [9] * 20]
        assert isinstance(late.exception(SOON), DeadlineError)
        gate.open.clear()
        while gate.entered.acquire(blocking=False):
            pass
        fill(batcher, gate, 10)
        gate.open.set()


def test_evaluations_take_no_place_from_predictions() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=4) as batcher:
        held(batcher, gate)
        futures = [batcher.submit([i, i], call=EVALUATE) for i in (1, 2)]
        with pytest.raises(OverloadedError):
            batcher.submit([3], call=EVALUATE)
        futures += [batcher.submit([i, i]) for i in (3, 4)]
        with pytest.raises(OverloadedError):
            batcher.submit([5])
        gate.open.set()
        assert [future.result(SOON) for future in futures] == [[i * i] * 2 for i in (1, 2, 3, 4)]


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


def test_what_is_late_when_its_batch_is_formed_is_dropped_before_it_is_run() -> None:
    gate, clock = Gate(), Clock()
    with batcher_of(gate, clock=clock) as batcher:
        held(batcher, gate)
        late = batcher.submit([1, 2], call=Call(deadline=clock.now + 5))
        in_time = batcher.submit([3], call=Call(deadline=clock.now + 6))
        clock.now += 5
        gate.open.set()
        with pytest.raises(DeadlineError, match="was over before test had answered"):
            late.result(SOON)
        assert in_time.result(SOON) == [9]
        assert batcher.waiting == 0
    assert gate.batches == [[0], [3]]


def test_what_is_left_of_a_split_request_is_dropped_once_it_is_late() -> None:
    clock = Clock()
    batches: list[list[int]] = []

    def slow(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        clock.now += 1
        return squares(items)

    with batcher_of(slow, max_batch=2, clock=clock) as batcher:
        with pytest.raises(DeadlineError):
            batcher.submit(list(range(10)), call=Call(deadline=clock.now + 2)).result(SOON)
        assert batcher.submit([1]).result(SOON) == [1]
    assert batches == [[0, 1], [2, 3], [1]]


def test_a_run_that_hangs_costs_each_caller_no_more_than_its_own_time() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, max_batch=1, capacity=10, name="test", close_seconds=0.01)

    async def ask() -> None:
        asked = [batcher.ask([i], call=Call.within(0.01)) for i in range(3)]  # one runs, two wait
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in ended] == [DeadlineError] * 3
        await asyncio.to_thread(gate.wait_until_running)
        assert batcher.waiting == 0

    asyncio.run(ask())
    batcher.close()
    gate.open.set()


def test_a_caller_that_is_cancelled_frees_its_places() -> None:
    gate = Gate()

    async def ask(batcher: Batcher[int, int]) -> None:
        asking = asyncio.create_task(batcher.ask([1, 2], call=Call()))
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0)  # the loop hands the cancellation on
        assert batcher.waiting == 0

    with batcher_of(gate) as batcher:
        held(batcher, gate)
        asyncio.run(ask(batcher))
        gate.open.set()
    assert gate.batches == [[0]]


@pytest.mark.parametrize("error", [SystemExit(), TimeoutError(), StopIteration(), CancelledError(), MemoryError()])
def test_whatever_run_raises_the_caller_is_answered_and_the_worker_goes_on(error: BaseException) -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise error
        return squares(items)

    async def ask(batcher: Batcher[int, int]) -> list[int]:
        with pytest.raises(InferenceError, match=type(error).__name__):
            await batcher.ask([13], call=Call.within(SOON))
        return await batcher.ask([2], call=Call.within(SOON))

    with batcher_of(run) as batcher:
        assert asyncio.run(ask(batcher)) == [4]


EVALUATE = Call(priority=Priority.EVALUATE)


def test_evaluations_wait_behind_predictions_and_never_share_their_batch() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=4) as batcher:
        held(batcher, gate)
        futures = [batcher.submit([i], call=EVALUATE) for i in (1, 2)] + [batcher.submit([i]) for i in (3, 4)]
        gate.open.set()
        assert [future.result(SOON) for future in futures] == [[1], [4], [9], [16]]
    assert gate.batches == [[0], [3, 4], [1, 2]]


def test_an_evaluation_gets_its_turn_however_many_predictions_wait() -> None:
    gate = Gate()
    with batcher_of(gate, max_batch=1, capacity=1000) as batcher:
        held(batcher, gate)
        evaluation = batcher.submit([5, 6], call=EVALUATE)
        predictions = [batcher.submit([1]) for _ in range(5 * PATIENCE)]
        gate.open.set()
        assert evaluation.result(SOON) == [25, 36]
        assert [future.result(SOON) for future in predictions] == [[1]] * len(predictions)
    turns = [i for i, batch in enumerate(gate.batches) if batch != [1]]
    assert turns == [0, 1 + PATIENCE, 2 + 2 * PATIENCE]


def test_with_a_wait_the_batch_fills_before_it_is_run() -> None:
    gate = Gate()
    gate.open.set()
    with batcher_of(gate, max_batch=4, max_wait=1000) as batcher:
        futures = [batcher.submit([1]), batcher.submit([2]), batcher.submit([3, 4, 5])]
        assert [future.result(SOON) for future in futures[:2]] == [[1], [4]]
    assert gate.batches == [[1, 2, 3, 4]]  # and 5 waits on until the close


def test_a_wait_ends_with_the_oldest_requests_patience() -> None:
    clock, gate = Clock(), Gate()
    gate.open.set()
    with batcher_of(gate, max_batch=4, max_wait=10, clock=clock) as batcher:
        first = batcher.submit([1])
        clock.now += 10
        assert [batcher.submit([2]).result(SOON), first.result(SOON)] == [[4], [1]]


def test_a_lone_request_is_answered_when_its_wait_is_over() -> None:
    with batcher_of(squares, max_wait=0.001) as batcher:
        assert batcher.submit([3]).result(SOON) == [9]


def fill(batcher: Batcher[int, int], gate: Gate, items: int) -> OverloadedError:
    """What a caller is told that finds so many waiting."""
    held(batcher, gate)
    for _ in range(items):
        batcher.submit([1])
    with pytest.raises(OverloadedError) as refused:
        batcher.submit([1])
    return refused.value


@pytest.mark.parametrize(("seconds", "told"), [(0.5, 40), (0.001, RETRY_SECONDS[0]), (1000, RETRY_SECONDS[1])])
def test_who_is_turned_away_is_told_how_long_the_queue_takes_at_the_measured_rate(seconds: float, told: float) -> None:
    clock, gate = Clock(), Gate()

    def run(items: Sequence[int]) -> list[int]:
        clock.now += seconds * len(items)
        return gate(items)

    gate.open.set()
    with batcher_of(run, capacity=80, clock=clock) as batcher:
        batcher.submit([1, 2, 3]).result(SOON)
        batcher.submit([1]).result(SOON)
        for _ in range(2):
            gate.wait_until_running()
        gate.open.clear()
        assert fill(batcher, gate, 80).retry_after == pytest.approx(told)
        gate.open.set()


def test_who_is_turned_away_before_anything_was_measured_is_told_the_least() -> None:
    gate = Gate()
    with batcher_of(gate, capacity=5) as batcher:
        assert fill(batcher, gate, 5).retry_after == RETRY_SECONDS[0]
        gate.open.set()


class Told(Silent):
    def __init__(self) -> None:
        self.queued: list[float] = []
        self.changes: list[int] = []
        self.turned_away = 0

    def stage(self, stage: Stage, seconds: float) -> None:
        assert stage is Stage.QUEUE
        self.queued.append(seconds)

    def waiting(self, change: int) -> None:
        self.changes.append(change)

    def overloaded(self) -> None:
        self.turned_away += 1


def test_the_observer_hears_of_the_queue_its_length_and_who_is_turned_away() -> None:
    clock, gate, told = Clock(), Gate(), Told()
    with batcher_of(gate, max_batch=2, capacity=1, clock=clock, observer=told) as batcher:
        held(batcher, gate)
        call = Call()
        waiting = batcher.submit([1, 2, 3], call=call)
        with pytest.raises(OverloadedError):
            batcher.submit([4])
        clock.now += 7
        gate.open.set()
        waiting.result(SOON)
    assert told.changes == [1, -1, 3, -2, -1]
    assert told.turned_away == 1
    assert told.queued == [0, 7]
    assert call.timings.queue == 7


def test_each_deadline_that_passes_names_whose_it_was() -> None:
    clock, gate = Clock(), Gate()

    async def ask(batcher: Batcher[int, int]) -> None:
        dropped = asyncio.create_task(batcher.ask([1], call=Call(deadline=clock.now + SOON)))
        gave_up = asyncio.create_task(batcher.ask([2], call=Call(deadline=clock.now)))
        with pytest.raises(DeadlineError) as late:
            await gave_up
        assert late.value.model == "test"
        clock.now += SOON
        gate.open.set()
        with pytest.raises(DeadlineError) as late:
            await dropped
        assert late.value.model == "test"

    with batcher_of(gate, clock=clock) as batcher:
        held(batcher, gate)
        asyncio.run(ask(batcher))
    assert gate.batches == [[0]]


@dataclass(frozen=True)
class Asked:
    """One request of the property below. The clock goes to 100 before it can be in a batch."""

    size: int
    unlucky: bool
    deadline: float
    priority: Priority
    cancelled: bool


REQUESTS = st.lists(
    st.builds(
        Asked,
        size=st.integers(1, 9),
        unlucky=st.integers(0, 5).map(lambda n: n == 0),
        deadline=st.sampled_from([50, 150, math.inf]),
        priority=st.sampled_from(Priority),
        cancelled=st.integers(0, 3).map(lambda n: n == 0),
    ),
    max_size=12,
)


@given(requests=REQUESTS, max_batch=st.integers(1, 6), closed=st.booleans())
def test_any_mix_of_requests_gives_each_its_own_answers_in_order_or_its_own_reason(
    requests: list[Asked], max_batch: int, closed: bool
) -> None:
    clock, gate = Clock(), Gate()
    clock.now = 0
    items = [[100 * i + k for k in range(1, asked.size + 1)] for i, asked in enumerate(requests, 1)]
    for mine, asked in zip(items, requests, strict=True):
        mine[-1] = -mine[-1] if asked.unlucky else mine[-1]

    def run(batch: Sequence[int]) -> list[int]:
        answers = gate(batch)
        if min(batch) < 0:
            raise ValueError("unlucky")
        return answers

    with batcher_of(run, max_batch, capacity=1000, clock=clock) as batcher:
        held(batcher, gate)
        futures = [
            batcher.submit(mine, call=Call(asked.deadline, asked.priority))
            for mine, asked in zip(items, requests, strict=True)
        ]
        assert all(future.cancel() for asked, future in zip(requests, futures, strict=True) if asked.cancelled)
        clock.now = 100
        gate.open.set()
        if closed:
            batcher.close()
        for asked, mine, future in zip(requests, items, futures, strict=True):
            outcome = outcome_of(future)
            if asked.cancelled:
                assert outcome is CancelledError
            elif closed and outcome is NotReadyError:
                continue
            elif asked.deadline == 50:
                assert outcome is DeadlineError
            elif outcome is InferenceError:
                shared = [batch for batch in gate.batches if set(batch) & set(mine)]
                assert min(min(batch) for batch in shared) < 0
            else:
                assert outcome == squares(mine)
        assert batcher.waiting == 0
    ran = {item for batch in gate.batches for item in batch}
    dropped = [mine for mine, asked in zip(items, requests, strict=True) if asked.cancelled or asked.deadline == 50]
    assert not any(ran & set(mine) for mine in dropped)


def outcome_of(future: Future[list[int]]) -> object:
    """The answer, or the kind of its error."""
    try:
        return future.result(SOON)
    except Exception as error:
        return type(error)
