"""Where the time of one request went."""

from dataclasses import dataclass


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
