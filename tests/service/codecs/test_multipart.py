from collections.abc import Callable
from contextlib import suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.prediction import OnError
from service.codecs.base import Purpose, Submission
from service.codecs.multipart import MAX_FIELD_BYTES, MULTIPART, Form, read_any, read_plain
from service.errors import InvalidRequestError, MalformedBodyError, ServiceError, TooManyImagesError
from service.inference.inputs import EncodedImage
from tests.support.bundles import solid
from tests.support.http_requests import form
from tests.support.request_bodies import request_body
from tests.support.zip_files import zipped

FORM = "multipart/form-data; boundary=x"


def parse(
    files: list[tuple[str, tuple[str, bytes, str]]],
    data: dict[str, str | list[str]] | None = None,
    purpose: Purpose = Purpose.PREDICT,
    max_images: int = 100,
) -> Submission:
    request = httpx2.Request("POST", "http://test", files=files, data=data)
    body = request_body(request.read(), request.headers["content-type"], purpose, max_images=max_images)
    return MULTIPART.parse(body)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_files_arrive_whole_and_in_order(files: list[bytes]) -> None:
    assert parse(form(*files)).images == [EncodedImage(data, f"{i}.png") for i, data in enumerate(files)]


def test_options_are_read() -> None:
    submission = parse(form(b"a"), {"top_k": "2", "on_error": "item"})
    assert (submission.top_k, submission.on_error) == (2, OnError.ITEM)


def test_labels_are_names_in_order_whatever_the_alphabet() -> None:
    labels = ["7", "grün", "猫"]
    assert parse(form(b"a", b"b", b"c"), {"labels": labels}, Purpose.EVALUATE).labels == labels


@pytest.mark.parametrize(
    ("files", "data", "said"),
    [
        ([("file", ("a.png", b"a", "image/png"))], None, "Unknown field 'file'; send each image as files=@image"),
        (form(b"a"), {"topk": "1"}, "Unknown field 'topk'"),
        (form(b"a"), {"labels": "red"}, "Unknown field 'labels'"),
        ([("top_k", ("a.png", b"1", "text/plain"))], None, "'top_k' must be plain text"),
        (form(b"a"), {"files": "a.png"}, "'files' must be a file"),
        (form(b"a"), {"top_k": "many"}, "The field 'top_k' must be an integer, not 'many'"),
        (form(b"a"), {"top_k": "0"}, "The field 'top_k' must be 1 or more, not '0'"),
        (form(b"a"), {"on_error": "ignore"}, "The field 'on_error' must be 'request' or 'item', not 'ignore'"),
        (form(b"a"), {"on_error": ["item", "item"]}, "'on_error' occurs more than once"),
        (form(b"a"), {"top_k": "1" * (MAX_FIELD_BYTES + 1)}, "longer than 1024 bytes"),
    ],
)
def test_an_invalid_field_is_named(
    files: list[tuple[str, tuple[str, bytes, str]]], data: dict[str, str | list[str]] | None, said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        parse(files, data)


def one_part(headers: str, data: bytes) -> bytes:
    return b"--x\r\n" + headers.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ('Content-Disposition: form-data; name="files"; filename="a.png"', "a.png"),
        ('Content-Disposition: form-data; name="files"; filename=""', None),
        ('Content-Disposition: form-data; name="files"', None),
        ('Content-Disposition: form-data; name="files"\r\nContent-Type: image/png', None),
        ('content-type: application/octet-stream\r\ncontent-disposition: form-data; name="files"', None),
        ("Content-Disposition: form-data; name=\"files\"; filename*=UTF-8''a%20%E7%8C%AB.png", "a 猫.png"),
        ("Content-Disposition: form-data; name=\"files\"; filename*=iso-8859-1'de'gr%FCn.png", "grün.png"),
        ('Content-Disposition: form-data; name="files"; filename="a.png"; filename*=UTF-8\'\'b.png', "a.png"),
    ],
)
def test_a_file_needs_no_filename(headers: str, name: str | None) -> None:
    files = request_body(one_part(headers, solid("red")), FORM)
    assert MULTIPART.parse(files).images == [EncodedImage(solid("red"), name)]
    data = zipped({"red/1.png": solid("red")})
    archive = request_body(one_part(headers.replace("files", "archive"), data), FORM, Purpose.EVALUATE)
    assert MULTIPART.parse(archive).labels == ["red"]


@pytest.mark.parametrize("data", [b"", b"a.png", "grün.png".encode(), rb"C:\a.png"])
def test_a_field_of_plain_text_in_place_of_a_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"'files' must be a file \(curl -F files=@"):
        MULTIPART.parse(request_body(one_part('Content-Disposition: form-data; name="files"', data), FORM))


def test_more_files_than_allowed_are_not_read_to_the_end() -> None:
    assert len(parse(form(b"a", b"b"), max_images=2).images) == 2
    with pytest.raises(TooManyImagesError):
        parse(form(b"a", b"b", b"c"), max_images=2)


def test_a_request_of_the_default_limit_of_images_passes() -> None:
    assert len(parse(form(*[b"a"] * 10_000), max_images=10_000).images) == 10_000


def test_a_form_without_files_is_refused() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n--x--\r\n'
    with pytest.raises(InvalidRequestError, match="The form has no images"):
        MULTIPART.parse(request_body(body, FORM))


@pytest.mark.parametrize(
    "preamble",
    [b"\r\n", b"This is a message in MIME format.\r\n", b"two\r\nlines, -- and --x, which is no boundary\r\n\r\n"],
)
def test_a_preamble_and_an_epilogue_are_ignored(preamble: bytes) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc\r\n'
    body = preamble + part * 2 + b"--x--\r\nepilogue\r\n--x"
    assert MULTIPART.parse(request_body(body, FORM)).images == [EncodedImage(b"abc", "a")] * 2
    with pytest.raises(TooManyImagesError):
        MULTIPART.parse(request_body(body, FORM, max_images=1))


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"", "multipart/form-data", "has no boundary"),
        (b"", FORM, "truncated"),
        (b"nonsense", FORM, "not a multipart form"),
        (b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc', FORM, "truncated"),
    ],
)
def test_a_body_that_is_not_a_form_is_malformed(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(MalformedBodyError, match=said):
        MULTIPART.parse(request_body(body, content_type))


@given(st.binary(max_size=300))
def test_any_body_parses_or_raises_a_service_error(body: bytes) -> None:
    for prefix in (b"", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'):
        with suppress(ServiceError):
            MULTIPART.parse(request_body(prefix + body, FORM))


_HEADERS = st.sampled_from(
    [
        'Content-Disposition: form-data; name="files"; filename="{}"',
        'Content-Disposition: form-data; name="files"; filename="{}"\r\nContent-Type: image/png',
        'content-disposition: form-data; name="files"',
        'Content-Disposition: form-data; name="{}"',
        'Content-Disposition: form-data; name="top_k"',
        'Content-Type: image/png\r\nContent-Disposition: form-data; name="files"',
        "Content-Disposition: form-data; name=files; filename={}",
        "{}",
    ]
)
_NAMES = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["a.png", "x;y=1", "%22", "a\\b", "--x"])
_DATA = st.lists(st.sampled_from([b"\r\n", b"--x", b"--", b"-", b"x", b"\r", b"\n", b"\xff", b"a" * 600])).map(b"".join)
_PARTS = st.tuples(_HEADERS, _NAMES, _DATA).map(
    lambda part: b"--x\r\n" + part[0].format(part[1]).encode() + b"\r\n\r\n" + part[2] + b"\r\n"
)
_ENDS = st.sampled_from([b"--x--\r\n", b"--x--", b"--x", b"", b"--x--\r\nepilogue", b"--x-"])


@given(st.lists(_PARTS, max_size=4).map(b"".join), _ENDS)
def test_the_search_for_boundaries_reads_a_form_as_the_parser_does_or_leaves_it_to_the_parser(
    parts: bytes, end: bytes
) -> None:
    def outcome(read: Callable[[Form, bytes, bytes], bool | None]) -> object:
        form = Form(Purpose.PREDICT, max_images=3)
        try:
            return read(form, parts + end, b"x") is not False and (form.uploads, form.values)
        except ServiceError as error:
            return type(error), str(error)

    plain = outcome(read_plain)
    assert plain is False or plain == outcome(read_any)


def test_the_form_of_a_usual_client_needs_no_parser() -> None:
    request = httpx2.Request("POST", "http://test", files=form(b"a", b"b"), data={"top_k": "2"})
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    assert read_plain(Form(Purpose.PREDICT, max_images=3), request.read(), boundary)
