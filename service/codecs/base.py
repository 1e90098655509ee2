"""What every kind of body comes to, and what every kind is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import Field

from schemas.prediction import OnError
from service.inference.evaluation import Label
from service.inference.inputs import Image
from service.settings import DEFAULT_MAX_ARCHIVE_BYTES, DEFAULT_MAX_BODY_BYTES
from service.validation import PLAIN_INTEGER

TopK = Annotated[int, Field(ge=1), PLAIN_INTEGER]


class Purpose(Enum):
    PREDICT = "predict"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Submission:
    """The images of one request, with the options that its body carried. labels is empty for /predict."""

    images: Sequence[Image]
    labels: Sequence[Label] = ()
    top_k: int | None = None
    on_error: OnError | None = None
    reject: bool | None = None


@dataclass(frozen=True)
class Incoming:
    """A body within CONVOY_MAX_BODY_BYTES, and the limits of what it may hold."""

    body: bytes
    content_type: str
    purpose: Purpose
    max_images: int
    max_pixels: int
    max_json_values: int
    max_archive_bytes: int = DEFAULT_MAX_ARCHIVE_BYTES
    max_archived_image_bytes: int = DEFAULT_MAX_BODY_BYTES


OpenApi = dict[str, Any]


@dataclass(frozen=True)
class BodyKind:
    """One kind of body.

    parse raises MalformedBodyError, InvalidRequestError or TooManyImagesError. It may take a while: large bodies are
    parsed off the event loop. openapi is the media type object for each purpose that the kind serves. others are other
    names of the media type.
    """

    media_type: str
    parse: Callable[[Incoming], Submission]
    openapi: Mapping[Purpose, OpenApi]
    others: tuple[str, ...] = ()

    def matches(self, media_type: str) -> bool:
        if self.media_type.endswith("/*"):
            return media_type.startswith(self.media_type[:-1])
        return media_type in {self.media_type, *self.others}
