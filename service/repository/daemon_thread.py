"""Runs file operations in daemon threads, because they may never return, for example on a network mount that hangs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """Runs work in a thread of its own that cannot keep the process from ending, unlike asyncio.to_thread's.

    The thread cannot be cancelled. A caller that may give up awaits asyncio.shield(future), and adds a callback to the
    future for the late result.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="files", daemon=True).start()
    return asyncio.wrap_future(future)
