"""The time that one request spent in each stage."""

from dataclasses import dataclass


@dataclass
class Timings:
    """Seconds. The time of a batch counts in full for every request in it."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    output: float = 0.0  # labelling

    def add(self, other: "Timings") -> None:
        self.decode += other.decode
        self.queue += other.queue
        self.inference += other.inference
        self.output += other.output
