"""The real program in a process of its own: how it starts, refuses to start, and stops."""

import http.client
import json
import os
import resource
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import HTTPError

import pytest

from service.backends.base import CUDA
from service.backends.onnx import OnnxRuntime
from service.settings import Device
from tests.service.conftest import FullPipe
from tests.support.bundles import solid
from tests.support.http_requests import b64
from tests.support.service_process import SERVICE, SOON, Service, alive, serving, start, until


def refusal(**settings: object) -> tuple[int, str]:
    process = start(None, **settings)
    output, error = process.communicate(timeout=SOON)
    assert output == ""
    assert "Traceback" not in error
    return process.returncode, error.splitlines()[-1]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_becomes_ready_answers_and_ends_on_sigterm(artifacts: Path, workers: int) -> None:
    with serving(artifacts=artifacts, workers=workers) as service:
        answer = service.get("/predict", {"instances": [b64(solid("green"))]})
        assert answer["predictions"][0]["label"] == "green"
        assert service.get("/livez") == {"status": "live"}
        service.wait_for_log("ready")
        assert len(service.workers()) == workers
        assert service.end() == 0
        log = "".join(service.log)
    assert "Traceback" not in log
    assert "models run on CPUExecutionProvider" in log
    assert "colours version 1 serves as fp32" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_sigint_and_sighup_end_the_service_as_sigterm_does(artifacts: Path, number: signal.Signals) -> None:
    with serving(artifacts=artifacts, workers=1) as service:
        service.process.send_signal(number)
        assert service.wait() == 0
        assert "Traceback" not in "".join(service.log)


def test_an_interrupt_during_the_imports_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "pydantic_settings.py").write_text("import time\nprint('imported', flush=True)\ntime.sleep(3600)\n")
    process = start({"PYTHONPATH": str(tmp_path)})
    try:
        assert process.stdout
        assert process.stdout.readline() == "imported\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=SOON)
        assert (process.returncode, error) == (130, "")
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_models_load_ends_the_service(artifacts: Path) -> None:
    process = start(artifacts=artifacts, port=0, device="cpu", workers=2)
    assert process.stderr
    assert "serving on" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=SOON)
    assert process.returncode == 0
    assert "Traceback" not in error


def test_ctrl_c_during_the_drain_ends_the_service_at_once(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=2, drain_delay=10 * SOON) as service:
        service.wait_for_log("ready")
        workers = service.workers()
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_log("SIGTERM: draining")
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 1
        assert not any(alive(worker) for worker in workers)
        log = "".join(service.log)
        assert "stopped by Ctrl-C during the drain" in log
        assert "drained: accepted" not in log


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_repeated_sigterm_or_sighup_loses_no_accepted_request(artifacts: Path, first: signal.Signals) -> None:
    body = json.dumps({"instances": [b64(solid("green"))]}).encode()
    with (
        serving(artifacts=artifacts, workers=1) as service,
        socket.create_connection(("127.0.0.1", service.port()), timeout=SOON) as connection,
    ):
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1])
        service.process.send_signal(first)
        service.wait_for_log("draining. Ctrl-C stops at once")
        for again in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            service.process.send_signal(again)
            service.wait_for_log(f"{again.name}: already draining")
        connection.sendall(body[-1:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert service.wait() == 0
        service.wait_for_log("drained: accepted")


def test_a_killed_supervisor_leaves_no_worker_and_no_file_behind(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with serving({"TMPDIR": str(folder)}, artifacts=artifacts, workers=2) as service:
        service.wait_for_log("ready")
        workers = service.workers()
        assert len(workers) == 2
        service.process.kill()
        until(lambda: not any(alive(worker) for worker in workers))
        service.wait()
        assert "the supervisor exited; draining" in "".join(service.log)
    assert list(folder.iterdir()) == []


def test_under_nohup_sighup_is_ignored(artifacts: Path) -> None:
    process = start(None, ("nohup", *SERVICE), artifacts=artifacts, port=0, device="cpu", workers=1)
    service = Service(process)
    try:
        service.wait_until_ready()
        process.send_signal(signal.SIGHUP)
        assert service.get("/livez") == {"status": "live"}
        assert service.end() == 0
        assert "SIGHUP" not in "".join(service.log)
    finally:
        process.kill()
        process.communicate()


def test_a_full_log_pipe_stops_neither_the_service_nor_its_end(artifacts: Path, full_pipe: FullPipe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start(
        None, SERVICE, full_pipe.writer, artifacts=artifacts, port=port, device="cpu", workers=1, access_log=True
    )
    try:
        service = Service(process, f"http://127.0.0.1:{port}")
        service.wait_until_ready()
        for _ in range(100):
            assert service.get("/livez") == {"status": "live"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_lack_of_file_descriptors_is_logged(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=1) as service, ExitStack() as connections:
        (worker,) = service.workers()
        limit = len(list(Path(f"/proc/{worker}/fd").iterdir())) + 5
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        for _ in range(10):
            connections.enter_context(socket.create_connection(("127.0.0.1", service.port())))
        service.wait_for_log(r"connections are refused: .*; raise the limit")


def test_an_idle_connection_is_kept_as_long_as_the_setting_and_the_response_say(artifacts: Path) -> None:
    with (
        serving(artifacts=artifacts, workers=1, keep_alive_seconds=1) as service,
        closing(http.client.HTTPConnection("127.0.0.1", service.port(), timeout=SOON)) as connection,
    ):
        connection.request("GET", "/livez")
        response = connection.getresponse()
        assert response.headers["keep-alive"] == "timeout=1"
        assert response.read()
        assert connection.sock.recv(1) == b""


def test_a_misspelt_variable_is_logged(artifacts: Path) -> None:
    with serving(artifacts=artifacts, prot=1) as service:
        assert any("unknown setting CONVOY_PROT" in line for line in service.log)


def test_a_bad_setting_is_one_sentence_and_status_2(artifacts: Path) -> None:
    status, message = refusal(artifacts=artifacts, port="http")
    assert status == 2
    assert message.startswith("convoy: CONVOY_PORT=http is not valid: it must be an integer.")


def test_a_missing_artifacts_folder_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    status, message = refusal(artifacts=tmp_path / "nowhere")
    assert status == 1
    assert message.startswith(f"convoy: The artifacts folder {tmp_path / 'nowhere'} does not exist")


def test_a_port_in_use_is_one_sentence_and_status_1(artifacts: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, message = refusal(artifacts=artifacts, port=port, device="cpu")
    assert status == 1
    assert message.startswith(f"convoy: Port {port} of 127.0.0.1 cannot be used")


@pytest.mark.parametrize("workers", [1, 2])
def test_requesting_cuda_without_a_gpu_is_one_sentence_and_status_1(artifacts: Path, workers: int) -> None:
    if OnnxRuntime(Device.AUTO, threads=1, spin=False).provider == CUDA:
        pytest.skip("CUDA works here")
    status, message = refusal(artifacts=artifacts, port=0, device="cuda", workers=workers)
    assert status == 1
    assert message.startswith("convoy: CONVOY_DEVICE=cuda, but CUDA cannot be used: ")


def test_without_any_model_the_service_answers_503_and_logs_the_reason(tmp_path: Path) -> None:
    process = start(artifacts=tmp_path, port=0, device="cpu", workers=2)
    try:
        service = Service(process)
        service.wait_for_log("ready: 2 worker")
        service.wait_for_log(f"no model is loaded from {tmp_path}: train one")
        with pytest.raises(HTTPError) as refused:
            service.get("/readyz")
        with refused.value as answer:
            assert answer.code == 503
    finally:
        process.kill()
        process.communicate()


def test_connections_are_refused_until_a_worker_is_ready(artifacts: Path) -> None:
    process = start(artifacts=artifacts, port=0, device="cpu", workers=1)
    try:
        assert process.stderr
        port = int(process.stderr.readline().split(" once ")[0].rsplit(":", 1)[1])
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.1", port, timeout=SOON).connect()
    finally:
        process.kill()
        process.communicate()


def test_metrics_count_a_killed_worker(artifacts: Path) -> None:
    with serving(artifacts=artifacts, workers=2) as service:
        service.wait_for_log("ready: 2 worker")
        assert 'convoy_worker_restarts_total{cause="killed"} 0.0' in service.metrics()
        victim = service.workers()[0]
        os.kill(victim, signal.SIGKILL)
        service.wait_for_log(f"worker process {victim} was ended by SIGKILL; starting a replacement")
        assert 'convoy_worker_restarts_total{cause="killed"} 1.0' in service.metrics()
