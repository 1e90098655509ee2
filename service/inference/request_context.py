"""What goes with one request through the core: until when it is wanted, how urgent it is, where its time went."""

import math
import time
from dataclasses import dataclass, field
from enum import IntEnum


class Priority(IntEnum):
    """Lower goes first."""

    PREDICT = 0
    EVALUATE = 1


@dataclass
class Timings:
    """Seconds that the request's images spent in each stage; those of a shared batch count in full."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    output: float = 0.0  # labelling

    def add(self, other: "Timings") -> None:
        self.decode += other.decode
        self.queue += other.queue
        self.inference += other.inference
        self.output += other.output


@dataclass(frozen=True)
class Call:
    """deadline is in time.monotonic() seconds."""

    deadline: float = math.inf
    priority: Priority = Priority.PREDICT
    timings: Timings = field(default_factory=Timings)

    @classmethod
    def within(cls, seconds: float, priority: Priority = Priority.PREDICT) -> "Call":
        return cls(time.monotonic() + seconds, priority)
