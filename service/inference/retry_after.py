"""Estimates when a refused request should be sent again."""

RETRY_SECONDS = (1.0, 60.0)
"""The least and the most that Retry-After says."""

_DECAY = 0.9  # the weight of each batch relative to the next one


class Throughput:
    """Items per second of running time, as an exponentially weighted mean over the seconds that batches took."""

    def __init__(self) -> None:
        self._items = 0.0
        self._seconds = 0.0

    def add(self, items: int, seconds: float) -> None:
        self._items = self._items * _DECAY + items
        self._seconds = self._seconds * _DECAY + seconds

    def seconds_for(self, items: int) -> float:
        """Returns how long so many items would take; 0 before anything has run."""
        return items * self._seconds / self._items if self._items else 0.0


def retry_after(seconds: float) -> float:
    """Returns the Retry-After of a request for which there will be room in so many seconds."""
    least, most = RETRY_SECONDS
    return min(max(seconds, least), most)
