"""One desired state in several real workers: when a call to one of them returns, all have made the change."""

import asyncio
import http.client
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from service.errors import ModelRefusedError, NotReadyError
from service.repository.coordinator import Coordinator
from service.settings import Device, Reload, Settings
from service.workers import messages
from service.workers.listener import bind
from service.workers.pool import Pool
from tests.support.bundles import write_bundle
from tests.support.service_process import REPOSITORY, SOON


class Shared:
    """A pool of real workers and the coordinator that it serves."""

    def __init__(self, pool: Pool, coordinator: Coordinator, port: int) -> None:
        self.pool = pool
        self.coordinator = coordinator
        self._port = port

    async def in_each(self) -> list[list[tuple[int, str]]]:
        """Returns each worker's versions of `colours`. While one answers, the others are stopped."""
        return await asyncio.to_thread(self._in_each)

    def _in_each(self) -> list[list[tuple[int, str]]]:
        workers = self.pool.pids
        return [self._ask_alone(worker, workers) for worker in workers]

    def _ask_alone(self, worker: int, workers: Sequence[int]) -> list[tuple[int, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SOON)
        with stopped([other for other in workers if other != worker]), closing(connection):
            connection.request("GET", "/models")
            models = json.load(connection.getresponse())["models"]
        return [(model["version"], model["state"]) for model in models]


@contextmanager
def stopped(processes: Sequence[int]) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@asynccontextmanager
async def shared(artifacts: Path) -> AsyncIterator[Shared]:
    settings = Settings(artifacts=artifacts, device=Device.CPU, workers=2, reload=Reload.EXPLICIT)

    async def nothing(call: messages.Call) -> messages.Answer:
        raise NotReadyError(f"Unexpected call {call}.")

    listener: socket.socket
    with bind("127.0.0.1", 0) as listener:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        pool = Pool(settings, listener, environment, nothing)
        coordinator = Coordinator(settings, pool)
        try:
            await pool.start()
            await coordinator.start()
            yield Shared(pool, coordinator, listener.getsockname()[1])
        finally:
            await pool.kill()


@pytest.mark.timeout(90)
def test_a_load_or_unload_returns_once_every_worker_has_applied_it(artifacts: Path) -> None:
    async def test() -> None:
        async with shared(artifacts) as service:
            assert await service.in_each() == [[(1, "ready")]] * 2
            write_bundle(artifacts, version=2)
            await service.coordinator.load("colours", 2)
            assert await service.in_each() == [[(2, "ready")]] * 2
            await service.coordinator.unload("colours")
            assert {state for worker in await service.in_each() for _, state in worker} == {"unloaded"}
            await service.coordinator.load("colours")
            assert await service.in_each() == [[(2, "ready")]] * 2
            (write_bundle(artifacts, version=3) / "model.onnx").write_bytes(b"damaged")
            with pytest.raises(ModelRefusedError):
                await service.coordinator.load("colours")
            assert [(2, "ready") in worker for worker in await service.in_each()] == [True, True]

    asyncio.run(asyncio.wait_for(test(), SOON))


@pytest.mark.timeout(90)
def test_a_replacement_serves_what_the_others_do(artifacts: Path) -> None:
    async def test() -> None:
        async with shared(artifacts) as service:
            write_bundle(artifacts, version=2)
            await service.coordinator.load("colours", 1)  # a pin, which settings know nothing of
            write_bundle(artifacts, version=4)
            victim = service.pool.pids[0]
            os.kill(victim, signal.SIGKILL)
            while victim in service.pool.pids or len(service.pool.pids) < 2:
                await asyncio.sleep(0.02)
            assert await service.in_each() == [[(1, "ready")]] * 2

    asyncio.run(asyncio.wait_for(test(), SOON))
