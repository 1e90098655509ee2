"""How fast something runs now."""

_DECAY = 0.9  # what a batch weighs after the next one


class Throughput:
    """Items a second while it runs: an exponentially weighted mean, in which each batch weighs as long as it took."""

    def __init__(self) -> None:
        self._items = 0.0
        self._seconds = 0.0

    def add(self, items: int, seconds: float) -> None:
        self._items = self._items * _DECAY + items
        self._seconds = self._seconds * _DECAY + seconds

    def seconds_for(self, items: int) -> float:
        """How long so many would take; 0 where nothing has run yet."""
        return items * self._seconds / self._items if self._items else 0.0
