"""Arguments that cannot be sent: one sentence, and no request."""

import io
from typing import Any

import httpx
import numpy as np
import pytest

from convoy_client import InvalidInputError
from tests.clients.python.conftest import Caller


def refuse(_: httpx.Request) -> httpx.Response:
    raise AssertionError("no request may be made")


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "images is empty"),
        (7, "type int"),
        ([None], "type NoneType"),
        (io.StringIO("text"), "binary mode"),
        (np.zeros((8, 8)), "float64"),
        ([np.zeros((8, 8), np.int64)], "int64"),
        (np.zeros(8, np.uint8), r"\[8\]"),
        (np.zeros((0, 8, 8), np.uint8), r"\[0, 8, 8\]"),
        ([np.zeros((2, 8, 8), np.uint8), b"x"], r"\[2, 8, 8\]"),
    ],
)
def test_images_that_cannot_be_sent_are_refused(caller: Caller, images: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        caller.ask_fake(refuse, "predict", images)


@pytest.mark.parametrize("labels", [["a", 1], [1.5], [None], "text"])
def test_labels_must_be_all_names_or_all_indices(caller: Caller, labels: Any) -> None:
    with pytest.raises(InvalidInputError, match="labels"):
        caller.ask_fake(refuse, "evaluate", [b"x"] * len(labels), labels)


def test_a_version_needs_a_model(caller: Caller) -> None:
    with pytest.raises(InvalidInputError, match="version is 2"):
        caller.ask_fake(refuse, "predict", b"x", version=2)


def test_a_missing_file_is_the_usual_error(caller: Caller) -> None:
    with pytest.raises(FileNotFoundError):
        caller.ask_fake(refuse, "predict", "/no/such/file.png")


def test_several_images_without_labels_are_no_archive(caller: Caller) -> None:
    with pytest.raises(InvalidInputError, match="labels is missing"):
        caller.ask_fake(refuse, "evaluate", [b"x", b"y"])
