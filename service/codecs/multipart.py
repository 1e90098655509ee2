"""multipart/form-data: files=@a.png files=@b.jpg, or for /evaluate archive=@images.zip, and the options as fields.

The limit on images bounds the number of parts, and fields are short. The body is in memory already, so files are
neither written to disk nor copied twice, as a general form parser must do.
"""

import re
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from schemas.prediction import DEFAULT_TOP_K, OnError
from service.codecs.archive import NPZ_DESCRIPTION, ZIP_DESCRIPTION, read_archive
from service.codecs.base import BodyFormat, OpenApi, Purpose, RequestBody, Submission, TopK
from service.errors import InvalidRequestError, MalformedBodyError, RequestError, TooManyImagesError
from service.inference.evaluation import Label
from service.inference.inputs import EncodedImage, Image
from service.settings import Settings
from service.validation import fault, shortened

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILES, ARCHIVE, LABELS = "files", "archive", "labels"
TOP_K, ON_ERROR, REJECT, EXPLAIN = "top_k", "on_error", "reject", "explain"
MAX_FIELD_BYTES = 1024

_FIELDS = {Purpose.PREDICT: (TOP_K, ON_ERROR, REJECT, EXPLAIN), Purpose.EVALUATE: (LABELS, ON_ERROR, REJECT)}
_UPLOADS = {Purpose.PREDICT: (FILES,), Purpose.EVALUATE: (FILES, ARCHIVE)}
_TOP_K: TypeAdapter[int] = TypeAdapter(TopK)
_ON_ERROR = TypeAdapter(OnError)
_BOOLEAN = TypeAdapter(bool)

T = TypeVar("T")


# RFC 8187, with which some clients send the name alone. python_multipart ignores it.
_EXTENDED_FILENAME = re.compile(rb"filename\*\s*=\s*([\w-]+)'[^']*'([^;\s]+)", re.IGNORECASE)


# The head of a part as nearly all clients write it. Any other head is left to python_multipart.
_PLAIN_HEAD = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([\w-]+)"(?:; filename="([^"\\\x00-\x1f\x7f]*)")?'
    rb"(\r\nContent-Type: [\w.+/-]+)?\r\n\r\n",
    re.IGNORECASE,
)
_PLAIN_BOUNDARY = re.compile(r"multipart/form-data; ?boundary=([\w-]+)", re.ASCII)


@dataclass
class _Part:
    name: str
    filename: str | None
    typed: bool  # it has a Content-Type
    data: bytes | bytearray = b""

    @property
    def is_plain_text(self) -> bool:
        """Whether a part that should be a file is a field: curl's -F files=a.png in place of -F files=@a.png."""
        if self.filename is not None or self.typed or len(self.data) > MAX_FIELD_BYTES:
            return False
        try:
            return self.data.decode("utf-8").isprintable()
        except UnicodeDecodeError:
            return False


class Form:
    """The files and fields so far. A part is checked before and added after its data."""

    def __init__(self, purpose: Purpose, max_images: int) -> None:
        self.uploads: dict[str, list[EncodedImage]] = {name: [] for name in _UPLOADS[purpose]}
        self.values: dict[str, list[str]] = {name: [] for name in _FIELDS[purpose]}
        self._fields: dict[str, Sized] = {**self.uploads, **self.values}
        self._max_images = max_images

    def check(self, part: _Part) -> None:
        name, fields = part.name, self._fields
        if name not in fields:
            others = [other for other in fields if other != FILES]
            raise InvalidRequestError(
                f"Unknown field '{shortened(name)}'; send each image as {FILES}=@image.png. "
                f"Other known fields: {', '.join(others)}."
            )
        if name in self.values and part.filename is not None:
            raise InvalidRequestError(f"The field '{name}' must be plain text (curl -F {name}=...).")
        if name in {ARCHIVE, TOP_K, ON_ERROR, REJECT, EXPLAIN} and len(fields[name]):
            raise InvalidRequestError(f"The field '{name}' occurs more than once; send it once.")
        if len(fields[name]) >= self._max_images:
            raise TooManyImagesError(self._max_images)

    def check_size(self, name: str, size: int) -> None:
        if name in self.values and size > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"The field '{name}' is longer than {MAX_FIELD_BYTES} bytes; shorten it.")

    def add(self, part: _Part) -> None:
        if part.name in self.uploads:
            if part.is_plain_text:
                raise InvalidRequestError(f"The field '{part.name}' must be a file (curl -F {part.name}=@...).")
            self.uploads[part.name].append(EncodedImage(bytes(part.data), part.filename or None))
            return
        try:
            self.values[part.name].append(part.data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"The field '{part.name}' is not UTF-8 text; send UTF-8.") from error


def read_plain(form: Form, data: bytes, boundary: bytes) -> bool:
    """Reads the usual kind of form with a few searches. Returns False at anything unusual: read it by read_any."""
    delimiter = b"\r\n--" + boundary
    if not data.startswith(delimiter[2:]):
        return False
    position = len(delimiter) - 2
    while head := _PLAIN_HEAD.match(data, position):
        end = data.find(delimiter, head.end())
        if end < 0:
            return False
        name, filename, content_type = head.groups()
        part = _Part(
            name.decode(), None if filename is None else filename.decode("utf-8", "replace"), content_type is not None
        )
        part.data = data[head.end() : end]
        try:
            form.check(part)
            form.check_size(part.name, len(part.data))
            form.add(part)
        except RequestError:
            return False  # a malformed rest of the form is the error to report, and only the parser sees that
        position = end + len(delimiter)
    return data[position:] in {b"--", b"--\r\n"}


class _Callbacks:
    """What python_multipart calls. An exception in a callback ends the parsing."""

    def __init__(self, form: Form) -> None:
        self.ended = False
        self._form = form
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._value = b""
        self._part = _Part("", None, typed=False)
        self._data = bytearray()

    def on_part_begin(self) -> None:
        self._headers = {}

    def on_header_begin(self) -> None:
        self._header = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value

    def on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        filename = None
        if b"filename" in options:
            filename = options[b"filename"].decode("utf-8", "replace")
        elif extended := _EXTENDED_FILENAME.search(disposition):
            charset = "utf-8" if extended[1].lower() == b"utf-8" else "latin-1"
            filename = unquote(extended[2].decode("latin-1"), charset)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._data = bytearray()
        self._part = _Part(name, filename, b"content-type" in self._headers, self._data)
        self._form.check(self._part)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._form.check_size(self._part.name, len(self._data) + end - start)
        self._data += data[start:end]

    def on_part_end(self) -> None:
        self._form.add(self._part)

    def on_end(self) -> None:
        self.ended = True


def read_any(form: Form, data: bytes, boundary: bytes) -> None:
    """Raises MalformedBodyError."""
    callbacks = _Callbacks(form)
    names = [name for name in dir(callbacks) if name.startswith("on_")]
    try:
        parser = MultipartParser(
            boundary, cast("MultipartCallbacks", {name: getattr(callbacks, name) for name in names})
        )
        parser.write(_without_preamble(data, boundary))
        parser.finalize()
    except FormParserError as error:
        raise MalformedBodyError(f"The body is not a multipart form: {error}.") from error
    if not callbacks.ended:
        raise MalformedBodyError("The multipart form is truncated: its last boundary is missing; send all of it.")


def _parse(body: RequestBody) -> Submission:
    boundary = _boundary(body.content_type)
    form = Form(body.purpose, body.settings.max_images)
    if not read_plain(form, body.data, boundary):
        form = Form(body.purpose, body.settings.max_images)
        read_any(form, body.data, boundary)
    images, labels = _images(form, body.settings)
    return Submission(
        images=images,
        labels=labels,
        top_k=_once(form, TOP_K, _TOP_K),
        on_error=_once(form, ON_ERROR, _ON_ERROR),
        reject=_once(form, REJECT, _BOOLEAN),
        explain=_once(form, EXPLAIN, _BOOLEAN),
    )


def _boundary(content_type: str) -> bytes:
    """Raises MalformedBodyError."""
    if plain := _PLAIN_BOUNDARY.fullmatch(content_type):
        return plain[1].encode()
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        raise MalformedBodyError("The Content-Type has no boundary; let the HTTP client set this header.")
    return options[b"boundary"]


def _without_preamble(body: bytes, boundary: bytes) -> bytes:
    """Returns the body from its first boundary; RFC 2046, 5.1.1 allows a preamble, and the parser does not."""
    first = b"--" + boundary
    if body.startswith(first):
        return body
    return body[max(body.find(b"\r\n" + first), 0) :]


def _images(form: Form, settings: Settings) -> tuple[Sequence[Image], Sequence[Label]]:
    files, labels = form.uploads[FILES], form.values.get(LABELS, [])
    for archive in form.uploads.get(ARCHIVE, ()):
        if files or labels:
            raise InvalidRequestError(
                f"Send either the {ARCHIVE}, which contains its labels, or {FILES} with {LABELS}."
            )
        return read_archive(archive.data, settings)
    if not files:
        raise InvalidRequestError(f"The form has no images; send each as {FILES}=@image.png.")
    return files, labels


def _once(form: Form, name: str, kind: TypeAdapter[T]) -> T | None:
    values = form.values.get(name)
    if not values:
        return None
    try:
        return kind.validate_python(values[0])
    except ValidationError as error:
        raise InvalidRequestError(f"The field '{name}' {fault(error.errors(include_url=False)[0])}.") from error


# Swagger UI offers to choose a file for contentMediaType, the form of OpenAPI 3.1. Other tools look for the format.
_FILE: OpenApi = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


_UNSET: OpenApi = {"default": []}  # else Swagger UI fills in one text


def _openapi(extra: OpenApi, needed: OpenApi) -> OpenApi:
    unset = {} if "required" in needed else _UNSET
    return {
        "schema": {
            "type": "object",
            "properties": {
                FILES: {
                    "type": "array",
                    "items": _FILE,
                    "minItems": 1,
                    **unset,
                    "description": "Image files, one field per image.",
                },
                ON_ERROR: {"$ref": "#/components/schemas/OnError", "default": OnError.REQUEST},
                REJECT: {"type": "boolean", "default": False},
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
        Purpose.PREDICT: _openapi(
            {
                TOP_K: {"type": "integer", "minimum": 1, "default": DEFAULT_TOP_K},
                EXPLAIN: {"type": "boolean", "default": False},
            },
            {"required": [FILES]},
        ),
        Purpose.EVALUATE: _openapi(
            {
                LABELS: {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    **_UNSET,
                    "description": "Label names, one field per file, in the order of the files.",
                },
                ARCHIVE: {
                    **_FILE,
                    "description": "A zip or .npz of labelled images, in place of files and labels. "
                    f"{ZIP_DESCRIPTION} {NPZ_DESCRIPTION}",
                },
            },
            {"oneOf": [{"required": [FILES, LABELS]}, {"required": [ARCHIVE]}]},
        ),
    },
)
