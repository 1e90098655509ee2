import asyncio
import math
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DeadlineError, InferenceError, NotReadyError, OverloadedError
from service.inference.batcher import PATIENCE, Batcher, InThread
from service.inference.request_context import Priority, RequestContext
from service.inference.retry_after import RETRY_SECONDS

pytestmark = pytest.mark.anyio

SOON = 20  # seconds, which pass only if a batcher never answers
PREDICT, EVALUATE = RequestContext(), RequestContext(priority=Priority.EVALUATE)

Run = Callable[[Sequence[int]], list[int] | InThread[list[int]]]
Mode = Callable[[Callable[[Sequence[int]], list[int]]], Run]


def on_loop(run: Callable[[Sequence[int]], list[int]]) -> Run:
    return run


def in_thread(run: Callable[[Sequence[int]], list[int]]) -> Run:
    return lambda items: InThread(lambda: run(items))


@pytest.fixture(params=[on_loop, in_thread])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


def batcher_of(run: Run, max_batch: int = 4, capacity: int = 100, **more: Any) -> Batcher[int, list[int]]:
    return Batcher(lambda items, _: run(items), max_batch=max_batch, capacity=capacity, name="test", **more)


async def ask(
    batcher: Batcher[int, list[int]],
    items: Sequence[int],
    context: RequestContext = PREDICT,
    *,
    continued: bool = False,
) -> list[int]:
    parts = await batcher.submit(items, context, continued=continued)
    return [answer for part in parts for answer in part.output[part.start : part.stop]]


Asked = asyncio.Task[list[int]]


async def submit(
    batcher: Batcher[int, list[int]], *requests: Sequence[int], context: RequestContext = PREDICT, **more: bool
) -> list[Asked]:
    """Requests that are in the queue, or refused, when this returns."""
    asked = [asyncio.create_task(ask(batcher, items, context, **more)) for items in requests]
    await asyncio.sleep(0)
    return asked


async def outcomes(*asked: Awaitable[list[int]]) -> list[list[int] | BaseException]:
    async with asyncio.timeout(SOON):
        return await asyncio.gather(*asked, return_exceptions=True)


def squares(items: Sequence[int]) -> list[int]:
    return [item * item for item in items]


class Recording:
    """A run that records its batches."""

    def __init__(self, run: Callable[[Sequence[int]], list[int]] = squares) -> None:
        self.batches: list[list[int]] = []
        self._run = run

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        return self._run(items)


def unlucky(items: Sequence[int]) -> list[int]:
    if 13 in items:
        raise ValueError("unlucky")
    return squares(items)


class Clock:
    """Seconds that pass only when a test moves them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A run that blocks in the thread until it is opened, and records its batches. The item 13 makes it raise."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, items: Sequence[int]) -> InThread[list[int]]:
        self.batches.append(list(items))
        return InThread(lambda: self._run(items))

    def _run(self, items: Sequence[int]) -> list[int]:
        self.entered.release()
        assert self.open.wait(SOON)
        return unlucky(items)

    async def occupy(self, batcher: Batcher[int, list[int]]) -> Asked:
        """Makes the batcher busy, so that later requests gather in its queue."""
        (asked,) = await submit(batcher, [0])
        assert await asyncio.to_thread(self.entered.acquire, timeout=SOON)
        return asked


@given(
    requests=st.lists(st.lists(st.integers(-1000, 1000), max_size=30), max_size=12),
    max_batch=st.integers(1, 9),
    ahead=st.integers(0, 2),
    mode=st.sampled_from([on_loop, in_thread]),
)
async def test_answers_come_in_order_for_any_split(
    requests: list[list[int]], max_batch: int, ahead: int, mode: Mode
) -> None:
    batcher = batcher_of(mode(squares), max_batch, capacity=10_000, ahead=ahead)
    assert await outcomes(*(ask(batcher, items) for items in requests)) == [squares(items) for items in requests]
    batcher.close()


async def test_a_batch_grows_while_each_iteration_of_the_loop_brings_more(mode: Mode) -> None:
    run = Recording()
    batcher = batcher_of(mode(run), max_batch=4)
    asked = [task for i in range(3) for task in await submit(batcher, [i])]
    await outcomes(*asked)
    assert run.batches == [[0, 1, 2]]


async def test_a_full_batch_runs_at_once(mode: Mode) -> None:
    run = Recording()
    batcher = batcher_of(mode(run), max_batch=4)
    assert await outcomes(*(ask(batcher, [i]) for i in range(7))) == [[i * i] for i in range(7)]
    assert run.batches == [[0, 1, 2, 3], [4, 5, 6]]


async def test_the_loop_polls_its_events_between_two_batches() -> None:
    here, there = socket.socketpair()
    steps: list[str] = []

    def run(items: Sequence[int]) -> list[int]:
        steps.append("batch")
        here.send(b"x")
        return squares(items)

    def read() -> None:
        steps.append("read")
        there.recv(100)

    asyncio.get_running_loop().add_reader(there, read)
    with here, there:
        await ask(batcher_of(run, max_batch=1, clock=Clock()), range(10))
        asyncio.get_running_loop().remove_reader(there)
    assert "read" in steps[:3]


@pytest.mark.parametrize(("elsewhere", "batches_a_turn"), [(0.0, 1), (0.001, 1), (0.0025, 3), (10.0, 50)])
async def test_batches_get_as_much_of_the_loop_as_all_else_but_only_for_a_moment(
    elsewhere: float, batches_a_turn: int
) -> None:
    clock, recording = Clock(), Recording()

    def run(items: Sequence[int]) -> list[int]:
        clock.now += 0.001
        return recording(items)

    batcher = batcher_of(run, capacity=2000, clock=clock)
    asked = await submit(batcher, *([item] for item in range(800)))
    turns = []
    while len(recording.batches) < 100:
        before = len(recording.batches)
        clock.now += elsewhere
        await asyncio.sleep(0)
        turns.append(len(recording.batches) - before)
    assert set(turns[2:-1]) <= {0, batches_a_turn}
    assert await outcomes(*asked) == [[square] for square in squares(range(800))]
    batcher.close()


async def test_a_run_decides_for_each_batch_whether_it_needs_the_thread() -> None:
    threads: list[str] = []

    def run(items: Sequence[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        return squares(items)

    batcher = batcher_of(lambda items: InThread(lambda: run(items)) if max(items) > 9 else run(items), max_batch=1)
    assert await ask(batcher, [1, 10, 2]) == [1, 100, 4]
    here = threading.current_thread().name
    assert threads == [here, "batcher-test_0", here]


async def test_a_batch_runs_alone_if_it_is_one_item_and_nothing_waits_or_has_waited() -> None:
    gate, alone = Gate(), list[tuple[list[int], bool]]()

    def run(items: Sequence[int], is_alone: bool) -> InThread[list[int]]:
        alone.append((list(items), is_alone))
        return gate(items)

    batcher: Batcher[int, list[int]] = Batcher(run, name="test", max_batch=2, capacity=100)
    asked = [await gate.occupy(batcher), *await submit(batcher, [1], [2], [3])]
    gate.open.set()
    await outcomes(*asked)
    assert await ask(batcher, [4, 5]) == [16, 25]
    assert await ask(batcher, [6]) == [36]
    assert alone == [([0], True), ([1, 2], False), ([3], False), ([4, 5], False), ([6], True)]


async def test_requests_that_arrive_while_the_thread_is_busy_form_the_next_batch() -> None:
    gate = Gate()
    batcher = batcher_of(gate, max_batch=4)
    asked = [await gate.occupy(batcher), *await submit(batcher, *([i] for i in range(1, 7)))]
    gate.open.set()
    assert await outcomes(*asked) == [[i * i] for i in range(7)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_batch_ahead_is_begun_while_the_thread_runs_another() -> None:
    gate = Gate()
    batcher = batcher_of(gate, max_batch=2, ahead=1)
    asked = [await gate.occupy(batcher), *await submit(batcher, [1], [2], [3])]
    await asyncio.sleep(0)
    assert gate.batches == [[0], [1, 2]]
    gate.open.set()
    assert await outcomes(*asked) == [[0], [1], [4], [9]]


async def test_a_large_request_lets_small_ones_in_between_its_batches(mode: Mode) -> None:
    run = Recording()
    asked = await submit(batcher_of(mode(run), max_batch=4), range(20, 32), [5])
    assert await outcomes(*asked) == [squares(range(20, 32)), [25]]
    assert 5 in run.batches[1]


async def test_a_failing_batch_fails_only_its_own_requests(mode: Mode) -> None:
    first, *failed, later = await outcomes(
        *await submit(batcher_of(mode(unlucky), max_batch=2), [0, 1], [13], [14], [15])
    )
    assert (first, later) == ([0, 1], [225])
    for error in failed:
        assert isinstance(error, InferenceError)
        assert "unlucky" in str(error)


async def test_the_rest_of_a_split_request_is_not_run_after_a_part_failed(mode: Mode) -> None:
    run = Recording(unlucky)
    batcher = batcher_of(mode(run), max_batch=2)
    with pytest.raises(InferenceError, match="unlucky"):
        await ask(batcher, [13, 14, 15, 16, 17, 18])
    assert await ask(batcher, [1]) == [1]
    assert run.batches == [[13, 14], [1]]


async def test_a_full_queue_refuses_and_keeps_its_requests() -> None:
    gate = Gate()
    batcher = batcher_of(gate, capacity=4)
    await gate.occupy(batcher)
    waiting = await submit(batcher, [1, 2], [3])
    with pytest.raises(OverloadedError, match="3 images wait for test already, and 2 more"):
        await ask(batcher, [4, 5])
    waiting += await submit(batcher, [6])
    gate.open.set()
    assert await outcomes(*waiting) == [[1, 4], [9], [36]]


async def test_an_empty_queue_accepts_a_request_larger_than_its_capacity(mode: Mode) -> None:
    assert await ask(batcher_of(mode(squares), capacity=3), range(50)) == squares(range(50))


async def test_a_request_larger_than_the_queue_leaves_half_of_its_places_to_others() -> None:
    gate = Gate()
    batcher = batcher_of(gate, max_batch=4, capacity=10)
    await gate.occupy(batcher)
    asked = await submit(batcher, range(20, 70), *([i] for i in range(5)))
    with pytest.raises(OverloadedError):
        await ask(batcher, [5])
    gate.open.set()
    assert await outcomes(*asked) == [squares(range(20, 70)), *([i * i] for i in range(5))]
    assert await ask(batcher, [6]) == [36]


async def test_places_are_free_once_a_large_request_is_answered_late_or_cancelled() -> None:
    gate, clock = Gate(), Clock()
    batcher = batcher_of(gate, max_batch=4, capacity=10, clock=clock)
    running = await gate.occupy(batcher)
    (cancelled,) = await submit(batcher, [1] * 20)
    cancelled.cancel()
    (late,) = await submit(batcher, [2] * 20, context=RequestContext(clock.now + SOON))
    (answered,) = await submit(batcher, [3] * 20)
    clock.now += SOON
    gate.open.set()
    first, error, last = await outcomes(running, late, answered)
    assert (first, type(error), last) == ([0], DeadlineError, [9] * 20)
    gate.open.clear()
    while gate.entered.acquire(blocking=False):
        pass
    await fill(batcher, gate, 10)
    gate.open.set()


async def test_evaluations_take_no_place_from_predictions() -> None:
    gate = Gate()
    batcher = batcher_of(gate, capacity=4)
    await gate.occupy(batcher)
    asked = await submit(batcher, [1, 1], [2, 2], context=EVALUATE)
    with pytest.raises(OverloadedError):
        await ask(batcher, [3], EVALUATE)
    asked += await submit(batcher, [3, 3], [4, 4])
    with pytest.raises(OverloadedError):
        await ask(batcher, [5])
    gate.open.set()
    assert await outcomes(*asked) == [[i * i] * 2 for i in (1, 2, 3, 4)]


async def test_a_further_part_of_an_admitted_request_is_not_refused() -> None:
    gate = Gate()
    batcher = batcher_of(gate, capacity=2)
    await gate.occupy(batcher)
    asked = [*await submit(batcher, [1, 2]), *await submit(batcher, [3, 4], continued=True)]
    gate.open.set()
    assert await outcomes(*asked) == [[1, 4], [9, 16]]


async def test_a_cancelled_caller_frees_its_places_and_is_not_run() -> None:
    gate = Gate()
    batcher = batcher_of(gate, capacity=3)
    await gate.occupy(batcher)
    (left,) = await submit(batcher, [7, 8, 9])
    assert batcher.waiting == 3
    left.cancel()
    await asyncio.wait([left])
    assert batcher.waiting == 0
    gate.open.set()
    assert await ask(batcher, [2]) == [4]
    assert gate.batches == [[0], [2]]


async def test_a_caller_that_is_cancelled_just_before_a_batch_forms_is_not_run() -> None:
    run = Recording()
    left, stays = await submit(batcher_of(run), [1, 2], [3])
    left.cancel()
    assert isinstance((await outcomes(left))[0], asyncio.CancelledError)
    assert await stays == [9]
    assert run.batches == [[3]]


async def test_close_answers_the_running_batch_and_fails_the_waiting_requests() -> None:
    gate = Gate()
    batcher = batcher_of(gate)
    running, waiting = await gate.occupy(batcher), *await submit(batcher, [1])
    batcher.close()
    with pytest.raises(NotReadyError, match="shut down"):
        await waiting
    with pytest.raises(NotReadyError, match="shutting down"):
        await ask(batcher, [2])
    gate.open.set()
    await batcher.wait_closed()
    assert await running == [0]


async def test_a_run_that_hangs_does_not_keep_its_callers_waiting_at_close() -> None:
    gate = Gate()
    batcher = batcher_of(gate, close_seconds=0.01)
    running = await gate.occupy(batcher)
    batcher.close()
    await batcher.wait_closed()
    with pytest.raises(NotReadyError):
        await running
    gate.open.set()


async def test_a_request_without_items_is_answered_without_a_batch() -> None:
    assert await batcher_of(lambda _: pytest.fail("ran")).submit([], PREDICT) == []


async def test_a_request_that_is_late_when_its_batch_forms_is_dropped_before_it_runs() -> None:
    gate, clock = Gate(), Clock()
    batcher = batcher_of(gate, clock=clock)
    await gate.occupy(batcher)
    (late,) = await submit(batcher, [1, 2], context=RequestContext(clock.now + SOON))
    (in_time,) = await submit(batcher, [3], context=RequestContext(clock.now + SOON + 1))
    clock.now += SOON
    gate.open.set()
    with pytest.raises(DeadlineError, match="deadline passed before test answered"):
        await late
    assert await in_time == [9]
    assert batcher.waiting == 0
    assert gate.batches == [[0], [3]]


async def test_the_rest_of_a_split_request_is_dropped_once_it_is_late(mode: Mode) -> None:
    clock = Clock()
    batches: list[list[int]] = []

    def slow(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        clock.now += SOON / 2
        return squares(items)

    batcher = batcher_of(mode(slow), max_batch=2, clock=clock)
    with pytest.raises(DeadlineError):
        await ask(batcher, range(10), RequestContext(clock.now + SOON))
    assert await ask(batcher, [1]) == [1]
    assert batches == [[0, 1], [2, 3], [1]]


async def test_a_run_that_hangs_costs_each_caller_only_its_own_time() -> None:
    gate = Gate()
    batcher = batcher_of(gate, max_batch=1)
    asked = await submit(batcher, [0], [1], [2], context=RequestContext.within(0.01))  # one runs, two wait
    assert [type(error) for error in await outcomes(*asked)] == [DeadlineError] * 3
    assert batcher.waiting == 0
    gate.open.set()
    batcher.close()
    assert gate.batches == [[0]]


@pytest.mark.parametrize("error", [SystemExit(), TimeoutError(), StopIteration(), CancelledError(), MemoryError()])
async def test_whatever_run_raises_the_caller_is_answered_and_the_next_batch_runs(
    mode: Mode, error: BaseException
) -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise error
        return squares(items)

    batcher = batcher_of(mode(run))
    with pytest.raises(InferenceError, match=type(error).__name__):
        await ask(batcher, [13], RequestContext.within(SOON))
    assert await ask(batcher, [2], RequestContext.within(SOON)) == [4]


async def test_evaluations_wait_behind_predictions_and_never_share_their_batch() -> None:
    gate = Gate()
    batcher = batcher_of(gate, max_batch=4)
    await gate.occupy(batcher)
    asked = await submit(batcher, [1], [2], context=EVALUATE) + await submit(batcher, [3], [4])
    gate.open.set()
    assert await outcomes(*asked) == [[1], [4], [9], [16]]
    assert gate.batches == [[0], [3, 4], [1, 2]]


async def test_an_evaluation_gets_its_turn_however_many_predictions_wait(mode: Mode) -> None:
    run = Recording()
    batcher = batcher_of(mode(run), max_batch=1, capacity=1000)
    asked = [*await submit(batcher, [0]), *await submit(batcher, [5, 6], context=EVALUATE)]
    asked += await submit(batcher, *[[1]] * 5 * PATIENCE)
    assert (await outcomes(*asked))[1] == [25, 36]
    turns = [i for i, batch in enumerate(run.batches) if batch in ([5], [6])]
    assert turns[1] - turns[0] == PATIENCE + 1
    assert turns[0] <= PATIENCE + 1


async def test_with_a_wait_the_batch_fills_before_it_runs() -> None:
    gate = Gate()
    gate.open.set()
    batcher = batcher_of(gate, max_batch=4, max_wait=1000)
    first, second, third = await submit(batcher, [1], [2], [3, 4, 5])
    assert await outcomes(first, second) == [[1], [4]]
    assert gate.batches == [[1, 2, 3, 4]]  # 5 waits
    batcher.close()
    assert isinstance((await outcomes(third))[0], NotReadyError)


async def test_a_wait_ends_with_the_oldest_requests_patience(mode: Mode) -> None:
    clock = Clock()
    batcher = batcher_of(mode(squares), max_wait=SOON, clock=clock)
    first = await submit(batcher, [1])
    for _ in range(3):  # turns of the loop, after which it waits
        await asyncio.sleep(0)
    clock.now += SOON
    assert await outcomes(*first, *await submit(batcher, [2])) == [[1], [4]]


async def test_a_lone_request_is_answered_when_its_wait_is_over(mode: Mode) -> None:
    assert await ask(batcher_of(mode(squares), max_wait=0.001), [3]) == [9]


async def fill(
    batcher: Batcher[int, list[int]], gate: Gate, items: int, context: RequestContext = PREDICT
) -> OverloadedError:
    """Returns the refusal of the request that finds so many items waiting."""
    await gate.occupy(batcher)
    return await fill_queue(batcher, items, context)


async def fill_queue(batcher: Batcher[int, list[int]], items: int, context: RequestContext) -> OverloadedError:
    await submit(batcher, *[[1]] * items, context=context)
    with pytest.raises(OverloadedError) as refused:
        await ask(batcher, [1], context)
    return refused.value


def timed(gate: Gate, clock: Clock, seconds: float) -> Run:
    """The gate's run, which takes so many seconds per item once it is open."""

    def run(items: Sequence[int]) -> InThread[list[int]]:
        clock.now += seconds * len(items)
        return gate(items)

    return run


async def measured(gate: Gate, seconds: float, clock: Clock | None = None, **more: Any) -> Batcher[int, list[int]]:
    """A batcher that has measured so many seconds per item, and whose gate is closed again."""
    clock = clock or Clock()
    batcher = batcher_of(timed(gate, clock, seconds), clock=clock, **more)
    gate.open.set()
    for items in ([1, 2, 3], [1]):
        await ask(batcher, items)
        assert gate.entered.acquire(timeout=SOON)
    gate.open.clear()
    return batcher


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, 40), (0.001, RETRY_SECONDS[0]), (1000, RETRY_SECONDS[1])])
async def test_retry_after_is_the_time_of_the_queue_at_the_measured_rate(seconds: float, expected: float) -> None:
    gate = Gate()
    batcher = await measured(gate, seconds, capacity=80)
    assert (await fill(batcher, gate, 80)).retry_after == pytest.approx(expected)
    gate.open.set()


async def test_a_request_is_refused_at_once_if_the_queue_is_too_long_for_its_deadline() -> None:
    gate, clock = Gate(), Clock()
    batcher = await measured(gate, 0.5, clock, max_batch=4)
    await gate.occupy(batcher)
    waiting = await submit(batcher, *[[1]] * 5)
    # At half a second each, and a fifth more: the running one, five that wait, its own, and a full batch.
    with pytest.raises(
        OverloadedError, match="5 images wait for test already, and 1 more would not be answered before"
    ):
        await ask(batcher, [1], RequestContext(clock.now + 6.5))
    waiting += await submit(batcher, [1], context=RequestContext(clock.now + 6.7))
    gate.open.set()
    assert await outcomes(*waiting) == [[1]] * 6


async def test_an_empty_queue_admits_a_request_whatever_the_estimate_is() -> None:
    gate, clock = Gate(), Clock()
    batcher = await measured(gate, 1000, clock)
    gate.open.set()
    assert await ask(batcher, [2], RequestContext(clock.now + SOON)) == [4]


async def test_while_requests_wait_the_rate_includes_the_time_between_two_batches() -> None:
    gate, clock = Gate(), Clock()

    def pause(_: object) -> None:
        clock.now += 2

    batcher = batcher_of(gate, max_batch=1, capacity=20, clock=clock, report=pause)
    waiting = [await gate.occupy(batcher), *await submit(batcher, [1], [2])]
    gate.open.set()
    await outcomes(*waiting)
    gate.open.clear()
    for _ in range(2):
        assert gate.entered.acquire(timeout=SOON)
    mean = (0.9 * 2 + 2) / (0.9 * (0.9 + 1) + 1)  # seconds per item: nothing at first, then twice the pause
    assert (await fill(batcher, gate, 20)).retry_after == pytest.approx(20 * mean)
    gate.open.set()


async def test_retry_after_counts_only_the_lines_that_admission_counts() -> None:
    gate = Gate()
    batcher = await measured(gate, 0.5, capacity=40)
    await gate.occupy(batcher)
    waiting = await submit(batcher, *[[1]] * 40, context=EVALUATE)
    assert (await fill_queue(batcher, 40, PREDICT)).retry_after == pytest.approx(20)
    with pytest.raises(OverloadedError, match="80 images wait") as refused:
        await ask(batcher, [1], EVALUATE)
    assert refused.value.retry_after == pytest.approx(40)
    gate.open.set()
    await outcomes(*waiting)


async def test_retry_after_is_the_least_before_anything_was_measured() -> None:
    gate = Gate()
    assert (await fill(batcher_of(gate, capacity=5), gate, 5)).retry_after == RETRY_SECONDS[0]
    gate.open.set()


async def test_the_length_of_the_queue_is_counted_and_the_wait_in_it_timed() -> None:
    clock, gate, changes = Clock(), Gate(), list[int]()
    batcher = batcher_of(gate, max_batch=2, capacity=1, clock=clock, count_waiting=changes.append)
    await gate.occupy(batcher)
    context = RequestContext()
    waiting = await submit(batcher, [1, 2, 3], context=context)
    with pytest.raises(OverloadedError):
        await ask(batcher, [4])
    clock.now += 7
    gate.open.set()
    await outcomes(*waiting)
    assert changes == [1, -1, 3, -2, -1]
    assert context.timings.queue == 7


async def test_each_deadline_that_passes_names_the_model() -> None:
    clock, gate = Clock(), Gate()
    batcher = batcher_of(gate, clock=clock)
    await gate.occupy(batcher)
    (dropped,) = await submit(batcher, [1], context=RequestContext(clock.now + SOON))
    refused = ask(batcher, [2], RequestContext(clock.now))
    clock.now += SOON
    gate.open.set()
    for error in await outcomes(dropped, refused):
        assert isinstance(error, DeadlineError)
        assert error.model == "test"
    assert gate.batches == [[0]]


@dataclass(frozen=True)
class Case:
    """One request of the property below. The clock goes to 100 before it can be in a batch."""

    size: int
    unlucky: bool
    deadline: float
    priority: Priority
    cancelled: bool


CASES = st.lists(
    st.builds(
        Case,
        size=st.integers(1, 9),
        unlucky=st.integers(0, 5).map(lambda n: n == 0),
        deadline=st.sampled_from([50, 150, math.inf]),
        priority=st.sampled_from(Priority),
        cancelled=st.integers(0, 3).map(lambda n: n == 0),
    ),
    max_size=12,
)


@given(cases=CASES, max_batch=st.integers(1, 6), closed=st.booleans(), mode=st.sampled_from([on_loop, in_thread]))
async def test_any_mix_of_requests_gives_each_its_own_answers_in_order_or_its_own_reason(
    cases: list[Case], max_batch: int, closed: bool, mode: Mode
) -> None:
    clock = Clock()
    clock.now = 0
    requests = [[100 * i + k for k in range(1, case.size + 1)] for i, case in enumerate(cases, 1)]
    for items, case in zip(requests, cases, strict=True):
        items[-1] = -items[-1] if case.unlucky else items[-1]

    def no_negatives(items: Sequence[int]) -> list[int]:
        if min(items) < 0:
            raise ValueError("unlucky")
        return squares(items)

    run = Recording(no_negatives)
    batcher = batcher_of(mode(run), max_batch, capacity=1000, clock=clock)
    asked = [
        asyncio.create_task(ask(batcher, items, RequestContext(case.deadline, case.priority)))
        for items, case in zip(requests, cases, strict=True)
    ]
    await asyncio.sleep(0)
    for task, case in zip(asked, cases, strict=True):
        if case.cancelled:
            task.cancel()
    clock.now = 100
    if closed:
        await asyncio.sleep(0)
        batcher.close()
    for case, items, outcome in zip(cases, requests, await outcomes(*asked), strict=True):
        if not (closed and isinstance(outcome, NotReadyError)):
            check(case, items, outcome, run.batches)
    assert batcher.waiting == 0
    batcher.close()


def check(case: Case, items: list[int], outcome: list[int] | BaseException, batches: list[list[int]]) -> None:
    with_items = [batch for batch in batches if set(batch) & set(items)]
    if case.cancelled or case.deadline == 50:
        assert isinstance(outcome, asyncio.CancelledError if case.cancelled else DeadlineError)
        assert not with_items
    elif isinstance(outcome, InferenceError):
        assert min(map(min, with_items)) < 0
    else:
        assert outcome == squares(items)
