"""Client and AsyncClient: the same methods and behaviour. Only sending and waiting differ."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial, wraps
from threading import Thread
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from convoy_client import calls
from convoy_client.calls import Call
from convoy_client.exchange import Exchange, Outcome
from convoy_client.options import Options, Retries

DEFAULT_URL = "http://127.0.0.1:8000"
_RETRIES = Retries()

P = ParamSpec("P")
T = TypeVar("T")
Build = Callable[Concatenate[Options, P], Call[T]]


def _sync(build: Build[P, T]) -> Callable[Concatenate["Client", P], T]:
    @wraps(build)
    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client.send(build(client.options, *args, **kwargs))

    return method


def _async(build: Build[P, T]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = await asyncio.to_thread(build, client.options, *args, **kwargs)  # it reads and encodes files
        return await client.send(call)

    return method


class Client:
    """Calls a service. Threads may share a client; close it, or use it in a `with` statement.

    url may have a path, for a service behind a proxy. key is an API key. timeout is the deadline of every call in
    seconds, unless the call has its own. http is an httpx client of the caller's, for certificates, proxies or a Unix
    socket; the caller closes it. clock and sleep are parameters for tests.
    """

    predict = _sync(calls.predict)
    explain = _sync(calls.explain)
    evaluate = _sync(calls.evaluate)
    models = _sync(calls.models)

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float | None = None,
        retries: Retries = _RETRIES,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.options = Options(url, key, timeout, retries, clock)
        self._http = http or httpx.Client()
        self._owns_http = http is None
        self._sleep = sleep

    def send(self, call: Call[T]) -> T:
        exchange = Exchange(call, self.options, self._http.build_request)
        while True:
            outcome: Outcome
            request = exchange.request()
            try:
                outcome = _within(exchange.left(), partial(self._http.send, request))
            except httpx.RequestError as error:
                outcome = error
            except TimeoutError:
                outcome = httpx.ReadTimeout("The deadline passed", request=request)
            pause = exchange.pause(outcome)
            if pause is None:
                return exchange.result(outcome)
            self._sleep(pause)

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncClient:
    """Client for asyncio: await its methods, and use it in an `async with` statement."""

    predict = _async(calls.predict)
    explain = _async(calls.explain)
    evaluate = _async(calls.evaluate)
    models = _async(calls.models)

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        timeout: float | None = None,
        retries: Retries = _RETRIES,
        http: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.options = Options(url, key, timeout, retries, clock)
        self._http = http or httpx.AsyncClient()
        self._owns_http = http is None
        self._sleep = sleep

    async def send(self, call: Call[T]) -> T:
        exchange = Exchange(call, self.options, self._http.build_request)
        while True:
            outcome: Outcome
            request = exchange.request()
            try:
                async with asyncio.timeout(exchange.left()):
                    outcome = await self._http.send(request)
            except httpx.RequestError as error:
                outcome = error
            except TimeoutError:
                outcome = httpx.ReadTimeout("The deadline passed", request=request)
            pause = exchange.pause(outcome)
            if pause is None:
                return exchange.result(outcome)
            await self._sleep(pause)

    async def close(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


def _within(seconds: float, function: Callable[[], T]) -> T:
    """Returns what the function returns. Raises TimeoutError after the seconds; its thread then ends by itself.

    httpx limits each read and write, so a response that trickles in could take any time.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return future.result(max(seconds, 0))
