"""A body format: how a request's body becomes images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import Field

from schemas.prediction import OnError
from service.inference.evaluation import Label
from service.inference.inputs import Image
from service.settings import Settings
from service.validation import PLAIN_INTEGER

TopK = Annotated[int, Field(ge=1), PLAIN_INTEGER]
OpenApi = dict[str, Any]


class Purpose(Enum):
    PREDICT = "predict"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Submission:
    """The images of one request, and the options that its body carries. labels is empty for /predict."""

    images: Sequence[Image]
    labels: Sequence[Label] = ()
    top_k: int | None = None
    on_error: OnError | None = None
    reject: bool | None = None
    explain: bool | None = None


@dataclass(frozen=True)
class RequestBody:
    """A body of at most settings.max_body_bytes. The settings also limit what it may hold."""

    data: bytes
    content_type: str
    purpose: Purpose
    settings: Settings


@dataclass(frozen=True)
class BodyFormat:
    """One format of a body.

    parse raises MalformedBodyError, InvalidRequestError, TooManyImagesError or TooManyValuesError. It runs off the
    event loop for large bodies. openapi has the media type object for each purpose that the format serves. aliases are
    other names of the media type. recognizes returns whether a body without a useful Content-Type has this format.
    """

    media_type: str
    parse: Callable[[RequestBody], Submission]
    openapi: Mapping[Purpose, OpenApi]
    aliases: tuple[str, ...] = ()
    recognizes: Callable[[bytes], bool] = lambda _: False

    def matches(self, media_type: str) -> bool:
        if self.media_type.endswith("/*"):
            return media_type.startswith(self.media_type[:-1])
        return media_type in {self.media_type, *self.aliases}
