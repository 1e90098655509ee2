"""Both clients behind one interface, over the real service or over a fake one."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy_client import AsyncClient, Client
from tests.support.bundles import write_bundle
from tests.support.service_process import Service, serving

KEY = "open-sesame"
Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class FakeClock:
    """A clock that only sleeping advances."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Caller:
    """Calls one of the two clients by the name of the method, and returns the result."""

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async
        self.clock = FakeClock()

    def ask(self, url: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **more: Any) -> Any:
        """options are of the client, and more of the call."""
        if self._is_async:
            return asyncio.run(self._ask(AsyncClient(url, **options or {}), method, *arguments, **more))
        with Client(url, **options or {}) as client:
            return getattr(client, method)(*arguments, **more)

    def ask_fake(self, answer: Answer, method: str, *arguments: Any, url: str = "http://fake", **more: Any) -> Any:
        """answer is the service. Time passes only in pauses."""
        transport = httpx.MockTransport(answer)
        http = httpx.AsyncClient(transport=transport) if self._is_async else httpx.Client(transport=transport)
        sleep = self.clock.sleep_async if self._is_async else self.clock.sleep
        options = {"http": http, "clock": self.clock, "sleep": sleep} | more.pop("options", {})
        return self.ask(url, method, *arguments, options=options, **more)

    async def _ask(self, client: AsyncClient, method: str, *arguments: Any, **more: Any) -> Any:
        async with client:
            return await getattr(client, method)(*arguments, **more)


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    return Caller(is_async=request.param == "async")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service with the model `colours`."""
    artifacts: Path = tmp_path_factory.mktemp("artifacts")
    write_bundle(artifacts, with_maps=True)
    write_bundle(artifacts, name="unexplained")
    with serving(artifacts=artifacts, workers=1, api_keys=KEY) as running:
        yield running


@pytest.fixture
def unused_url() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def ask(caller: Caller, service: Service) -> Callable[..., Any]:
    """Calls a method over the real service."""
    return partial(caller.ask, service.url, options={"key": KEY})
