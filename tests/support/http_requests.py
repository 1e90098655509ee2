"""Requests that tests send, and what they expect of every response."""

import base64
import io
from typing import Any

import httpx2
import numpy as np

from schemas.problem import MEDIA_TYPE, Problem

BROKEN = b"this is no image"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("files", (f"{i}.png", data, "image/png")) for i, data in enumerate(files)]


def labels_of(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [prediction["label"] for prediction in response.json()["predictions"]]


def problem_of(response: httpx2.Response, status: int, code: str) -> Problem:
    """Returns the problem document. Its detail must be one sentence, and its status that of the response."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text
    problem = Problem.model_validate_json(response.content)
    assert (response.status_code, problem.status, problem.code) == (status, status, code), problem
    assert problem.detail.endswith("."), problem.detail
    assert "Traceback" not in problem.detail
    return problem
