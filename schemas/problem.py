"""The body of error responses: problem details (RFC 9457) with a code from a fixed set."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schemas.base import Frozen
from schemas.prediction import ItemError

MEDIA_TYPE = "application/problem+json"


class ProblemCode(StrEnum):
    """The kind of error, for programs; codes are stable across releases."""

    INVALID_REQUEST = "invalid_request"
    INVALID_IMAGE = "invalid_image"
    MODEL_REQUIRED = "model_required"  # of earlier releases; kept because codes are stable
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_REFUSED = "model_refused"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_IMAGES = "too_many_images"
    NOT_IMPLEMENTED = "not_implemented"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_READY = "not_ready"
    INTERNAL = "internal"


class Problem(Frozen):
    type: Annotated[str, Field(description="always about:blank; code identifies the kind of error")] = "about:blank"
    title: Annotated[str, Field(description="the name of the status code")]
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="one sentence: what is wrong and what to do")]
    code: ProblemCode
    errors: Annotated[tuple[ItemError, ...], Field(description="one entry for each invalid image")] = ()
