"""Deaths of workers as a figure of /metrics: the supervisor writes it beside the workers' own, and they tell it."""

import os
from enum import StrEnum
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key

METRIC = "convoy_worker_restarts"
_HELP = "Worker processes that ended and were replaced, or could not be"


class Cause(StrEnum):
    """Why a worker's place was empty: the values of the metric's label."""

    EXITED = "exited"  # by itself, with a status
    KILLED = "killed"  # by a signal from elsewhere: often for want of memory
    UNRESPONSIVE = "unresponsive"  # it did not answer in time, and was ended
    UNFIT = "unfit"  # it could not serve what it should, and was ended
    NOT_STARTED = "not_started"  # it ended, or had to be, before it had started


class Restarts:
    """Counts in a file of Prometheus's multiprocess folder that is this process's own.

    The library chooses its kind of counter once, when it is imported, by a variable that is set for workers alone: here
    its file is written by the library's class for it. The file stays open and holds every value from the first on, so
    that counting needs no more room on a disk that is full.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"counter_{os.getpid()}.db"
        self._counts = dict.fromkeys(Cause, 0)  # a counter that first appears as 1 shows no rise
        self._figures: MmapedDict | None = None

    def open(self) -> None:
        """Makes folder and file where they are not: whoever clears up temporary files may take them. Raises OSError."""
        if self._file.exists():
            return
        self.close()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._figures = MmapedDict(str(self._file))  # type: ignore[no-untyped-call]
        for cause in Cause:
            self._write(cause)

    def count(self, cause: Cause) -> None:
        self._counts[cause] += 1
        self._write(cause)

    def close(self) -> None:
        if self._figures is not None:
            self._figures.close()  # type: ignore[no-untyped-call]
            self._figures = None

    def _write(self, cause: Cause) -> None:
        if self._figures is not None:
            key = mmap_key(METRIC, f"{METRIC}_total", ["cause"], [cause.value], _HELP)
            self._figures.write_value(key, float(self._counts[cause]), 0.0)  # type: ignore[no-untyped-call]
