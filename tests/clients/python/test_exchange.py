"""Retries, deadlines and errors, over a fake service and a fake clock."""

import json
from typing import Any

import httpx
import pytest

import convoy_client
from convoy_client import (
    ConvoyError,
    DeadlineExceededError,
    InvalidImageError,
    InvalidInputError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelRefusedError,
    Retries,
    ServiceFailedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from tests.clients.python.conftest import Caller
from tests.support.service_process import REPOSITORY

MODELS: dict[str, Any] = {
    "default": None,
    "provider": "CPUExecutionProvider",
    "provider_reason": "It was asked for.",
    "models": [],
}
MODEL = {"name": "m", "version": 2, "state": "warming", "current": True}
CODES = json.loads((REPOSITORY / "openapi.json").read_text())["components"]["schemas"]["ProblemCode"]["enum"]
OK = httpx.Response(200, json=MODELS)
NO_JITTER = {"retries": Retries(first_pause=0)}


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "Title", "status": status, "detail": "What to do.", "code": code}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


class Script:
    """A service that gives these answers one after the other, the last of them for ever."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def test_waits_for_the_seconds_of_retry_after(caller: Caller) -> None:
    service = Script(problem(503, "overloaded", retry_after="7"), OK)
    assert caller.ask_fake(service, "models", options=NO_JITTER).provider == "CPUExecutionProvider"
    assert caller.clock.pauses == [7]


def test_waits_until_the_date_of_retry_after_by_the_clock_of_the_service(caller: Caller) -> None:
    dates = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry_after": "Wed, 21 Oct 2015 07:28:09 GMT"}
    service = Script(problem(503, "not_ready", **dates), OK)
    caller.ask_fake(service, "models", options=NO_JITTER)
    assert caller.clock.pauses == [9]


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-3", "21 Oct 2015", ""])
def test_a_past_date_or_an_unreadable_value_adds_no_pause(caller: Caller, value: str) -> None:
    service = Script(problem(503, "overloaded", retry_after=value), OK)
    caller.ask_fake(service, "models", options=NO_JITTER)
    assert caller.clock.pauses == [0]


def test_retry_after_is_capped(caller: Caller) -> None:
    service = Script(problem(503, "overloaded", retry_after="86400"), OK)
    caller.ask_fake(service, "models", options={"retries": Retries(first_pause=0, longest_pause=11)})
    assert caller.clock.pauses == [11]


def test_without_retry_after_the_limit_of_the_pause_doubles(caller: Caller) -> None:
    service = Script(problem(503, "not_ready"))
    with pytest.raises(UnavailableError, match=r"What to do\.") as raised:
        caller.ask_fake(service, "models", options={"retries": Retries(attempts=5, first_pause=1, longest_pause=3)})
    assert len(service.requests) == 5
    assert len(caller.clock.pauses) == 4
    assert all(0 <= pause <= limit for pause, limit in zip(caller.clock.pauses, (1, 2, 3, 3), strict=True))
    assert len(set(caller.clock.pauses)) == 4
    assert raised.value.retry_after is None


def test_no_pause_ends_after_the_deadline(caller: Caller) -> None:
    service = Script(problem(503, "overloaded", retry_after="7"))
    with pytest.raises(UnavailableError) as raised:
        caller.ask_fake(service, "models", timeout=6.9)
    assert raised.value.retry_after == 7
    assert caller.clock.pauses == []


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("Connection refused"),
        httpx.ConnectTimeout("timed out"),
        httpx.ReadError("Connection reset by peer"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.Response(502, text="Bad Gateway"),
        httpx.Response(429, headers={"Retry-After": "0"}),
    ],
)
def test_a_failure_on_the_way_is_repeated_with_the_whole_body(
    caller: Caller, failure: Exception | httpx.Response
) -> None:
    answer = {"model": "m", "version": 1, "predictions": []}
    service = Script(failure, failure, httpx.Response(200, json=answer))
    assert caller.ask_fake(service, "predict", [b"one", b"two"]).model == "m"
    first, *others = service.requests
    assert b"one" in first.content
    assert b"two" in first.content
    assert len(others) == 2
    assert {len(request.content) for request in others} == {len(first.content)}


@pytest.mark.parametrize(
    "answer", [problem(503, "model_refused", retry_after="1"), problem(422, "invalid_image"), problem(500, "internal")]
)
def test_what_cannot_succeed_later_is_sent_once(caller: Caller, answer: httpx.Response) -> None:
    service = Script(answer)
    with pytest.raises(ConvoyError):
        caller.ask_fake(service, "models")
    assert len(service.requests) == 1


def test_one_attempt_means_no_retry(caller: Caller) -> None:
    service = Script(httpx.ConnectError("Connection refused"), OK)
    with pytest.raises(UnavailableError, match="fake is unreachable: Connection refused"):
        caller.ask_fake(service, "models", options={"retries": Retries(attempts=1)})


def test_each_attempt_sends_the_time_that_is_left(caller: Caller) -> None:
    service = Script(problem(503, "overloaded", retry_after="4"), OK)
    caller.ask_fake(service, "models", timeout=10, options=NO_JITTER)
    assert [request.headers["x-request-timeout"] for request in service.requests] == ["10.000", "6.000"]
    assert [request.extensions["timeout"]["read"] for request in service.requests] == [10, 6]


def test_the_timeout_of_the_client_is_that_of_its_calls(caller: Caller) -> None:
    service = Script(OK)
    caller.ask_fake(service, "models", options={"timeout": 3})
    assert service.requests[0].headers["x-request-timeout"] == "3.000"


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("timed out"), problem(504, "deadline_exceeded")])
def test_a_missed_deadline_is_an_error_of_its_own(caller: Caller, failure: Exception | httpx.Response) -> None:
    service = Script(failure)
    with pytest.raises(DeadlineExceededError):
        caller.ask_fake(service, "models")
    assert len(service.requests) == 1


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_no_positive_number_is_refused(caller: Caller, timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        caller.ask_fake(Script(OK), "models", timeout=timeout)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "http://[::1", "http://host/?a=b"])
def test_a_url_that_no_path_can_follow_is_refused(caller: Caller, url: str) -> None:
    with pytest.raises(InvalidInputError, match="url"):
        caller.ask_fake(Script(OK), "models", url=url)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(caller: Caller, key: str) -> None:
    with pytest.raises(InvalidInputError, match="key") as raised:
        caller.ask_fake(Script(OK), "models", options={"key": key})
    assert key not in str(raised.value)


@pytest.mark.parametrize("options", [{"attempts": 0}, {"first_pause": -1}, {"longest_pause": float("nan")}])
def test_retries_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"attempts must be 1 or more"):
        Retries(**options)


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_a_model_whose_name_would_change_the_path_is_refused(caller: Caller, model: str) -> None:
    with pytest.raises(InvalidInputError, match="give the name of a model"):
        caller.ask_fake(Script(OK), "predict", b"x", model=model)


EXPECTED: dict[str, tuple[int, type[ConvoyError]]] = {
    "invalid_request": (422, InvalidRequestError),
    "invalid_image": (422, InvalidImageError),
    "model_required": (400, InvalidRequestError),
    "model_not_found": (404, ModelNotFoundError),
    "model_refused": (503, ModelRefusedError),
    "not_found": (404, InvalidRequestError),
    "conflict": (409, InvalidRequestError),
    "method_not_allowed": (405, InvalidRequestError),
    "unsupported_media_type": (415, InvalidRequestError),
    "body_too_large": (413, TooLargeError),
    "too_many_images": (413, TooLargeError),
    "not_implemented": (501, ServiceFailedError),
    "overloaded": (503, UnavailableError),
    "deadline_exceeded": (504, DeadlineExceededError),
    "unauthorized": (401, UnauthorizedError),
    "forbidden": (403, UnauthorizedError),
    "not_ready": (503, UnavailableError),
    "internal": (500, ServiceFailedError),
}


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_service_has_its_error(caller: Caller, code: str) -> None:
    status, expected = EXPECTED[code]
    service = Script(problem(status, code, x_request_id="abc"))
    with pytest.raises(ConvoyError, match=r"^What to do\.$") as raised:
        caller.ask_fake(service, "models", options={"retries": Retries(attempts=1)})
    assert type(raised.value) is expected
    assert raised.value.problem
    assert raised.value.problem.code == code
    assert raised.value.request_id == "abc"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, UnauthorizedError), (404, InvalidRequestError), (503, UnavailableError), (500, ServiceFailedError)],
)
def test_an_error_of_a_proxy_is_known_by_its_status(caller: Caller, status: int, expected: type[ConvoyError]) -> None:
    service = Script(httpx.Response(status, html="<h1>nginx</h1>"))
    with pytest.raises(ConvoyError, match=rf"GET /models \(text/html.* has the status {status}") as raised:
        caller.ask_fake(service, "models", options=NO_JITTER)
    assert type(raised.value) is expected
    assert raised.value.problem is None


def test_fields_and_codes_of_a_newer_service_are_accepted(caller: Caller) -> None:
    answer = MODELS | {"models": [MODEL | {"mood": {"good": [1]}}], "uptime": 3}
    (summary,) = caller.ask_fake(Script(httpx.Response(200, json=answer)), "models").models
    assert (summary.state, summary.version) == ("warming", 2)
    with pytest.raises(InvalidRequestError, match="What to do"):
        caller.ask_fake(Script(problem(418, "teapot")), "models")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(200, html="<h1>Welcome</h1>"), "text/html"),
        (httpx.Response(200, json=[]), "ModelList is list, not an object"),
        (httpx.Response(200, json={}), "ModelList lacks default, models, provider, provider_reason"),
        (httpx.Response(200, json=MODELS | {"models": 3}), "a list is int"),
        (httpx.Response(200, json=MODELS | {"provider": 7}), "a str is int"),
        (httpx.Response(200, json=MODELS | {"models": [MODEL | {"version": True}]}), "a int is bool"),
        (httpx.Response(301, headers={"Location": "/elsewhere"}), "status 301"),
        (httpx.Response(200, text="[" * 100_000), "recursion"),
        (httpx.Response(500, text="[" * 100_000), "status 500"),
        (httpx.DecodingError("incorrect header check"), "fake cannot be read: incorrect header check"),
    ],
)
def test_a_response_that_is_not_convoys_is_an_error(
    caller: Caller, answer: httpx.Response | Exception, reason: str
) -> None:
    with pytest.raises(ServiceFailedError, match=reason):
        caller.ask_fake(Script(answer), "models")


def test_whole_numbers_are_read_as_floats_where_they_are(caller: Caller) -> None:
    prediction = {"label": "a", "index": 0, "probability": 1, "top": []}
    answer = {"model": "m", "version": 1, "predictions": [prediction]}
    (one,) = caller.ask_fake(Script(httpx.Response(200, json=answer)), "predict", b"x").predictions
    assert isinstance(one.probability, float)


def test_explain_asks_for_maps_and_returns_them(caller: Caller) -> None:
    explanation = {
        "label": "7",
        "index": 7,
        "height": 1,
        "width": 2,
        "map": [[0.5, -1]],
        "overlay_png": "iVBORw0KGgo=",
    }
    prediction = {"label": "7", "index": 7, "probability": 0.9, "top": [], "explanation": explanation}
    answer = {"model": "m", "version": 1, "predictions": [prediction]}
    service = Script(httpx.Response(200, json=answer))
    (one,) = caller.ask_fake(service, "explain", b"x", model="m", top_k=2).predictions
    assert dict(service.requests[0].url.params) == {"top_k": "2", "explain": "true"}
    assert one.explanation.map == ((0.5, -1.0),)


def test_a_path_in_the_url_goes_before_those_of_the_calls(caller: Caller) -> None:
    service = Script(OK)
    caller.ask_fake(service, "models", url="https://example.org/convoy/")
    assert str(service.requests[0].url) == "https://example.org/convoy/models"


def test_the_key_is_sent_and_never_shown(caller: Caller) -> None:
    service = Script(OK)
    caller.ask_fake(service, "models", options={"key": "secret"})
    assert service.requests[0].headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(convoy_client.Client(key="secret").options)
