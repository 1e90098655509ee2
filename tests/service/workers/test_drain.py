"""The shutdown of the real program under full load: client and service count the same requests."""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from schemas.problem import MEDIA_TYPE
from tests.support.bundles import solid
from tests.support.http_requests import b64
from tests.support.service_process import SOON, Service, serving, until

CLIENTS = 24
PREDICT = json.dumps({"instances": [b64(solid("green"))]})
CONTENT = {"Content-Type": "application/json"}


class Clients:
    """Clients that send one request after the other over a persistent connection, until it is refused."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SOON)
            assert not thread.is_alive(), "a request was never answered"

    @property
    def failed(self) -> int:
        return sum(count for what, count in self.counts.items() if what != "200 green")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        while True:
            try:
                connection.connect()
            except OSError:
                return  # nobody listens any more
            while self._one(connection):
                pass
            connection.close()

    def _one(self, connection: http.client.HTTPConnection) -> bool:
        """Sends a request, and returns whether the connection can carry another one."""
        try:
            connection.request("POST", "/predict", PREDICT, CONTENT)
            answer = connection.getresponse()
            label = json.loads(answer.read())["predictions"][0]["label"]
        except (OSError, http.client.HTTPException) as error:
            self._count(f"{type(error).__name__}")
            return False
        self._count(f"{answer.status} {label}")
        return not answer.will_close

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


@contextmanager
def under_load(service: Service) -> Iterator[Clients]:
    clients = Clients(service.port())
    clients.start()
    until(lambda: clients.counts["200 green"] > 200)
    yield clients
    clients.join()


@pytest.mark.parametrize("delay", [0, 0.3])
def test_under_full_load_every_accepted_request_is_answered(artifacts: Path, delay: float) -> None:
    with serving(artifacts=artifacts, workers=2, drain_delay=delay) as service:
        service.wait_for_log("ready: 2 worker")
        with under_load(service) as clients:
            service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        ended = service.wait_for_log(r"drained: accepted (\d+) requests, answered (\d+)")
    accepted, answered = int(ended[1]), int(ended[2])
    probe = 1  # serving() asked /readyz once
    assert answered == accepted
    assert clients.counts["200 green"] == accepted - probe
    assert "Traceback" not in "".join(service.log)


def test_during_the_drain_delay_readyz_is_503_and_connections_close_after_their_response(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=2, drain_delay=10 * SOON) as service:
        service.wait_for_log("ready: 2 worker")
        with closing(_connection(service)) as kept, closing(_connection(service)) as new:
            kept.request("GET", "/livez")
            before = kept.getresponse()
            assert before.read()
            assert not before.will_close
            service.process.send_signal(signal.SIGTERM)
            until(lambda: {_ready(service) for _ in range(10)} == {503})  # in both
            for connection in (kept, new):
                connection.request("POST", "/predict", PREDICT, CONTENT)
                answer = connection.getresponse()
                assert json.loads(answer.read())["predictions"][0]["label"] == "green"
                assert answer.getheader("Connection") == "close"


def test_a_request_that_has_not_arrived_at_the_end_of_the_grace_period_gets_503(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=1, drain_seconds=1) as service:
        connection = _connection(service)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(PREDICT)))
        connection.endheaders(PREDICT[:10].encode())
        service.get("/livez")  # the head of the other has been read by now
        service.process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (503, MEDIA_TYPE)
        assert json.loads(answer.read())["code"] == "not_ready"
        assert service.wait() == 0
        assert "Traceback" not in "".join(service.log)


def test_a_worker_killed_under_load_is_replaced_while_the_others_serve(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=2) as service:
        service.wait_for_log("ready: 2 worker")
        with under_load(service) as clients:
            victim = service.workers()[0]
            died = clients.counts["200 green"]
            os.kill(victim, signal.SIGKILL)
            found = service.wait_for_log(r"worker process (\d+) was ended by SIGKILL; starting a replacement")
            assert int(found[1]) == victim
            until(lambda: clients.counts["200 green"] > died + 200)
            until(lambda: len(service.workers()) == 2 and victim not in service.workers())
            failed = clients.failed  # later ones have met the end of the service
            service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert failed <= CLIENTS  # those that the killed one was busy with


def _ready(service: Service) -> int:
    with closing(_connection(service)) as connection:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        answer.read()
        return answer.status


def _connection(service: Service) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", service.port(), timeout=SOON)
