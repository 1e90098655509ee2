from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.healthcheck import DEFAULT_PORT, address, main
from service.settings import Settings
from tests.support.http_server import QuietHandler, http_server


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Runs a server that answers /readyz with this status and other paths with 404. Yields its port."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name in the base class
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"No model serves.")

    with http_server(Handler) as url:
        yield url.rpartition(":")[2]


def test_succeeds_when_the_service_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200) as port:
        assert main({"CONVOY_PORT": port}) == 0
    assert capsys.readouterr().err == ""


def test_fails_with_the_reason_when_no_model_serves(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(503) as port:
        assert main({"CONVOY_PORT": port}) == 1
    assert capsys.readouterr().err == f"127.0.0.1:{port} is not ready: 503 No model serves.\n"


def test_fails_with_the_address_when_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200) as port:
        pass
    assert main({"CONVOY_PORT": port}) == 1
    assert f"127.0.0.1:{port} does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("127.0.0.1", DEFAULT_PORT)),
        ({"CONVOY_HOST": "", "CONVOY_PORT": ""}, ("127.0.0.1", DEFAULT_PORT)),
        ({"CONVOY_HOST": "0.0.0.0", "CONVOY_PORT": "9000"}, ("0.0.0.0", 9000)),  # noqa: S104 - only connects
        ({"CONVOY_PORT": "tcp://10.0.0.7:80"}, ("127.0.0.1", DEFAULT_PORT)),
    ],
)
def test_calls_the_address_on_which_the_service_listens(environment: dict[str, str], expected: tuple[str, int]) -> None:
    assert address(environment) == expected


def test_the_default_port_is_that_of_the_settings() -> None:
    assert Settings.model_fields["port"].default == DEFAULT_PORT
