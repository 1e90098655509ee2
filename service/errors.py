"""Every way in which the service says no. No HTTP here: app.py holds the one table from these to a status.

ServiceError
├── StartError                     the service cannot start
│   ├── SettingsError              a CONVOY_* variable has a value that cannot be used
│   └── DeviceError                the device that was asked for cannot be used
├── RequestError                   the caller can mend it
│   ├── MalformedBodyError         the body is not what its Content-Type says
│   ├── InvalidRequestError        the body can be read and asks for something that is not there to ask
│   ├── InvalidImagesError         some of the images cannot be decoded; names each
│   ├── UnsupportedMediaTypeError  a kind of body that is not taken here
│   ├── BodyTooLargeError          more bytes than allowed
│   ├── TooManyImagesError         more images than allowed
│   ├── TooManyValuesError         a JSON body of more numbers, lists or objects than allowed
│   ├── ModelRequiredError         several models, none named
│   ├── ModelNotFoundError         no such model or version
│   ├── ReportNotFoundError        no such file in the model's report
│   ├── UnsupportedFeatureError    a part of a protocol that is not here
│   ├── UnauthorizedError          a key is needed, and none or a wrong one came
│   ├── ConflictError              the state of the service does not allow the change
│   └── ForbiddenError             not for this caller, whatever it brings
├── ModelRefusedError              the model is there, and must not answer
├── UnavailableError               the caller can try again
│   ├── NotReadyError              no model at all, or the service is going down
│   ├── OverloadedError            the queue is full
│   ├── DeviceMemoryError          the device has no memory left for a single image
│   └── DeadlineError              the time that the request had is over
└── InferenceError                 the model failed on images that were good
"""

from schemas.prediction import ItemError


class ServiceError(Exception):
    """The message is one sentence for whoever asked: what is wrong and what to do.

    closes says whether its connection ends with it, as nobody knows whether the rest of the request's body will come.
    """

    closes = False


class StartError(ServiceError):
    """The service cannot start."""


class SettingsError(StartError):
    """A CONVOY_* variable has a value that cannot be used."""


class DeviceError(StartError):
    """The device that was asked for cannot be used; the message names what is missing."""


class RequestError(ServiceError):
    """The caller can mend it."""


class MalformedBodyError(RequestError):
    """The body is not what its Content-Type says."""


class InvalidRequestError(RequestError):
    """The body can be read and asks for something that is not there to ask."""


class InvalidImagesError(RequestError):
    """Some of the images cannot be decoded."""

    def __init__(self, errors: tuple[ItemError, ...], images: int) -> None:
        self.errors = errors
        first = errors[0]
        more = f"; errors lists all {len(errors)} bad ones" if len(errors) > 1 else ""
        super().__init__(
            f"Image {first.index} of {images} (counted from 0) cannot be used: {first.reason}"
            + (f" Leave it out, or ask with on_error=item for the others' answers{more}." if images > 1 else "")
        )


class UnsupportedMediaTypeError(RequestError):
    """A kind of body that is not taken here."""


class BodyTooLargeError(RequestError):
    """More bytes than allowed."""

    def __init__(self, limit: int, sent: int | None = None) -> None:
        body = "The body" if sent is None else f"The body of {sent:,} bytes"
        super().__init__(f"{body} is larger than the {limit:,} bytes allowed; send fewer or smaller images at a time.")


class TooManyImagesError(RequestError):
    """More images than allowed."""

    def __init__(self, limit: int, sent: int | None = None) -> None:
        held = "" if sent is None else f"{sent:,} images, "
        super().__init__(f"The request holds {held}more than the {limit:,} images allowed; send fewer at a time.")


class TooManyValuesError(RequestError):
    """A JSON body that would take far more memory than its bytes."""


class ModelRequiredError(RequestError):
    """Several models, none named."""


class ModelNotFoundError(RequestError):
    """No such model or version."""


class ReportNotFoundError(RequestError):
    """No such file in the model's report."""


class UnsupportedFeatureError(RequestError):
    """A part of a protocol that is not here."""


class UnauthorizedError(RequestError):
    """A key is needed, and none or a wrong one came."""


class ForbiddenError(RequestError):
    """Not for this caller, whatever it brings."""


class ConflictError(RequestError):
    """The state of the service does not allow the change."""


class ModelRefusedError(ServiceError):
    """The model is there, and must not answer."""


class UnavailableError(ServiceError):
    """The caller can try again, after so many seconds where that is known."""

    retry_after: float | None = None


class NotReadyError(UnavailableError):
    """No model at all, this one unloaded, or the service is going down."""


class OverloadedError(UnavailableError):
    """The queue is full; nothing was decoded."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeviceMemoryError(UnavailableError):
    """The device has no memory left for a single image; others' work may free some."""

    retry_after = 1.0


class DeadlineError(UnavailableError):
    """The time that the request had is over; what was not begun was dropped. model: none, while its body still came."""

    def __init__(self, message: str, model: str = "") -> None:
        self.model = model
        super().__init__(message)


class InferenceError(ServiceError):
    """The model failed on images that were good."""
