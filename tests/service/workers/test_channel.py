import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import ForbiddenError, ModelNotFoundError, ModelRefusedError, NotReadyError, ServiceError
from service.repository.plan import Refused, VersionRef
from service.telemetry.counters import Report
from service.workers import messages
from service.workers.channel import Channel, Handler
from service.workers.messages import Done, Failed, GetMetrics, Load, Metrics, Unload
from service.workers.worker import SupervisorControl
from tests.support.service_process import SOON

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SOON)]


async def done(_: messages.Call) -> messages.Answer:
    return Done()


@asynccontextmanager
async def channels(left: Handler, right: Handler = done) -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    ends = await Channel.over(one, left), await Channel.over(other, right)
    try:
        yield ends
    finally:
        for end in ends:
            await end.close()


async def test_each_call_gets_its_own_answer_in_any_order() -> None:
    gates = {name: asyncio.Event() for name in "abc"}

    async def in_their_own_time(call: messages.Call) -> messages.Answer:
        assert isinstance(call, Unload)
        await gates[call.name].wait()
        return Failed(error=ForbiddenError.__name__, message=call.name)

    async with channels(done, in_their_own_time) as (near, _):
        calls = {name: asyncio.create_task(near.call(Unload(name=name), Done)) for name in gates}
        for name in "cab":
            gates[name].set()
            with pytest.raises(ForbiddenError, match=name):
                await calls[name]


async def test_both_ends_may_call_at_once_and_within_an_answer() -> None:
    async def asks_back(_: messages.Call) -> messages.Answer:
        return await ends[1].call(GetMetrics(), Done)

    async with channels(done, asks_back) as ends:
        assert await ends[0].call(GetMetrics(), Done) == Done()


@pytest.mark.parametrize("error", [ModelNotFoundError, ModelRefusedError, ForbiddenError, NotReadyError])
async def test_a_service_error_is_raised_at_the_other_end(error: type[ServiceError]) -> None:
    async def raises(_: messages.Call) -> messages.Answer:
        raise error("This is the reason.")

    async with channels(done, raises) as (near, _):
        with pytest.raises(error, match=r"^This is the reason\.$"):
            await near.call(GetMetrics(), Done)


async def test_an_unexpected_error_fails_only_its_call(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_once(call: messages.Call) -> messages.Answer:
        if isinstance(call, Unload):
            raise KeyError(call.name)
        return Done()

    async with channels(done, fails_once) as (near, _):
        with pytest.raises(RuntimeError, match="Unexpected error"):
            await near.call(Unload(name="a"), Done)
        assert await near.call(GetMetrics(), Done) == Done()
    assert "KeyError: 'a'" in caplog.text


async def test_a_call_fails_when_the_other_end_is_gone() -> None:
    async def never(_: messages.Call) -> messages.Answer:
        await asyncio.Event().wait()
        return Done()

    async with channels(done, never) as (near, far):
        waiting = asyncio.create_task(near.call(GetMetrics(), Done))
        await asyncio.sleep(0)
        await far.close()
        with pytest.raises(NotReadyError):
            await waiting
        with pytest.raises(NotReadyError):
            await near.call(GetMetrics(), Done)


async def test_a_message_of_a_megabyte_arrives() -> None:
    async def echoes(call: messages.Call) -> messages.Answer:
        assert isinstance(call, Load)
        ref = VersionRef(name=call.name, version=1, path=Path())
        return messages.Verdict(refused=Refused(ref=ref, reason="It is bad."))

    async with channels(done, echoes) as (near, _):
        name = "x" * 2**20
        refused = (await near.call(Load(name=name, version=None), messages.Verdict)).refused
        assert refused is not None
        assert refused.ref.name == name


async def test_a_worker_forwards_loads_unloads_and_metrics_to_its_supervisor() -> None:
    asked: list[messages.Call] = []

    async def supervisor(call: messages.Call) -> messages.Answer:
        asked.append(call)
        return Metrics.of(REPORT) if isinstance(call, GetMetrics) else Done()

    async with channels(done, supervisor) as (near, _):
        control = SupervisorControl(near)
        await control.load("colours", 3)
        await control.unload("colours")
        assert await control.metrics() == REPORT
    assert asked == [Load(name="colours", version=3), Unload(name="colours"), GetMetrics()]


REPORT = Report({("convoy_requests", "/predict", "200"): 7}, {("convoy_images_waiting", "colours"): 2})
