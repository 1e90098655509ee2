"""multipart/form-data: files=@a.png files=@b.jpg, or for /evaluate archive=@images.zip, and the options as fields.

The limit on images bounds the number of parts, and fields are short. The body is in memory already, so files are
neither written to disk nor copied twice, as a general form parser must do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from schemas.prediction import OnError
from service.codecs.archive import NPZ_DESCRIPTION, ZIP_DESCRIPTION, read_archive
from service.codecs.base import BodyFormat, OpenApi, Purpose, RequestBody, Submission, TopK
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError
from service.inference.evaluation import Label
from service.inference.inputs import EncodedImage, Image
from service.settings import Settings
from service.validation import fault, shortened

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILES, ARCHIVE, LABELS = "files", "archive", "labels"
TOP_K, ON_ERROR, REJECT = "top_k", "on_error", "reject"
MAX_FIELD_BYTES = 1024

_FIELDS = {Purpose.PREDICT: (TOP_K, ON_ERROR, REJECT), Purpose.EVALUATE: (LABELS, ON_ERROR, REJECT)}
_UPLOADS = {Purpose.PREDICT: (FILES,), Purpose.EVALUATE: (FILES, ARCHIVE)}
_TOP_K: TypeAdapter[int] = TypeAdapter(TopK)
_ON_ERROR = TypeAdapter(OnError)
_REJECT = TypeAdapter(bool)

T = TypeVar("T")


@dataclass
class _Part:
    disposition: bytes = b""
    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """The parser's callbacks. An exception in a callback ends the parsing."""

    def __init__(self, purpose: Purpose, max_images: int) -> None:
        self.uploads: dict[str, list[bytes]] = {name: [] for name in _UPLOADS[purpose]}
        self.values: dict[str, list[str]] = {name: [] for name in _FIELDS[purpose]}
        self._max_images = max_images
        self._part = _Part()
        self._header = b""
        self._value = b""
        self.ended = False

    def on_part_begin(self) -> None:
        self._part = _Part()

    def on_header_begin(self) -> None:
        self._header = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._part.disposition = self._value

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._part.disposition)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        self._part.is_file = b"filename" in options
        self._check_part()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if not part.is_file and len(part.data) + end - start > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"The field '{part.name}' is longer than {MAX_FIELD_BYTES} bytes.")
        part.data += data[start:end]

    def on_part_end(self) -> None:
        if self._part.is_file:
            self.uploads[self._part.name].append(bytes(self._part.data))
            return
        try:
            self.values[self._part.name].append(self._part.data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"The field '{self._part.name}' is not UTF-8 text.") from error

    def on_end(self) -> None:
        self.ended = True

    def _check_part(self) -> None:
        name, is_file = self._part.name, self._part.is_file
        came: dict[str, list[Any]] = {**self.uploads, **self.values}
        if name not in came:
            others = [other for other in came if other != FILES]
            raise InvalidRequestError(
                f"Unknown field '{shortened(name)}'; send each image as {FILES}=@image.png. "
                f"Other known fields: {', '.join(others)}."
            )
        if is_file != (name in self.uploads):
            wanted = f"plain text (curl -F {name}=...)" if is_file else f"a file (curl -F {name}=@...)"
            raise InvalidRequestError(f"The field '{name}' must be {wanted}.")
        count = len(came[name])
        if name in {ARCHIVE, TOP_K, ON_ERROR, REJECT} and count:
            raise InvalidRequestError(f"The field '{name}' occurs more than once; send it once.")
        if count >= self._max_images:
            raise TooManyImagesError(self._max_images)


def _parse(body: RequestBody) -> Submission:
    form = _Form(body.purpose, body.settings.max_images)
    _, options = parse_options_header(body.content_type)
    if b"boundary" not in options:
        raise MalformedBodyError("The Content-Type has no boundary; let the HTTP client set this header.")
    try:
        parser = MultipartParser(options[b"boundary"], _callbacks(form))
        parser.write(_without_preamble(body.data, options[b"boundary"]))
        parser.finalize()
    except FormParserError as error:
        raise MalformedBodyError(f"The body is not a multipart form: {error}.") from error
    if not form.ended:
        raise MalformedBodyError("The multipart form is truncated: its last boundary is missing; send all of it.")
    images, labels = _images(form, body.settings)
    return Submission(
        images=images,
        labels=labels,
        top_k=_once(form, TOP_K, _TOP_K),
        on_error=_once(form, ON_ERROR, _ON_ERROR),
        reject=_once(form, REJECT, _REJECT),
    )


def _without_preamble(body: bytes, boundary: bytes) -> bytes:
    """Returns the body from its first boundary; RFC 2046, 5.1.1 allows a preamble, and the parser does not."""
    first = b"--" + boundary
    if body.startswith(first):
        return body
    return body[max(body.find(b"\r\n" + first), 0) :]


def _images(form: _Form, settings: Settings) -> tuple[Sequence[Image], Sequence[Label]]:
    files, labels = form.uploads[FILES], form.values.get(LABELS, [])
    for archive in form.uploads.get(ARCHIVE, ()):
        if files or labels:
            raise InvalidRequestError(
                f"Send either the {ARCHIVE}, which contains its labels, or {FILES} with {LABELS}."
            )
        return read_archive(archive, settings)
    if not files:
        raise InvalidRequestError(f"The form has no images; send each as {FILES}=@image.png.")
    return [EncodedImage(data) for data in files], labels


def _callbacks(form: _Form) -> "MultipartCallbacks":
    return {
        "on_part_begin": form.on_part_begin,
        "on_header_begin": form.on_header_begin,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_headers_finished": form.on_headers_finished,
        "on_part_data": form.on_part_data,
        "on_part_end": form.on_part_end,
        "on_end": form.on_end,
    }


def _once(form: _Form, name: str, kind: TypeAdapter[T]) -> T | None:
    values = form.values.get(name)
    if not values:
        return None
    try:
        return kind.validate_python(values[0])
    except ValidationError as error:
        raise InvalidRequestError(f"The field '{name}' {fault(error.errors(include_url=False)[0])}.") from error


def _openapi(extra: OpenApi, needed: OpenApi) -> OpenApi:
    return {
        "schema": {
            "type": "object",
            "properties": {
                FILES: {
                    "type": "array",
                    "items": {"type": "string", "format": "binary"},
                    "minItems": 1,
                    "description": "Image files, one field per image.",
                },
                ON_ERROR: {"$ref": "#/components/schemas/OnError"},
                REJECT: {"type": "boolean"},
                **extra,
            },
            **needed,
            "additionalProperties": False,
        },
        # One field per value, as curl -F sends them, not joined by commas.
        "encoding": {
            name: {"style": "form", "explode": True} for name in (FILES, LABELS) if name == FILES or name in extra
        },
    }


MULTIPART = BodyFormat(
    "multipart/form-data",
    _parse,
    {
        Purpose.PREDICT: _openapi({TOP_K: {"type": "integer", "minimum": 1}}, {"required": [FILES]}),
        Purpose.EVALUATE: _openapi(
            {
                LABELS: {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    "description": "Names of labels, one field per file, in the order of the files.",
                },
                ARCHIVE: {
                    "type": "string",
                    "format": "binary",
                    "description": f"Replaces files and labels: a zip or an .npz. {ZIP_DESCRIPTION} {NPZ_DESCRIPTION}",
                },
            },
            {"oneOf": [{"required": [FILES, LABELS]}, {"required": [ARCHIVE]}]},
        ),
    },
)
