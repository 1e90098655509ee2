"""What goes with one request through the core: until when it is wanted, how urgent it is, where its time went."""

import math
import time
from dataclasses import dataclass, field
from enum import IntEnum

from service.telemetry.timings import Timings


class Priority(IntEnum):
    """Lower goes first."""

    PREDICT = 0
    EVALUATE = 1


@dataclass(frozen=True)
class Call:
    """deadline is in time.monotonic() seconds."""

    deadline: float = math.inf
    priority: Priority = Priority.PREDICT
    timings: Timings = field(default_factory=Timings)

    @classmethod
    def within(cls, seconds: float, priority: Priority = Priority.PREDICT) -> "Call":
        return cls(time.monotonic() + seconds, priority)
