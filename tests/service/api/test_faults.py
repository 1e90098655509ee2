"""Whatever the session does, every client gets its own response or an error."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.backends.fake import FakeRuntime, FakeSession
from service.errors import InferenceError
from tests.service.conftest import Serve
from tests.support.bundles import COLOURS, SPEC, solid
from tests.support.fake_runtimes import probabilities_of
from tests.support.http_requests import b64, labels_of, problem_of

FAULTY = [[77]]  # the image, as an instance, on which the session does wrong
SHORT = {"X-Request-Timeout": "0.05"}
CALLERS, REQUESTS = 16, 160


def faulty(fault: Callable[[FloatArray], FloatArray]) -> FakeRuntime:
    """The colours model; fault changes its output for a batch with the faulty image."""

    def answer(images: Pixels) -> FloatArray:
        probabilities = probabilities_of(images)
        return fault(probabilities) if (images == 77).all(axis=(1, 2, 3)).any() else probabilities

    return FakeRuntime(lambda _: FakeSession(SPEC.shape, len(COLOURS), answer))


def raises(error: BaseException) -> Callable[[FloatArray], FloatArray]:
    def fault(_: FloatArray) -> FloatArray:
        raise error

    return fault


FAULTS = {
    "raises": raises(InferenceError("out of memory")),
    "raises what nobody foresaw": raises(RuntimeError("boom")),
    "exits": raises(SystemExit(1)),
    "has a row too many": lambda probabilities: np.vstack([probabilities, probabilities[:1]]),
    "has a column too few": lambda probabilities: probabilities[:, :-1],
    "has no rows": lambda probabilities: probabilities[:0],
    "says NaN": lambda probabilities: probabilities * np.float32(np.nan),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failing_session_is_500_and_the_next_request_succeeds(
    serve: Serve, fault: Callable[[FloatArray], FloatArray]
) -> None:
    client = serve(faulty(fault))
    for path, labels in (("/predict", {}), ("/evaluate", {"labels": ["red"]})):
        response = client.post(path, json={"instances": [FAULTY], **labels})
        problem_of(response, 500, "internal")
        assert labels_of(client.post("/predict", json={"instances": [b64(solid("blue"))]})) == ["blue"]


@pytest.mark.parametrize("max_batch", [1, 4])
def test_concurrent_clients_get_their_own_responses(serve: Serve, max_batch: int) -> None:
    client = serve(faulty(FAULTS["raises"]), max_batch=max_batch)
    kinds: dict[str, dict[str, Any]] = {
        "good": {},
        "undecodable": {"instances": [b64(b"no image")]},
        "faulty": {"instances": [FAULTY]},
        "late": {"instances": [b64(solid("red"))], "late": True},
    }

    def ask(number: int) -> tuple[str, list[str], httpx2.Response]:
        chance = random.Random(number)  # noqa: S311
        kind = chance.choices(list(kinds), [6, 1, 1, 1])[0]
        labels = chance.choices(list(COLOURS), k=chance.randint(1, 9))
        body = dict(kinds[kind]) or {"instances": [b64(solid(label)) for label in labels]}
        headers = {"X-Request-Timeout": "1e-9"} if body.pop("late", False) else {}
        return kind, labels, client.post("/predict", json=body, headers=headers)

    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(ask, range(REQUESTS)))
    assert {kind for kind, _, _ in answers} == set(kinds)
    for kind, labels, response in answers:
        if kind == "undecodable" and response.status_code != 500:
            problem_of(response, 422, "invalid_image")
        elif kind == "late":
            problem_of(response, 504, "deadline_exceeded")
        elif kind == "good" and (max_batch == 1 or response.status_code == 200):
            assert labels_of(response) == labels
        else:  # its batch failed: it is the faulty one, or stood in a batch with it
            problem_of(response, 500, "internal")
            assert kind == "faulty" or max_batch > 1
    assert labels_of(client.post("/predict", json={"instances": [b64(solid("green"))]})) == ["green"]


def test_overload_is_503_with_retry_after_before_decoding(serve: Serve) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hang(probabilities: FloatArray) -> FloatArray:
        entered.set()
        assert go_on.wait(20)
        return probabilities

    client = serve(faulty(hang), max_batch=1, queue_images=1)

    def wait() -> httpx2.Response:
        """Takes the only place in the queue, which the requests below may occupy for a moment."""
        while (response := client.post("/predict", json={"instances": [b64(solid("red"))]})).status_code == 503:
            pass
        return response

    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(client.post, "/predict", json={"instances": [FAULTY]})
        assert entered.wait(20)
        waiting = callers.submit(wait)
        undecodable = {"instances": [b64(b"no image")]}
        while (refused := client.post("/predict", json=undecodable, headers=SHORT)).status_code == 504:
            time.sleep(0.01)  # the other is not there yet
        problem_of(refused, 503, "overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        go_on.set()
        assert running.result(20).status_code == 200
        assert labels_of(waiting.result(20)) == ["red"]
    problem_of(client.post("/predict", json=undecodable), 422, "invalid_image")


def test_a_hanging_session_is_504_for_all_clients_and_recovers(serve: Serve) -> None:
    go_on = threading.Event()

    def hang(probabilities: FloatArray) -> FloatArray:
        assert go_on.wait(20)
        return probabilities

    client = serve(faulty(hang))
    with ThreadPoolExecutor(CALLERS) as callers:
        body = {"instances": [FAULTY]}
        late = [callers.submit(client.post, "/predict", json=body, headers=SHORT) for _ in range(CALLERS)]
        for answer in late:
            problem_of(answer.result(20), 504, "deadline_exceeded")
    go_on.set()
    assert labels_of(client.post("/predict", json={"instances": [b64(solid("green"))]})) == ["green"]
