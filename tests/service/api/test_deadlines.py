import asyncio
import gc
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from schemas.image import Pixels
from service.api.app import create_app
from service.api.deadlines import request_context, within
from service.errors import DeadlineError, ModelRefusedError, NotReadyError
from service.settings import Device, Settings
from service.telemetry.counters import Report, Totals
from service.telemetry.exposition import render
from service.telemetry.metrics import Telemetry
from service.telemetry.timings import Timings
from tests.service.conftest import Serve
from tests.support.asgi_server import Address, answer_on, listening, request_bytes
from tests.support.bundles import solid
from tests.support.fake_runtimes import Gate, colours
from tests.support.http_requests import b64, labels_of, problem_of
from tests.support.model_controls import SlowControl

RED = {"instances": [b64(solid("red"))]}
HANGS = {"instances": [[[77]]]}


class Session(Gate):
    """The colours model, which hangs on an image of 77 until `go_on` is set, and records the images that it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.runtime = colours(self)

    def __call__(self, images: Pixels) -> None:
        self.seen += [int(image.max()) for image in images]
        super().__call__(images)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session()
    yield session
    session.go_on.set()


@pytest.mark.parametrize("said", ["0", "-1", "nan", "inf", "soon", "1s", "", "1_0", "+1", "1."])
@pytest.mark.parametrize("path", ["/predict", "/evaluate"])
def test_an_invalid_timeout_header_is_422(client: TestClient, path: str, said: str) -> None:
    body = RED | ({"labels": ["red"]} if path == "/evaluate" else {})
    response = client.post(path, json=body, headers={"X-Request-Timeout": said})
    assert "X-Request-Timeout in the header" in problem_of(response, 422, "invalid_request").detail


def test_a_long_enough_timeout_changes_nothing(client: TestClient) -> None:
    assert labels_of(client.post("/predict", json=RED, headers={"X-Request-Timeout": "1e1"})) == ["red"]


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"X-Request-Timeout": "0.1"}),
        ({"request_timeout": 0.1, "evaluate_timeout": 0.1}, {}),
        ({"request_timeout": 0.1, "evaluate_timeout": 0.1}, {"X-Request-Timeout": "1000"}),
    ],
    ids=["the caller's", "the service's", "the lesser"],
)
@pytest.mark.parametrize("path", ["/predict", "/evaluate"])
def test_a_hanging_session_is_504_at_the_deadline(
    serve: Serve, session: Session, path: str, settings: dict[str, float], headers: dict[str, str]
) -> None:
    with_labels = {"labels": ["red"]} if path == "/evaluate" else {}
    client = serve(session.runtime, **settings)
    for body in (HANGS, RED):  # the second waits behind the first
        response = client.post(path, json=body | with_labels, headers=headers)
        assert "deadline passed before colours answered" in problem_of(response, 504, "deadline_exceeded").detail
    session.go_on.set()


def test_predictions_and_evaluations_have_separate_timeouts(serve: Serve, session: Session) -> None:
    client = serve(session.runtime, request_timeout=0.1, evaluate_timeout=100)
    problem_of(client.post("/predict", json=HANGS), 504, "deadline_exceeded")
    session.go_on.set()
    assert client.post("/evaluate", json=RED | {"labels": ["red"]}).status_code == 200


def test_a_late_request_is_never_run(serve: Serve, session: Session) -> None:
    client = serve(session.runtime)
    problem_of(client.post("/predict", json=HANGS, headers={"X-Request-Timeout": "0.3"}), 504, "deadline_exceeded")
    dropped = {"instances": [[[5]]]}
    problem_of(client.post("/predict", json=dropped, headers={"X-Request-Timeout": "0.3"}), 504, "deadline_exceeded")
    session.go_on.set()
    assert labels_of(client.post("/predict", json=RED)) == ["red"]
    assert 5 not in session.seen


@pytest.fixture
def address(artifacts: Path, session: Session) -> Iterator[Address]:
    """Runs one image at a time, and queues one more."""
    settings = Settings(artifacts=artifacts, device=Device.CPU, max_batch=1, queue_images=1)
    with listening(create_app(settings, session.runtime)) as address:
        yield address
        session.go_on.set()


def post(address: Address, body: object, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{address.url}/predict", json=body, headers=headers, timeout=30)


def test_a_disconnected_request_leaves_the_queue_and_is_not_run(address: Address, session: Session) -> None:
    def has_room() -> bool:
        """Whether this request entered the queue, where its deadline passes, or was refused."""
        response = post(address, RED, **{"X-Request-Timeout": "0.1"})
        return "before colours answered" in response.text

    with ThreadPoolExecutor(1) as caller, address.connect() as waiting:
        running = caller.submit(post, address, HANGS)
        assert session.entered.wait(20)
        waiting.sendall(request_bytes("/predict", json.dumps({"instances": [[[5]]]}).encode()))
        while has_room():
            pass
        waiting.close()
        while not has_room():
            pass
        session.go_on.set()
        assert running.result(20).status_code == 200
    assert labels_of(post(address, RED)) == ["red"]
    assert 5 not in session.seen


def test_a_full_queue_is_answered_before_the_body_arrives(address: Address, session: Session) -> None:
    with ThreadPoolExecutor(2) as callers, address.connect() as connection:
        running = callers.submit(post, address, HANGS)
        assert session.entered.wait(20)
        waiting = callers.submit(post, address, RED)
        while 'images_waiting{model="colours"} 1.0' not in httpx2.get(f"{address.url}/metrics").text:
            pass
        connection.sendall(request_bytes("/predict", b"{", content_length="1000"))
        head, _, _ = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: " in head.lower()
        assert 'overloaded_total{model="colours",reason="queue"} 1.0' in httpx2.get(f"{address.url}/metrics").text
        session.go_on.set()
        assert [running.result(20).status_code, waiting.result(20).status_code] == [200, 200]


def test_the_deadline_counts_from_arrival_and_limits_a_slow_body(address: Address) -> None:
    with address.connect() as connection:
        connection.sendall(request_bytes("/predict", b'{"inst', content_length="1000", x_request_timeout="0.05"))
        head, _, body = answer_on(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504")
    assert b"connection: close" in head.lower()
    assert "before the request's body had arrived" in json.loads(body)["detail"]


def test_every_504_is_counted_once_under_its_model(address: Address) -> None:
    def counted() -> dict[str, float]:
        return {
            sample.labels["model"]: sample.value
            for family in text_string_to_metric_families(httpx2.get(f"{address.url}/metrics").text)
            for sample in family.samples
            if sample.name == "convoy_deadline_missed_total"
        }

    assert counted() == {"": 0, "colours": 0}
    for path in ("/models/colours/predict", "/evaluate", "/v2/models/colours/infer"):
        with address.connect() as connection:
            connection.sendall(request_bytes(path, b"{", content_length="1000", x_request_timeout="0.05"))
            assert answer_on(connection).startswith(b"HTTP/1.1 504")
    assert counted() == {"": 3, "colours": 0}
    for path, labels in (("/predict", {}), ("/evaluate", {"labels": ["red"]})):
        late = httpx2.post(f"{address.url}{path}", json=HANGS | labels, headers={"X-Request-Timeout": "0.1"})
        assert late.status_code == 504
    assert counted() == {"": 3, "colours": 2}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/colours/load"),
        ("POST", "/v2/repository/models/colours/unload"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/colours/stats"),
        ("GET", "/v2/models/colours/versions/1/stats"),
    ],
)
def test_a_late_load_unload_or_statistics_request_is_not_counted_as_a_body_that_did_not_arrive(
    artifacts: Path, method: str, path: str
) -> None:
    telemetry = Telemetry("CPUExecutionProvider", gather=never)
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU), telemetry=telemetry)
    with TestClient(app, "http://127.0.0.1", client=("127.0.0.1", 50000)) as client:
        app.state.control = SlowControl()
        assert client.request(method, path, headers={"X-Request-Timeout": "0.05"}).status_code == 504
    counted = Totals()
    counted.add(telemetry.take())
    assert 'convoy_deadline_missed_total{model=""} 0.0' in render(counted.report(), "")[0].decode()


async def never() -> Report:
    """Stands for workers that do not answer."""
    await asyncio.Event().wait()
    raise AssertionError


def test_the_context_of_a_request_has_the_timings_in_its_state() -> None:
    timings = Timings()
    request = Request({"type": "http", "headers": [(b"x-request-timeout", b"9")], "state": {"timings": timings}})
    before = time.monotonic()
    call = request_context(request, 5)
    assert call.timings is timings
    assert before + 5 <= call.deadline <= time.monotonic() + 5


@pytest.mark.parametrize(
    ("error", "level", "said"),
    [
        (None, logging.INFO, "finished after its client had disconnected or timed out"),
        (ModelRefusedError("It is broken."), logging.WARNING, "timed out: It is broken."),
        (
            OSError("no disk"),
            logging.ERROR,
            "unexpected error in background work after its client had disconnected or timed out",
        ),
    ],
)
@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_abandoned_work_logs_its_outcome_in_one_line(
    caplog: pytest.LogCaptureFixture, how: str, error: Exception | None, level: int, said: str
) -> None:
    async def run() -> list[dict[str, object]]:
        unseen: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        let = asyncio.Event()

        async def work() -> None:
            await let.wait()
            if error:
                raise error

        asked = asyncio.create_task(within(time.monotonic() + (0.01 if how == "late" else 1000), work(), "It is late."))
        await asyncio.wait([asked], timeout=0.05 if how == "cancelled" else None)
        asked.cancel()
        with pytest.raises(DeadlineError if how == "late" else asyncio.CancelledError):
            await asked
        let.set()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        return unseen

    with caplog.at_level(logging.INFO):
        assert asyncio.run(run()) == []
    # Spans of other tests may be exported meanwhile, and fail.
    (record,) = (record for record in caplog.records if record.name.startswith("service."))
    assert record.levelno == level
    assert record.getMessage().endswith(said)


def test_work_that_ends_in_time_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def work(error: Exception | None) -> int:
        if error:
            raise error
        return 3

    with caplog.at_level(logging.INFO):
        assert asyncio.run(within(time.monotonic() + 1000, work(None), "It is late.")) == 3
        for error in (NotReadyError("Not yet."), TimeoutError()):
            with pytest.raises(type(error)):
                asyncio.run(within(time.monotonic() + 1000, work(error), "It is late."))
    assert caplog.records == []
