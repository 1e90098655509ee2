import json
from typing import Any

import pytest

from schemas.prediction import OnError
from service.codecs.base import Purpose, Submission
from service.codecs.json import JSON
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError, TooManyValuesError
from tests.support.request_bodies import request_body


def parse(body: Any, purpose: Purpose = Purpose.PREDICT, max_images: int = 3, **limits: Any) -> Submission:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return JSON.parse(request_body(data, JSON.media_type, purpose, max_images=max_images, **limits))


def test_instances_and_options_are_read() -> None:
    submission = parse({"instances": [1, 2], "top_k": 4, "on_error": "item"})
    assert (len(submission.images), submission.top_k, submission.on_error) == (2, 4, OnError.ITEM)


def test_labels_keep_their_kind() -> None:
    submission = parse({"instances": [1, 2], "labels": ["7", 7]}, Purpose.EVALUATE)
    assert list(submission.labels) == ["7", 7]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "instances is missing; known fields: instances, top_k, on_error"),
        ({"instances": []}, "instances is empty; send at least one image"),
        ({"instances": 3}, "instances must be a list"),
        ({"instance": [1]}, "Unknown field 'instance'; known fields: instances, top_k, on_error"),
        ({"instances": [1], "topk": 3}, "Unknown field 'topk'; known fields: instances, top_k, on_error"),
        ({"instances": [1], "labels": ["a"]}, "Unknown field 'labels'"),
        ({"instances": [1], "top_k": 0}, "top_k must be 1 or more"),
        ({"instances": [1], "top_k": "3"}, "top_k must be an integer"),
        ({"instances": [1], "on_error": "skip"}, "on_error must be 'request' or 'item'"),
        ([1, 2], "must be a JSON object with the fields instances, top_k, on_error"),
    ],
)
def test_an_invalid_field_is_named(body: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        parse(body)


@pytest.mark.parametrize("label", [True, 1.5, None, ["a"]])
def test_a_label_is_a_name_or_an_index(label: Any) -> None:
    with pytest.raises(InvalidRequestError, match="Label 0 is neither a label's name nor a class index"):
        parse({"instances": [1], "labels": [label]}, Purpose.EVALUATE)


@pytest.mark.parametrize("body", [b"", b"{", b'{"instances": [1,]}', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="The body is not JSON"):
        parse(body)


def test_a_utf_8_byte_order_mark_is_ignored() -> None:
    assert len(parse(b'\xef\xbb\xbf{"instances": [1, 2]}').images) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_json_in_another_unicode_encoding_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(MalformedBodyError, match="byte order mark announces UTF-16 or UTF-32; send UTF-8"):
        parse('{"instances": [1]}'.encode(encoding))


def test_more_instances_than_allowed_are_refused() -> None:
    with pytest.raises(TooManyImagesError):
        parse({"instances": [1, 2, 3, 4]})


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[' + b"[]," * 300 + b"[]]}",
        b'{"instances":[[' + b"1," * 1100 + b"1]]}",
        b'{"instances":[1],"labels":[' + b"1," * 1100 + b"1]}",
        b"[" * 400,
    ],
    ids=["lists", "pixels", "labels", "nesting"],
)
def test_a_body_of_more_values_than_allowed_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(TooManyValuesError, match=r"more than the 1,000 values allowed.*application/x-npy"):
        parse(body, max_json_values=1000)


def test_a_body_of_more_objects_than_images_are_allowed_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(TooManyImagesError):
        parse(b'{"instances":[' + b'{"":[]},' * 10 + b"this is no JSON", max_images=4)


def test_an_error_quotes_the_clients_text_shortened() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse({"instances": [1], "x" * 5000: 1})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("keys", [b",".join(b'"%x":0' % i for i in range(5000)), b'"a":0,' * 5000 + b'"a":0'])
def test_a_body_of_more_fields_than_images_need_is_refused_before_it_is_parsed(keys: bytes) -> None:
    with pytest.raises(TooManyValuesError, match="fields, more than the"):
        parse(b"{" + keys)  # cut short: a parser would say so
