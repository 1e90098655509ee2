"""What a client sets for all its calls."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from convoy_client.errors import InvalidInputError
from convoy_client.version import __version__


@dataclass(frozen=True)
class Retries:
    """When a call is sent again. No call of the client changes anything, so each may be repeated.

    A call is sent again if the service is overloaded, not ready or unreachable. The client first waits for the seconds
    of Retry-After (at most longest_pause), and then for a random time; the limit of this time starts at first_pause and
    doubles with each attempt. A pause never ends after the deadline. attempts=1 sends every call once.
    """

    attempts: int = 4
    first_pause: float = 0.25
    longest_pause: float = 30.0

    def __post_init__(self) -> None:
        """Raises InvalidInputError."""
        if self.attempts < 1 or not (self.first_pause >= 0 and self.longest_pause >= 0):
            raise InvalidInputError(f"{self} is not valid: attempts must be 1 or more, and a pause 0 seconds or more.")


@dataclass(frozen=True)
class Options:
    """timeout is in seconds; None leaves it to each call. clock is a parameter for tests."""

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float | None = None
    retries: Retries = Retries()
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Raises InvalidInputError."""
        if not _is_base(self.url):
            raise InvalidInputError(f"url is {self.url!r}; it must be a URL such as http://127.0.0.1:8000.")
        if self.key and not (self.key.isascii() and self.key.isprintable()):
            raise InvalidInputError("key has characters that a header cannot hold; copy the key again.")

    @property
    def headers(self) -> Mapping[str, str]:
        headers = {"User-Agent": f"convoy-client/{__version__}"}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def seconds(self, timeout: float | None, otherwise: float) -> float:
        """Returns the time limit of a call. Raises InvalidInputError."""
        chosen = next((each for each in (timeout, self.timeout) if each is not None), otherwise)
        if not 0 < chosen < math.inf:
            raise InvalidInputError(f"timeout is {chosen}; it must be a positive number of seconds.")
        return chosen


def _is_base(url: str) -> bool:
    """Returns whether paths can be appended to the URL."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host) and not (parsed.query or parsed.fragment)
