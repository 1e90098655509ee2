"""A bounded queue of opaque items -> batches -> futures. Knows neither HTTP nor ONNX, only run(items).

It is adaptive: an idle batcher starts at once on what there is; what gathers while it is busy becomes the next batch.
A request larger than a batch is split, and goes to the end of the line after each of its batches, so that it does
not starve small ones. The queue is counted in items, not in requests; one request holds at most half of its places,
however large it is, so that it does not shut the others out.

Each priority has a line of its own, and a batch is of one line: the most urgent that has somebody in it. Who waits in
the last line gets every (PATIENCE + 1)th batch all the same, so that nobody waits for ever. A request is admitted by
the places that its own line and more urgent ones hold.

What a request waits for is bounded by its own deadline, not by the running batch: ask gives up at the deadline even
where run never returns, and what is late when a batch is formed is dropped before it costs anything.
"""

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlineError, InferenceError, NotReadyError, OverloadedError, ServiceError
from service.inference.request_context import Call, Priority
from service.inference.retry_after import Throughput, retry_after
from service.telemetry.observer import SILENT, Observer, Stage

Item = TypeVar("Item")
Result = TypeVar("Result")

CLOSE_SECONDS = 10.0  # how long close waits for the running batch
PATIENCE = 8  # batches that pass the last line over before it has its turn

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    call: Call
    arrived: float
    since: float  # when its present wait began: at its arrival, then at the end of each batch that had some of it
    queued: float = 0.0  # seconds, over all its waits
    places: int = 0  # that it holds in the queue
    future: "Future[list[Result]]" = field(default_factory=Future)
    taken: int = 0
    results: list[Result] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return len(self.items) - self.taken


_Slice = tuple[_Request[Item, Result], Sequence[Item]]
_Line = OrderedDict[_Request[Item, Result], None]  # a queue from which anyone can leave at no cost


class Batcher(Generic[Item, Result]):
    """One worker thread, and in front of it the queue.

    run gets at most max_batch items and answers with one result an item, in order. An exception of it fails the
    requests that had items in that batch, and no other. max_wait is how long, in seconds, an idle worker lets the
    oldest request wait for its batch to fill. clock is that of the calls' deadlines.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        capacity: int,
        name: str,
        max_wait: float = 0.0,
        observer: Observer = SILENT,
        close_seconds: float = CLOSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._capacity = capacity
        self._most_places = max(capacity // 2, 1)  # of one request
        self._name = name
        self._max_wait = max_wait
        self._observer = observer
        self._close_seconds = close_seconds
        self._clock = clock
        self._lines: dict[Priority, _Line[Item, Result]] = {priority: OrderedDict() for priority in sorted(Priority)}
        self._places = dict.fromkeys(self._lines, 0)  # held in each line
        self._passed_over = 0  # batches since the last line had one
        self._throughput = Throughput()
        self._running: list[_Slice[Item, Result]] = []
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()
        # A daemon, so that a run that never returns cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"batcher-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return self._waiting

    async def ask(self, items: Sequence[Item], *, call: Call, continued: bool = False) -> list[Result]:
        """As submit, and no longer than until the call's deadline. Whoever stops waiting frees its places.

        Raises as submit and its future.
        """
        left = None if math.isinf(call.deadline) else call.deadline - self._clock()
        try:
            async with asyncio.timeout(left):
                return await asyncio.wrap_future(self.submit(items, call=call, continued=continued))
        except (TimeoutError, DeadlineError) as error:  # run's own TimeoutError comes as InferenceError
            raise self._late() from error

    def submit(
        self, items: Sequence[Item], *, call: Call | None = None, continued: bool = False
    ) -> "Future[list[Result]]":
        """The future answers with one result an item, in order; cancelling it drops the items.

        It fails with what run raised, as InferenceError unless it is a ServiceError; with DeadlineError where it was
        late for a batch; with NotReadyError where the batcher was closed before. continued says that this is a further
        part of something that was admitted before: it is not turned away.
        Raises OverloadedError where the queue has not the places that the items need: one each, at most half of all.
        Raises NotReadyError after close.
        """
        now = self._clock()
        request: _Request[Item, Result] = _Request(items, call or Call(), arrived=now, since=now)
        if not items:
            request.future.set_result([])
            return request.future
        with self._changed:
            if self._closed:
                raise NotReadyError(f"{self._name} is being shut down; ask again in a moment.")
            if not continued and not self._has_room(request):
                self._observer.overloaded()
                raise self._overloaded(len(items))
            self._lines[request.call.priority][request] = None
            self._hold(request, len(items))
            self._count(len(items))
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._forget(request))
        return request.future

    def close(self) -> None:
        """Ends the worker after its running batch; what still waits, or hangs, fails with NotReadyError."""
        with self._changed:
            self._closed = True
            left = [request for line in self._lines.values() for request in line]
            self._changed.notify()
        error = NotReadyError(f"{self._name} was shut down before it came to this request; ask again.")
        for request in left:
            _fail(request, error)
        self._thread.join(self._close_seconds)
        for request, _ in list(self._running):
            _fail(request, error)

    def _work(self) -> None:
        while batch := self._next_batch():
            self._running = batch
            self._answer(batch)
            self._running = []

    def _next_batch(self) -> list[_Slice[Item, Result]]:
        """Waits for items; empty once closed."""
        while True:
            with self._changed:
                while (left := self._time_until_ready()) > 0 and not self._closed:
                    self._changed.wait(None if math.isinf(left) else left)
                if self._closed:
                    return []
                batch, late = self._take()
            for request in late:
                _fail(request, self._late())
            if batch:
                return batch

    def _time_until_ready(self) -> float:
        """Seconds until a batch may be formed of what there is; inf where there is nothing."""
        line, _ = self._turn()
        if not line:
            return math.inf
        if not self._max_wait or sum(request.waiting for request in line) >= self._max_batch:
            return 0.0
        return next(iter(line)).arrived + self._max_wait - self._clock()

    def _turn(self) -> tuple[_Line[Item, Result], int]:
        """The line that is next, an empty one where nobody waits; and how often the last one is passed over by then."""
        lines = [line for line in self._lines.values() if line] or list(self._lines.values())
        line = lines[-1] if self._passed_over >= PATIENCE else lines[0]
        return line, 0 if line is lines[-1] else self._passed_over + 1

    def _take(self) -> tuple[list[_Slice[Item, Result]], list[_Request[Item, Result]]]:
        """The next batch, and the requests that are late for it, which have left the line."""
        line, self._passed_over = self._turn()
        batch: list[_Slice[Item, Result]] = []
        late: list[_Request[Item, Result]] = []
        now, room, gone = self._clock(), self._max_batch, 0
        while room and line:
            request, _ = line.popitem(last=False)
            if now >= request.call.deadline:
                late.append(request)
                gone += request.waiting
                self._hold(request, 0)
                continue
            size = min(room, request.waiting)
            batch.append((request, request.items[request.taken : request.taken + size]))
            request.taken += size
            room -= size
            gone += size
            self._hold(request, request.waiting)
            self._waited(request, now)
            if request.waiting:
                line[request] = None
        self._count(-gone)
        return batch, late

    def _answer(self, batch: list[_Slice[Item, Result]]) -> None:
        items = [item for _, part in batch for item in part]
        started = self._clock()
        try:
            results = list(self._run(items))
            if len(results) != len(items):
                raise InferenceError(f"{self._name} answered {len(results)} of {len(items)} images.")  # noqa: TRY301
        except BaseException as error:  # whatever it is: this thread must go on, and the callers be answered
            logger.exception("%s failed on a batch of %d", self._name, len(items))
            failure = error if isinstance(error, ServiceError) else InferenceError(f"{self._name} failed: {error!r}.")
            for request, _ in batch:
                _fail(request, failure)
            return
        ended = self._clock()
        self._throughput.add(len(items), ended - started)
        start = 0
        for request, part in batch:
            request.since = ended
            request.results.extend(results[start : start + len(part)])
            start += len(part)
            if len(request.results) == len(request.items):
                with suppress(InvalidStateError):  # the caller left meanwhile
                    request.future.set_result(request.results)

    def _forget(self, request: _Request[Item, Result]) -> None:
        """What is done, failed or cancelled frees its places."""
        with self._changed:
            line = self._lines[request.call.priority]
            if request in line:
                del line[request]
                self._hold(request, 0)
                self._count(-request.waiting)

    def _has_room(self, request: _Request[Item, Result]) -> bool:
        held = sum(places for priority, places in self._places.items() if priority <= request.call.priority)
        return held + min(request.waiting, self._most_places) <= self._capacity

    def _hold(self, request: _Request[Item, Result], items: int) -> None:
        """Places for so many items that wait."""
        places = min(items, self._most_places)
        self._places[request.call.priority] += places - request.places
        request.places = places

    def _count(self, change: int) -> None:
        self._waiting += change
        self._observer.waiting(change)

    def _waited(self, request: _Request[Item, Result], now: float) -> None:
        request.queued += now - request.since
        request.call.timings.queue += now - request.since
        if not request.waiting:
            self._observer.stage(Stage.QUEUE, request.queued)

    def _overloaded(self, more: int) -> OverloadedError:
        return OverloadedError(
            f"{self._waiting:,} images wait for {self._name} already, and {more:,} more would be over "
            f"the {self._capacity:,} allowed; ask again later.",
            retry_after=retry_after(self._throughput.seconds_for(self._waiting)),
        )

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"The time of this request was over before {self._name} had answered it; "
            "ask again later, send fewer images, or give it longer.",
            model=self._name,
        )


def _fail(request: _Request[Item, Result], error: Exception) -> None:
    with suppress(InvalidStateError):
        request.future.set_exception(error)
