"""Runs file operations in daemon threads, because they may never return, for example on a network mount that hangs."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(work: Callable[[], T]) -> Future[T]:
    """Runs work in a thread of its own that cannot keep the process from ending, unlike asyncio.to_thread's.

    The future cannot be cancelled: a caller that gives up may still add a callback for a late result.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="files", daemon=True).start()
    return future
