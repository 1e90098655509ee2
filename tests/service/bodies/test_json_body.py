import json
from typing import Any

import pytest

from schemas.prediction import OnError
from service.bodies.json_body import JSON
from service.bodies.submission import Incoming, Purpose, Submission
from service.errors import InvalidRequestError, MalformedBodyError, TooManyImagesError


def parse(body: Any, purpose: Purpose = Purpose.PREDICT, max_images: int = 3) -> Submission:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return JSON.parse(Incoming(data, JSON.media_type, purpose, max_images, 1))


def test_instances_and_options_are_read() -> None:
    submission = parse({"instances": [1, 2], "top_k": 4, "on_error": "item"})
    assert (len(submission.images), submission.top_k, submission.on_error) == (2, 4, OnError.ITEM)


def test_labels_keep_their_kind() -> None:
    submission = parse({"instances": [1, 2], "labels": ["7", 7]}, Purpose.EVALUATE)
    assert list(submission.labels) == ["7", 7]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "instances: Field required"),
        ({"instances": []}, "instances: List should have at least 1 item"),
        ({"instances": 3}, "instances: Input should be a valid array"),
        ({"instances": [1], "topk": 3}, "There is no field 'topk'; the fields are instances, top_k, on_error"),
        ({"instances": [1], "labels": ["a"]}, "There is no field 'labels'"),
        ({"instances": [1], "top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ({"instances": [1], "top_k": "3"}, "top_k: Input should be a valid integer"),
        ({"instances": [1], "on_error": "skip"}, "on_error: Input should be"),
        ([1, 2], "must be a JSON object with the fields instances, top_k, on_error"),
    ],
)
def test_a_wrong_field_is_said_by_name(body: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        parse(body)


@pytest.mark.parametrize("label", [True, 1.5, None, ["a"]])
def test_a_label_is_a_name_or_an_index(label: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"labels\.0"):
        parse({"instances": [1], "labels": [label]}, Purpose.EVALUATE)


@pytest.mark.parametrize("body", [b"", b"{", b'{"instances": [1,]}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_said(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="The body is not JSON"):
        parse(body)


def test_more_instances_than_allowed_are_refused() -> None:
    with pytest.raises(TooManyImagesError):
        parse({"instances": [1, 2, 3, 4]})
