"""A bounded queue of opaque items -> batches -> futures. Knows neither HTTP nor ONNX, only run(items).

It is adaptive: an idle batcher starts at once on what there is; what gathers while it is busy becomes the next batch.
A request larger than a batch is split, and goes to the end of the line after each of its batches, so that it does
not starve small ones. The queue is counted in items, not in requests.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import InferenceError, NotReadyError, OverloadedError

Item = TypeVar("Item")
Result = TypeVar("Result")

CLOSE_SECONDS = 10.0  # how long close waits for the running batch

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    future: "Future[list[Result]]" = field(default_factory=Future)
    taken: int = 0
    results: list[Result] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return len(self.items) - self.taken


_Slice = tuple[_Request[Item, Result], Sequence[Item]]


class Batcher(Generic[Item, Result]):
    """One worker thread, and in front of it the queue.

    run gets at most max_batch items and answers with one result an item, in order. An exception of it fails the
    requests that had items in that batch, and no other.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch: int,
        capacity: int,
        name: str,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._capacity = capacity
        self._name = name
        self._close_seconds = close_seconds
        self._line: deque[_Request[Item, Result]] = deque()
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

    def submit(self, items: Sequence[Item], *, continued: bool = False) -> "Future[list[Result]]":
        """The future answers with one result an item, in order, or with run's exception; cancelling it drops the items.

        continued says that this is a further part of something that was admitted before: it is not turned away.
        Raises OverloadedError where the queue has no place for all items; an empty queue has place for any number.
        Raises NotReadyError after close.
        """
        request: _Request[Item, Result] = _Request(items)
        if not items:
            request.future.set_result([])
            return request.future
        with self._changed:
            if self._closed:
                raise NotReadyError(f"{self._name} is being shut down; ask again in a moment.")
            if self._waiting and self._waiting + len(items) > self._capacity and not continued:
                raise OverloadedError(
                    f"{self._waiting:,} images wait for {self._name} already, and {len(items):,} more would be over "
                    f"the {self._capacity:,} allowed; ask again later."
                )
            self._line.append(request)
            self._waiting += len(items)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._forget(request))
        return request.future

    def close(self) -> None:
        """Ends the worker after its running batch; what still waits, or hangs, fails with NotReadyError."""
        with self._changed:
            self._closed = True
            left = list(self._line)
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
        batch: list[_Slice[Item, Result]] = []
        with self._changed:
            while not self._line and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            room = self._max_batch
            while room and self._line:
                request = self._line.popleft()
                size = min(room, request.waiting)
                batch.append((request, request.items[request.taken : request.taken + size]))
                request.taken += size
                room -= size
                self._waiting -= size
                if request.waiting:
                    self._line.append(request)
        return batch

    def _answer(self, batch: list[_Slice[Item, Result]]) -> None:
        items = [item for _, part in batch for item in part]
        try:
            results = self._run(items)
            if len(results) != len(items):
                raise InferenceError(f"{self._name} answered {len(results)} of {len(items)} images.")  # noqa: TRY301
        except Exception as error:
            logger.exception("%s failed on a batch of %d", self._name, len(items))
            for request, _ in batch:
                _fail(request, error)
            return
        start = 0
        for request, part in batch:
            request.results.extend(results[start : start + len(part)])
            start += len(part)
            if len(request.results) == len(request.items):
                with suppress(InvalidStateError):  # the caller left meanwhile
                    request.future.set_result(request.results)

    def _forget(self, request: _Request[Item, Result]) -> None:
        """What is done, failed or cancelled frees its places."""
        with self._changed:
            if request in self._line:
                self._line.remove(request)
                self._waiting -= request.waiting


def _fail(request: _Request[Item, Result], error: Exception) -> None:
    with suppress(InvalidStateError):
        request.future.set_exception(error)
