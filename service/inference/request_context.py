"""What the core knows of a request beside its images: its deadline, its priority and where its time went."""

import math
import time
from dataclasses import dataclass, field
from enum import IntEnum

from service.telemetry.timings import Timings


class Priority(IntEnum):
    """The lower value goes first."""

    PREDICT = 0
    EVALUATE = 1


@dataclass(frozen=True)
class RequestContext:
    """deadline is in time.monotonic() seconds."""

    deadline: float = math.inf
    priority: Priority = Priority.PREDICT
    timings: Timings = field(default_factory=Timings)

    @classmethod
    def within(cls, seconds: float) -> "RequestContext":
        """A request whose deadline is so many seconds from now."""
        return cls(time.monotonic() + seconds)
