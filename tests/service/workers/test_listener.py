"""CONVOY_UDS: the real service on a Unix socket."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from convoy_client import Client
from service import healthcheck
from service.errors import StartError
from service.settings import Settings, exposure_warning
from service.workers.listener import address, bind_unix, bound
from tests.support.bundles import solid, write_bundle
from tests.support.service_process import REPOSITORY, SOON, Service, environment, start

MODE = 0o660


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """A short path: a Unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="convoy-") as folder:
        yield Path(folder) / "convoy.sock"


@pytest.fixture
def free() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="convoy-") as folder:
        yield Path(folder) / "convoy.sock"


@contextmanager
def serving_on(path: Path, artifacts: Path) -> Iterator[Service]:
    process = start(None, uds=path, device="cpu", workers=2, artifacts=artifacts)
    service = Service(process, "http://localhost")
    try:
        service.wait_for_log("ready: 2 worker processes")
        yield service
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def service(path: Path, artifacts: Path) -> Iterator[Service]:
    with serving_on(path, artifacts) as running:
        yield running


@pytest.fixture
def client(service: Service, path: Path) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=SOON) as client:
        yield client


def test_answers_on_the_socket(client: httpx.Client, path: Path) -> None:
    assert client.get("/readyz").status_code == 200
    with Client("http://localhost", http=client) as convoy:
        assert convoy.predict(solid("green")).predictions[0].label == "green"


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc", "/openapi.json", "/metrics"])
def test_pages_and_metrics_are_there_too(client: httpx.Client, page: str) -> None:
    assert client.get(page).status_code == 200


def test_only_owner_and_group_may_connect(service: Service, path: Path) -> None:
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == MODE


def test_no_port_is_opened(service: Service) -> None:
    assert any("serving on unix:" in line for line in service.log)
    assert not any("http://" in line for line in service.log)


def test_admin_calls_need_a_key(client: httpx.Client) -> None:
    """A proxy may forward the requests of other machines."""
    response = client.post("/v2/repository/models/colours/unload")
    assert response.status_code == 403
    assert "Unix socket" in response.json()["error"]


def test_the_health_check_uses_the_socket(service: Service, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert healthcheck.main({"CONVOY_UDS": str(path)}) == 0
    assert healthcheck.main({"CONVOY_UDS": f"{path}.none"}) == 1
    assert f"{path}.none does not answer: " in capsys.readouterr().err
    command = [sys.executable, "-m", "service.healthcheck"]
    assert subprocess.run(command, cwd=REPOSITORY, env=environment(uds=path), check=False).returncode == 0


def test_a_second_service_may_not_take_the_socket(service: Service, path: Path, artifacts: Path) -> None:
    second = start(None, uds=path, device="cpu", artifacts=artifacts)
    _, error = second.communicate(timeout=SOON)
    assert second.returncode == 1
    assert f"Another program listens on CONVOY_UDS={path}; choose another path" in error
    assert path.is_socket()


def test_the_socket_goes_with_the_service_and_a_stale_one_is_replaced(free: Path, artifacts: Path) -> None:
    with ExitStack() as stack:
        killed = stack.enter_context(serving_on(free, artifacts))
        killed.process.kill()
        killed.wait()
    assert free.is_socket()
    with serving_on(free, artifacts) as service:
        healthy = healthcheck.main({"CONVOY_UDS": str(free)})
        assert service.end() == 0
        assert "drained: accepted 1 requests, answered 1" in "".join(service.log)
    assert healthy == 0
    assert not free.exists()


def test_a_file_at_the_path_is_kept(free: Path) -> None:
    free.write_text("precious")
    with pytest.raises(StartError, match="exists and is not a socket"):
        bind_unix(free)
    assert free.read_text() == "precious"


def test_a_link_to_a_socket_is_not_followed(free: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        target = free.with_name("other.sock")
        other.bind(str(target))
        free.symlink_to(target)
        with pytest.raises(StartError, match="not a socket"):
            bind_unix(free)
        assert target.is_socket()


@pytest.mark.parametrize(("name", "reason"), [("x" * 120, "too long"), ("none/convoy.sock", "No such file")])
def test_a_path_that_cannot_be_used_is_one_sentence(free: Path, name: str, reason: str) -> None:
    path = free.parent / name
    with pytest.raises(StartError, match=rf"^CONVOY_UDS={path} cannot be used: .*{reason}.*\.$"):
        bind_unix(path)


def test_a_new_services_socket_survives_the_end_of_the_old_one(free: Path) -> None:
    with bound(Settings(uds=free)) as listener:
        assert address(listener) == f"unix:{free}"
        listener.close()  # as in the drain: then the new file may get the inode of the old one
        bind_unix(free).close()
    assert free.is_socket()


def test_the_mask_of_the_process_is_kept(free: Path) -> None:
    before = os.umask(0o022)
    try:
        bind_unix(free).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_socket_is_not_exposed_to_other_machines() -> None:
    assert exposure_warning(Settings(uds=Path("/run/convoy.sock"), host="0.0.0.0")) is None  # noqa: S104 - not used
