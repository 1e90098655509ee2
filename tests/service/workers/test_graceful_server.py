"""The shutdown of one server in this process, and the response that each client gets."""

import asyncio
import errno
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.bundle import FloatArray
from schemas.image import Pixels
from service.api.app import create_app
from service.api.middleware import RequestMiddleware
from service.api.routes.health import Drain
from service.backends.fake import FakeRuntime, FakeSession
from service.backends.onnx import OnnxRuntime
from service.settings import Device, Settings
from service.telemetry.metrics import Telemetry
from service.workers.graceful_server import ACCEPTED_PER_TICK, Gate, Server
from tests.support.bundles import SPEC, colour_model, solid
from tests.support.http_requests import b64
from tests.support.service_process import SOON

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SOON)]

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
POST_WITHOUT_BODY = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


class Plain:
    """Answers 200 and closes only when the test allows it. Reads the body of a POST first."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await self.may_close.wait()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        self.asked.set()
        while scope["method"] == "POST" and (await receive()).get("more_body"):
            pass
        await self.let.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Served:
    """Runs an application behind the gate on a free port, as a worker does. end() shuts it down as a drain does."""

    def __init__(self, app: ASGIApp, seconds: int) -> None:
        self.drain = Drain()
        self.gate = Gate(app, self.drain)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        config = uvicorn.Config(self.gate, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=seconds)
        self.server = Server(config, self.listener, self.gate)

    async def start(self) -> None:
        config = self.server.config
        config.load()
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup([self.listener])

    async def end(self) -> None:
        self.drain.begun = True
        await self.server.shutdown()

    @asynccontextmanager
    async def asking(self, request: bytes = GET) -> AsyncIterator["Asked"]:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(request)
        try:
            yield Asked(reader, writer)
        finally:
            writer.close()


class Asked:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def head(self) -> int:
        """The status of an answer that has no body."""
        return int((await self._reader.readuntil(b"\r\n\r\n")).split()[1])

    def again(self, request: bytes = GET) -> None:
        self._writer.write(request)

    async def is_closed(self) -> bool:
        return await self._reader.read() == b""


@asynccontextmanager
async def serving(app: ASGIApp, seconds: int = SOON) -> AsyncIterator[Served]:
    served = Served(app, seconds)
    await served.start()
    yield served
    assert served.server.server_state.connections == set()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_a_busy_loop_accepts_many_connections_at_once() -> None:
    async with serving(Plain()) as served:
        with ExitStack() as clients:
            for _ in range(ACCEPTED_PER_TICK):
                clients.enter_context(socket.create_connection(served.address))
            await served.server.on_tick(1)
            accepted = len(served.server.server_state.connections)
        await served.end()
    assert accepted == ACCEPTED_PER_TICK


async def test_a_request_in_progress_is_answered_and_its_connection_closed() -> None:
    app = Plain()
    async with serving(app) as served, served.asking() as client:
        await app.asked.wait()
        ending = asyncio.create_task(served.end())
        await asyncio.sleep(0)
        app.let.set()
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", b"ok")
        await ending
        assert (served.gate.accepted, served.gate.answered) == (1, 1)


async def test_a_connection_that_waits_to_be_accepted_is_answered() -> None:
    app = Plain()
    app.let.set()
    async with serving(app) as served:
        clients = [socket.create_connection(served.address) for _ in range(5)]  # the loop stands still meanwhile
        for client in clients:
            client.sendall(GET)
        await served.end()
        for client in clients:
            client.settimeout(SOON)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            client.close()
        assert served.gate.answered == 5


async def test_a_client_that_connects_after_the_last_accepted_one_is_refused_and_not_reset() -> None:
    app, results = Plain(), []
    async with serving(app) as served:

        class Protocol(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                with socket.socket() as late:
                    results.append(late.connect_ex(served.address))

        served.server.config.http_protocol_class = Protocol
        with socket.create_connection(served.address):
            await served.end()
    assert results == [errno.ECONNREFUSED]


async def test_a_request_that_arrives_on_an_open_connection_during_the_drain_is_answered() -> None:
    app = Plain()
    app.let.set()
    async with serving(app) as served, served.asking() as client:
        _, headers, _ = await client.answer()
        assert "connection" not in headers
        ending = asyncio.create_task(served.end())
        await asyncio.sleep(0.05)
        client.again()
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        await ending


async def test_an_idle_connection_does_not_delay_the_end() -> None:
    app = Plain()
    app.let.set()
    async with serving(app, seconds=10 * SOON) as served, served.asking() as client, served.asking(b"") as silent:
        await client.answer()
        await served.end()
        assert await client.is_closed()
        assert await silent.is_closed()


def answered_by(app: ASGIApp, telemetry: Telemetry | None = None) -> RequestMiddleware:
    return RequestMiddleware(app, telemetry or Telemetry("CPU"), access_log=False)


async def test_a_request_that_hangs_gets_503_at_the_end_of_the_grace_period() -> None:
    app, telemetry = Plain(), Telemetry("CPU")
    async with serving(answered_by(app, telemetry), seconds=0) as served, served.asking() as client:
        await app.asked.wait()
        await served.end()
        status, headers, body = await client.answer()
        assert (status, headers["content-type"], headers["connection"]) == (
            503,
            "application/problem+json",
            "close",
        )
        assert headers["x-request-id"]
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["code"] == "not_ready"
        assert served.gate.answered == 1
        assert telemetry.take().counts["convoy_requests", "unmatched", "503"] == 1


async def test_a_get_in_progress_may_still_finish_while_the_application_closes() -> None:
    app = Plain()
    async with serving(answered_by(app), seconds=0) as served, served.asking() as client:
        async with served.asking(POST_WITHOUT_BODY) as incomplete:
            app.may_close.clear()
            while served.gate.accepted < 2:
                await asyncio.sleep(0.01)
            ending = asyncio.create_task(served.end())
            assert (await incomplete.answer())[0] == 503  # the grace period is over
        app.let.set()
        assert (await client.answer())[0] == 200
        app.may_close.set()
        await ending


@pytest.mark.parametrize("path", ["/predict", "/v1/models/colours:predict", "/v2/models/colours/infer"])
async def test_a_body_that_has_not_arrived_is_not_waited_for_while_the_application_closes(
    artifacts: Path, path: str
) -> None:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    request = POST_WITHOUT_BODY.replace(b"/", path.encode(), 1)
    async with serving(app, seconds=0) as served, served.asking(request) as client:
        while not served.gate.accepted:
            await asyncio.sleep(0.01)
        ending = asyncio.create_task(served.end())
        status, headers, body = await client.answer()
        assert (status, headers["connection"], headers["x-content-type-options"]) == (503, "close", "nosniff")
        assert headers["x-request-id"]
        problem = json.loads(body)
        assert problem.keys() == {"error"} if path.startswith("/v") else problem["code"] == "not_ready"
        await ending


async def test_a_queued_request_gets_503_at_the_end_of_the_grace_period(artifacts: Path) -> None:
    let, inside = threading.Event(), threading.Event()

    def answer(images: Pixels) -> FloatArray:
        if images.any():  # not the warm-up
            inside.set()
            let.wait(SOON)
        return real(images)

    real = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model()).run
    settings = Settings(artifacts=artifacts, max_batch=1)
    let.set()
    app = create_app(settings, FakeRuntime(lambda _: FakeSession(SPEC.shape, 3, answer)))
    async with serving(app, seconds=0) as served:
        let.clear()
        inside.clear()
        async with served.asking(_predict()) as running, served.asking(b"") as waiting:
            await asyncio.to_thread(inside.wait, SOON)
            waiting.again(_predict())
            while served.gate.accepted < 2:
                await asyncio.sleep(0.01)
            ending = asyncio.create_task(served.end())
            status, headers, body = await waiting.answer()
            assert (status, headers["connection"]) == (503, "close")
            assert json.loads(body)["code"] == "not_ready"
            let.set()
            assert (await running.answer())[0] == 200
            await ending


async def test_a_head_request_is_complete_without_a_body(artifacts: Path) -> None:
    app = create_app(Settings(artifacts=artifacts, device=Device.CPU))
    async with serving(app) as served:
        for path in ("/static/docs/swagger-ui-bundle.js", "/models/colours/report/curves.png"):
            async with served.asking(f"HEAD {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()) as client:
                assert await client.head() == 200
        await served.end()
        assert (served.gate.accepted, served.gate.answered) == (2, 2)


def _predict() -> bytes:
    body = json.dumps({"instances": [b64(solid("green"))]}).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
