"""Every exception of the client. Callers catch the classes that they handle, or ConvoyError."""

from convoy_client.results import ItemError, Problem


class ConvoyError(Exception):
    """Base of all errors. The message states the error and its remedy in one sentence.

    problem is the service's problem document; None if the service sent none. request_id finds the request in the
    service's log.
    """

    def __init__(self, message: str, problem: Problem | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.request_id = request_id


class InvalidInputError(ConvoyError):
    """An argument cannot be sent; no request was made."""


class InvalidRequestError(ConvoyError):
    """The service refused the request (4xx); the caller must change it."""


class InvalidImageError(InvalidRequestError):
    """At least one image cannot be decoded. `on_error="item"` returns the predictions for the others."""

    @property
    def errors(self) -> tuple[ItemError, ...]:
        """One entry for each invalid image."""
        return self.problem.errors if self.problem else ()


class TooLargeError(InvalidRequestError):
    """The request has too many bytes or images; send fewer images in each call."""


class UnauthorizedError(InvalidRequestError):
    """The service needs a key, or does not accept this one."""


class ModelNotFoundError(InvalidRequestError):
    """The service has no such model or version."""


class ModelRefusedError(ConvoyError):
    """The model failed its checks and does not serve; its operator must act."""


class UnavailableError(ConvoyError):
    """After all attempts, the service is overloaded, not ready or unreachable. The same call may succeed later.

    retry_after is the number of seconds to wait, if the service gave one.
    """

    def __init__(
        self,
        message: str,
        problem: Problem | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, problem, request_id)
        self.retry_after = retry_after


class DeadlineExceededError(ConvoyError):
    """The call's deadline passed, or the service's own time limit."""


class ServiceFailedError(ConvoyError):
    """The service failed (5xx), or the response is not one of Convoy's."""
