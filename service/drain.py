"""Whether this process is going down."""

from dataclasses import dataclass


@dataclass
class Drain:
    """Set by the worker, once. Until the end requests are answered, but nobody should come here any more."""

    begun: bool = False
