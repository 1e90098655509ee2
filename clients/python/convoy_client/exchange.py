"""One call, from its first attempt to its result. It neither sends nor sleeps, so both clients use it."""

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from random import random
from typing import Generic, TypeAlias, TypeVar

import httpx

from convoy_client.calls import Call
from convoy_client.decode import decode
from convoy_client.errors import (
    ConvoyError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRefusedError,
    ServiceFailedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from convoy_client.options import Options
from convoy_client.results import Problem

TIMEOUT_HEADER = "X-Request-Timeout"
CONNECT_SECONDS = 5.0  # per attempt: a host that is down must leave time for another attempt
SHORTEST = 0.001  # seconds; the header's resolution

_ERRORS: dict[str, type[ConvoyError]] = {
    "invalid_image": InvalidImageError,
    "body_too_large": TooLargeError,
    "too_many_images": TooLargeError,
    "unauthorized": UnauthorizedError,
    "forbidden": UnauthorizedError,
    "model_not_found": ModelNotFoundError,
    "model_refused": ModelRefusedError,
    "overloaded": UnavailableError,
    "not_ready": UnavailableError,
    "deadline_exceeded": DeadlineExceededError,
}
# For new codes, and for responses of a proxy.
_ERRORS_BY_STATUS: dict[int, type[ConvoyError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    413: TooLargeError,
    429: UnavailableError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}

Outcome: TypeAlias = httpx.Response | httpx.RequestError
"""Of one attempt."""
T = TypeVar("T")


class Exchange(Generic[T]):
    """The state of one call."""

    def __init__(self, call: Call[T], options: Options, build_request: Callable[..., httpx.Request]) -> None:
        """build_request is the method of httpx's client."""
        self._call = call
        self._options = options
        self._build_request = build_request
        self._deadline = options.clock() + call.seconds
        self._attempts = 0

    def left(self) -> float:
        """Returns the seconds until the deadline."""
        return self._deadline - self._options.clock()

    def request(self) -> httpx.Request:
        """Returns the request of the next attempt. Raises DeadlineExceededError."""
        left = self.left()
        if left < SHORTEST:
            raise self._too_late()
        self._attempts += 1
        call = self._call
        return self._build_request(
            call.method,
            self._options.url.rstrip("/") + call.path,
            params=call.params,
            headers={**self._options.headers, TIMEOUT_HEADER: f"{left:.3f}"},
            timeout=httpx.Timeout(left, connect=min(left, CONNECT_SECONDS)),
            **call.body,
        )

    def pause(self, outcome: Outcome) -> float | None:
        """Returns the seconds to wait before another attempt, or None if this outcome is final."""
        retries = self._options.retries
        if self._attempts >= retries.attempts or not _is_temporary(outcome):
            return None
        backoff = min(retries.longest_pause, retries.first_pause * 2.0 ** (self._attempts - 1))
        pause = min(_retry_after(outcome) or 0.0, retries.longest_pause) + random() * backoff  # noqa: S311 - no secret
        return pause if pause < self.left() else None

    def result(self, outcome: Outcome) -> T:
        """Returns what the service returned. Raises a ConvoyError for any other outcome."""
        if isinstance(outcome, httpx.Response):
            if not outcome.is_success:
                raise _error(outcome)
            try:
                return decode(self._call.result, outcome.json())
            except (ValueError, RecursionError) as error:
                raise ServiceFailedError(f"{_source(outcome)} is not one of Convoy's: {error}.") from error
        is_late = self.left() <= 0 or not isinstance(outcome, httpx.ConnectTimeout)
        if isinstance(outcome, httpx.TimeoutException) and is_late:
            raise self._too_late() from outcome
        host, reason = outcome.request.url.host, str(outcome).rstrip(".") or type(outcome).__name__
        if not isinstance(outcome, httpx.TransportError):
            raise ServiceFailedError(f"The response of {host} cannot be read: {reason}.") from outcome
        raise UnavailableError(f"The service at {host} is unreachable: {reason}.") from outcome

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"The deadline of {self._call.seconds:g} seconds passed before the service answered; send fewer images, or "
            "allow more time."
        )


def _is_temporary(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.is_error and _error_class(outcome.status_code, _problem(outcome)) is UnavailableError
    return isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)


def _error(response: httpx.Response) -> ConvoyError:
    problem, request_id = _problem(response), response.headers.get("X-Request-ID")
    message = problem.detail if problem else f"{_source(response)} has the status {response.status_code}."
    kind = _error_class(response.status_code, problem)
    if issubclass(kind, UnavailableError):
        return kind(message, problem, request_id, _retry_after(response))
    return kind(message, problem, request_id)


def _error_class(status: int, problem: Problem | None) -> type[ConvoyError]:
    if problem and problem.code in _ERRORS:
        return _ERRORS[problem.code]
    if status in _ERRORS_BY_STATUS:
        return _ERRORS_BY_STATUS[status]
    return InvalidRequestError if 400 <= status < 500 else ServiceFailedError


def _problem(response: httpx.Response) -> Problem | None:
    try:
        return decode(Problem, response.json())
    except (ValueError, RecursionError):
        return None


def _source(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "no Content-Type")
    return f"The response to {response.request.method} {response.request.url.path} ({kind})"


def _retry_after(outcome: Outcome) -> float | None:
    """Returns the seconds of Retry-After (RFC 9110, section 10.2.3), which is a number or a date."""
    value = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    if value.isdecimal():
        return float(value)
    moment = _date(value)
    if moment is None or not isinstance(outcome, httpx.Response):
        return None
    now = _date(outcome.headers.get("Date", "")) or datetime.now(moment.tzinfo)  # the two clocks may differ
    return max(0.0, (moment - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
