"""Every error of the service, with the HTTP status and the problem code of its response."""

import math
from collections.abc import Mapping
from typing import ClassVar

from schemas.prediction import ItemError
from schemas.problem import ProblemCode

INTERNAL_DETAIL = "The service failed to process this request; see its log."


class ServiceError(Exception):
    """Base of all errors of the service. The message is one sentence: what is wrong and what to do."""

    status: ClassVar[int] = 500
    code: ClassVar[ProblemCode] = ProblemCode.INTERNAL
    errors: tuple[ItemError, ...] = ()

    @property
    def detail(self) -> str:
        """The message for the client."""
        return str(self)

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers."""
        return {}


class StartError(ServiceError):
    """The service cannot start."""


class SettingsError(StartError):
    """A CONVOY_* variable has an invalid value."""


class DeviceError(StartError):
    """The requested device is unusable; the message names the cause."""


class RequestError(ServiceError):
    """The client must change the request."""


class MalformedBodyError(RequestError):
    """The body does not match its Content-Type."""

    status, code = 400, ProblemCode.INVALID_REQUEST


class InvalidRequestError(RequestError):
    """The body is well-formed, but a value in it, or in the query, is invalid."""

    status, code = 422, ProblemCode.INVALID_REQUEST


class InvalidImagesError(RequestError):
    """Some images of the request cannot be decoded; `errors` lists them."""

    status, code = 422, ProblemCode.INVALID_IMAGE

    def __init__(self, errors: tuple[ItemError, ...], images: int) -> None:
        self.errors = errors
        first = errors[0]
        more = f"; errors lists all {len(errors)} invalid images" if len(errors) > 1 else ""
        super().__init__(
            f"Image {first.index} of {images} (counted from 0) cannot be used: {first.reason}"
            + (f" Remove it, or set on_error=item to get answers for the other images{more}." if images > 1 else "")
        )


class UnsupportedMediaTypeError(RequestError):
    """The Content-Type or the Content-Encoding is not supported."""

    status, code = 415, ProblemCode.UNSUPPORTED_MEDIA_TYPE


class BodyTooLargeError(RequestError):
    """The body exceeds CONVOY_MAX_BODY_BYTES."""

    status, code = 413, ProblemCode.BODY_TOO_LARGE

    def __init__(self, limit: int, size: int | None = None) -> None:
        body = "The body" if size is None else f"The body of {size:,} bytes"
        super().__init__(f"{body} is larger than the {limit:,} bytes allowed; send fewer or smaller images at a time.")


class TooManyImagesError(RequestError):
    """The request exceeds CONVOY_MAX_IMAGES."""

    status, code = 413, ProblemCode.TOO_MANY_IMAGES

    def __init__(self, limit: int, images: int | None = None) -> None:
        count = "" if images is None else f"{images:,} images, "
        super().__init__(f"The request holds {count}more than the {limit:,} images allowed; send fewer at a time.")


class TooManyValuesError(RequestError):
    """Parsing the JSON body would take far more memory than the body itself."""

    status, code = 413, ProblemCode.BODY_TOO_LARGE


class ModelNotFoundError(RequestError):
    """No model or version has this name."""

    status, code = 404, ProblemCode.MODEL_NOT_FOUND


class ReportNotFoundError(RequestError):
    """The model's report has no such file."""

    status, code = 404, ProblemCode.NOT_FOUND


class UnsupportedFeatureError(RequestError):
    """The request uses a protocol extension that the service does not implement."""

    status, code = 501, ProblemCode.NOT_IMPLEMENTED


class UnauthorizedError(RequestError):
    """The request needs an API key and has none, or an unknown one."""

    status, code = 401, ProblemCode.UNAUTHORIZED

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """The client may not make this request."""

    status, code = 403, ProblemCode.FORBIDDEN


class ConflictError(RequestError):
    """The state of the service does not allow the change."""

    status = 409
    code = ProblemCode.CONFLICT


class ModelRefusedError(ServiceError):
    """The version was found and failed its checks, so it does not serve."""

    status, code = 503, ProblemCode.MODEL_REFUSED


class UnavailableError(ServiceError):
    """The same request may succeed later: after retry_after seconds, if that is known."""

    status = 503
    retry_after: float | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(math.ceil(self.retry_after))}


class NotReadyError(UnavailableError):
    """No model is loaded, this one is unloaded, or the service is shutting down."""

    code = ProblemCode.NOT_READY


class OverloadedError(UnavailableError):
    """The queue or the memory for bodies is full; nothing was decoded."""

    code = ProblemCode.OVERLOADED

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeviceMemoryError(UnavailableError):
    """The device is out of memory, even for a single image; other work may free some."""

    code = ProblemCode.OVERLOADED
    retry_after = 1.0


class DeadlineError(UnavailableError):
    """The deadline passed; work that had not started was dropped.

    model is the value of the label under which convoy_deadline_missed counts the request; None: it is not counted.
    """

    status, code = 504, ProblemCode.DEADLINE_EXCEEDED

    def __init__(self, message: str, model: str | None = None) -> None:
        self.model = model
        super().__init__(message)


class BodyTimeoutError(DeadlineError):
    """The deadline passed before the body had arrived. The connection closes, since the rest may never come."""

    def __init__(self) -> None:
        super().__init__(
            "The deadline passed before the request's body had arrived; send less, or allow more time.", model=""
        )

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


class InferenceError(ServiceError):
    """The model failed on valid images. The client does not see the message, which describes internals."""

    @property
    def detail(self) -> str:
        return INTERNAL_DETAIL
