"""How fast something runs now, and when to ask again for what has no room."""

RETRY_SECONDS = (1.0, 60.0)  # bounds of what a caller that is turned away is told
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


def retry_after(seconds: float) -> float:
    """What a caller is told that will find room in so many seconds, as far as can be known."""
    least, most = RETRY_SECONDS
    return min(max(seconds, least), most)
