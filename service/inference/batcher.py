"""Collects the items of concurrent requests into batches and runs one batch after another.

The queue is touched only on the event loop's thread and needs no locks. A batch runs on the event loop itself or in
one worker thread, as run decides. A batch forms as soon as an iteration of the loop brings no further requests, so it
holds all that arrived together or while another batch ran. I/O is polled between batches, except that batches may
take as much of the loop's time as everything else.

A request larger than a batch is split; after each of its batches it returns to the end of its line. The queue is
counted in items, and one request holds at most half of its places.

Each priority has a line of its own, and a batch takes from one line only: the most urgent that is not empty. The last
line gets every (PATIENCE + 1)th batch, so it never starves. Admission counts the places of the request's own line and
of more urgent ones.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from service.errors import DeadlineError, InferenceError, NotReadyError, OverloadedError, ServiceError
from service.inference.request_context import Priority, RequestContext
from service.inference.retry_after import Throughput, retry_after

Item = TypeVar("Item")
Output = TypeVar("Output")

CLOSE_SECONDS = 10.0
TURN_SECONDS = 0.05  # longest time that batches on the event loop run without a poll for I/O
PATIENCE = 8  # batches in a row that may pass over the last line
# The work for a request that is answered late is lost; that for a request that is refused too early is not.
_CAUTION = 1.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InThread(Generic[Output]):
    """The rest of a run that is too slow for the event loop."""

    compute: Callable[[], Output]


class Part(NamedTuple, Generic[Output]):
    """Positions start to stop of the batch whose run gave output."""

    output: Output
    start: int
    stop: int


@dataclass(eq=False)
class _Request(Generic[Item, Output]):
    items: Sequence[Item]
    context: RequestContext
    answer: "asyncio.Future[list[Part[Output]]]"
    arrived: float
    waiting_since: float  # its arrival, then the end of each batch that took some of its items
    waiting: int = 0  # items in the queue
    answered: int = 0  # items
    parts: list[Part[Output]] = field(default_factory=list)


@dataclass(eq=False)
class _Line(Generic[Item, Output]):
    """requests is a queue that any request can leave in constant time."""

    requests: "OrderedDict[_Request[Item, Output], None]" = field(default_factory=OrderedDict)
    waiting: int = 0  # items
    places: int = 0


_Batch = list[tuple[_Request[Item, Output], Sequence[Item]]]


class Batcher(Generic[Item, Output]):
    """The queue in front of one model. It belongs to the event loop on which it is used."""

    def __init__(
        self,
        run: Callable[[Sequence[Item], bool], Output | InThread[Output]],
        *,
        name: str,
        max_batch: int,
        capacity: int,
        ahead: int = 0,
        max_wait: float = 0.0,
        report: Callable[[Output], None] = lambda _: None,
        count_waiting: Callable[[int], None] = lambda _: None,
        close_seconds: float = CLOSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """run gets at most max_batch items on the event loop. An exception fails the requests of that batch only.

        Its second argument says whether the batch is a single item and the batcher has been idle otherwise.
        ahead is how many batches are handed to the worker thread beside the one that it runs. max_wait is how many
        seconds an idle model lets the oldest request wait for its batch to fill. report receives the output of each
        batch, count_waiting each change of the number of waiting items. clock is the clock of the deadlines.
        """
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._capacity = capacity
        self._most_places = max(capacity // 2, 1)  # of one request
        self._most_running = 1 + ahead
        self._max_wait = max_wait
        self._report = report
        self._count_waiting = count_waiting
        self._close_seconds = close_seconds
        self._clock = clock
        self._lines: dict[Priority, _Line[Item, Output]] = {priority: _Line() for priority in sorted(Priority)}
        self.waiting = 0  # items that no batch has taken yet
        self._passed_over = 0  # batches since the last line had one
        self._next: asyncio.Handle | None = None  # the scheduled call of _run_next
        self._gathered = 0  # items of the batch that is forming
        self._running: dict[asyncio.Future[Output | BaseException], _Batch[Item, Output]] = {}
        self._thread = ThreadPoolExecutor(1, f"batcher-{name}")  # starts its thread when it is first used
        self._throughput = Throughput()
        self._ended = -math.inf  # the last batch
        self._kept_waiting = False  # items were waiting when it ended
        self._closed = False

    async def submit(
        self, items: Sequence[Item], context: RequestContext, *, continued: bool = False
    ) -> list[Part[Output]]:
        """Returns where the outputs of the items are, in order. A cancelled caller frees its places.

        continued marks a further part of a request that was admitted before; it is never refused for lack of room.
        Raises OverloadedError if the queue has no room, or is too long for the deadline; DeadlineError at the deadline,
        even if the run never returns; NotReadyError if the batcher closes first; what run raises, as InferenceError
        unless it is a ServiceError.
        """
        if self._closed:
            raise NotReadyError(f"{self._name} is shutting down; try again in a moment.")
        if not items:
            return []
        loop, now = asyncio.get_running_loop(), self._clock()
        if now >= context.deadline:
            raise self._late()
        if not continued:
            self.check_room(len(items), context)
        request: _Request[Item, Output] = _Request(items, context, loop.create_future(), now, waiting_since=now)
        self._lines[context.priority].requests[request] = None
        self._hold(request, len(items))
        self._schedule()
        timer = None
        if context.deadline < math.inf:
            timer = loop.call_later(context.deadline - now, lambda: self._fail(request, self._late()))
        try:
            return await request.answer
        finally:
            if timer:
                timer.cancel()
            self._leave(request)

    def check_room(self, items: int, context: RequestContext) -> None:
        """Raises OverloadedError if the queue has no room for so many items, or is too long for the deadline.

        An empty queue has room, and corrects a wrong estimate of the time.
        """
        if not self.waiting:
            return
        waiting = places = 0
        for priority, line in self._lines.items():
            if priority <= context.priority:  # its own line and more urgent ones
                waiting += line.waiting
                places += line.places
        left = context.deadline - self._clock()
        fault = ""
        if places + min(items, self._most_places) > self._capacity:
            fault = f"{items:,} more would exceed the limit of {self._capacity:,}; try again later."
        elif waiting and 0 < left < self._seconds_until_done(waiting + items):  # a late request gets a DeadlineError
            fault = f"{items:,} more would not be answered before the deadline; try again later, or allow more time."
        if fault:
            raise OverloadedError(
                f"{waiting:,} images wait for {self._name} already, and {fault}",
                retry_after=retry_after(self._throughput.seconds_for(waiting)),
            )

    def close(self) -> None:
        """Fails the waiting requests. Does not wait for the running batch, after which the thread ends."""
        self._closed = True
        for line in self._lines.values():
            for request in list(line.requests):
                self._fail(request, self._shut_down())
        self._thread.shutdown(wait=False)

    async def wait_closed(self) -> None:
        """After close: waits for the running batches, and fails the requests of those that outlast close_seconds."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._close_seconds)
        for batch in self._running.values():
            for request, _ in batch:
                self._fail(request, self._shut_down())

    def _schedule(self) -> None:
        if self._next and self._max_wait:  # it waits for the batch to fill, which may just have happened
            self._next.cancel()
            self._next = None
        if self._next is None and self.waiting and len(self._running) < self._most_running:
            self._next = asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        self._next = None
        if (line := self._next_line()) is None:
            return
        if self._gathered < line.waiting < self._max_batch:
            self._gathered = line.waiting
            self._next = asyncio.get_running_loop().call_soon(self._run_next)
            return
        self._gathered = 0
        if (seconds := self._time_to_fill(line)) > 0:
            self._next = asyncio.get_running_loop().call_later(seconds, self._run_next)
            return
        began = self._clock()
        # Under overload, reading and refusing requests would leave no time for batches.
        turn = min(began - self._ended, TURN_SECONDS) if self._kept_waiting else 0.0
        self._start(line)
        while not self._running and self._clock() - began < turn and (line := self._next_line()):
            self._start(line)
        self._schedule()

    def _next_line(self) -> _Line[Item, Output] | None:
        lines = self._waiting_lines()
        return lines[-1 if self._passed_over >= PATIENCE else 0] if lines else None

    def _waiting_lines(self) -> list[_Line[Item, Output]]:
        return [line for line in self._lines.values() if line.requests]

    def _time_to_fill(self, line: _Line[Item, Output]) -> float:
        if not self._max_wait or line.waiting >= self._max_batch:
            return 0.0
        return next(iter(line.requests)).arrived + self._max_wait - self._clock()

    def _take(self, line: _Line[Item, Output]) -> _Batch[Item, Output]:
        """The next batch of the line. Drops the requests whose deadline has passed or whose caller has left."""
        batch: _Batch[Item, Output] = []
        now, room = self._clock(), self._max_batch
        while room and line.requests:
            request = next(iter(line.requests))
            if request.answer.done():
                self._leave(request)
            elif now >= request.context.deadline:
                self._fail(request, self._late())
            else:
                start, size = len(request.items) - request.waiting, min(room, request.waiting)
                batch.append((request, request.items[start : start + size]))
                room -= size
                self._taken(request, size, now)
        return batch

    def _taken(self, request: _Request[Item, Output], size: int, now: float) -> None:
        request.context.timings.queue += now - request.waiting_since
        if size == request.waiting:
            self._leave(request)
        else:
            self._hold(request, request.waiting - size)
            self._lines[request.context.priority].requests.move_to_end(request)

    def _start(self, line: _Line[Item, Output]) -> None:
        """Runs the next batch of the line, or hands it to the thread."""
        self._passed_over = 0 if line is self._waiting_lines()[-1] else self._passed_over + 1
        batch = self._take(line)
        if not batch:
            return
        started = self._clock()
        items = batch[0][1] if len(batch) == 1 else [item for _, part in batch for item in part]
        alone = len(items) == 1 and not (self.waiting or self._kept_waiting)
        outcome = _outcome(partial(self._run, items, alone))
        if not isinstance(outcome, InThread):
            self._finish(batch, outcome, len(items), started)
            return
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, _outcome, outcome.compute)
        self._running[running] = batch
        running.add_done_callback(partial(self._finish_thread, len(items), started))

    def _finish_thread(self, size: int, started: float, running: "asyncio.Future[Output | BaseException]") -> None:
        self._finish(self._running.pop(running), running.result(), size, started)
        self._schedule()

    def _finish(self, batch: _Batch[Item, Output], outcome: Output | BaseException, size: int, started: float) -> None:
        if isinstance(outcome, BaseException):
            logger.error("%s failed on a batch of %d", self._name, size, exc_info=outcome)
            failed = InferenceError(f"{self._name} failed: {outcome!r}.")
            failure = outcome if isinstance(outcome, ServiceError) else failed
            for request, _ in batch:
                self._fail(request, failure)
            return
        ended = self._clock()
        # While items wait, the time between two batches, in which requests are read, counts too.
        self._throughput.add(size, ended - (self._ended if self._kept_waiting else max(started, self._ended)))
        self._ended, self._kept_waiting = ended, self.waiting > 0
        self._report(outcome)
        start = 0
        for request, part in batch:
            request.waiting_since = ended
            request.parts.append(Part(outcome, start, start + len(part)))
            request.answered += len(part)
            start += len(part)
            if request.answered == len(request.items) and not request.answer.done():
                request.answer.set_result(request.parts)

    def _fail(self, request: _Request[Item, Output], error: Exception) -> None:
        self._leave(request)
        if not request.answer.done():
            request.answer.set_exception(error)

    def _leave(self, request: _Request[Item, Output]) -> None:
        if self._lines[request.context.priority].requests.pop(request, request) is None:
            self._hold(request, 0)

    def _hold(self, request: _Request[Item, Output], waiting: int) -> None:
        line = self._lines[request.context.priority]
        line.places += min(waiting, self._most_places) - min(request.waiting, self._most_places)
        change = waiting - request.waiting
        line.waiting += change
        self.waiting += change
        self._count_waiting(change)
        request.waiting = waiting

    def _seconds_until_done(self, items: int) -> float:
        """Estimates when the items that wait are answered. A full batch may begin before their last one does."""
        running = sum(len(part) for batch in self._running.values() for _, part in batch)
        return _CAUTION * self._throughput.seconds_for(running + items + self._max_batch)

    def _shut_down(self) -> NotReadyError:
        return NotReadyError(f"{self._name} shut down before it answered this request; send it again.")

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"The deadline passed before {self._name} answered; "
            "try again later, send fewer images, or allow more time.",
            model=self._name,
        )


def _outcome(run: Callable[[], Output]) -> Output | BaseException:
    """What run returns or raises. SystemExit would end the event loop; a future refuses StopIteration."""
    try:
        return run()
    except BaseException as error:
        return error
