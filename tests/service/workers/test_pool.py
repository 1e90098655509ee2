import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.errors import DeviceError, NotReadyError, StartError
from service.repository.plan import Plan, PlannedModel, VersionRef
from service.settings import Settings
from service.telemetry.counters import RESTARTS
from service.workers import messages
from service.workers.messages import Drained
from service.workers.pool import LONGEST_PAUSE, Pool, pause_before
from service.workers.worker_process import Cause, WorkerProcess
from tests.support.fake_worker import BAD, DEAD, DEADLY
from tests.support.service_process import SOON, alive

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SOON)]

FAKE = "tests.support.fake_worker"


def version(number: int) -> VersionRef:
    return VersionRef(name="colours", version=number, path=Path("nowhere"))


PLAN = Plan(models=(PlannedModel(name="colours", serving=(version(1),)),))


async def unexpected(call: messages.Call) -> messages.Answer:
    raise NotReadyError(f"Unexpected call {call}.")


class Fakes:
    """The folder with the instructions for the fake workers, and with the records of what they did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shall(self, what: str) -> None:
        (self.folder / what).touch()

    def shall_no_more(self, what: str) -> None:
        (self.folder / what).unlink()

    def got(self, call: str) -> set[int]:
        return {int(path.name.rsplit("-", 1)[1]) for path in self.folder.glob(f"{call}-*")}

    def alive(self) -> set[int]:
        return {pid for pid in self.got("start") if alive(pid)}

    @asynccontextmanager
    async def pool(self, workers: int = 2, **options: Any) -> AsyncIterator[Pool]:
        with socket.socket() as listener:
            environment = {**os.environ, "FAKE_WORKER": str(self.folder)}
            pool = Pool(Settings(workers=workers), listener, environment, unexpected, module=FAKE, **options)
            try:
                yield pool
            finally:
                await pool.kill()
                assert self.alive() == set()


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


async def restarts(pool: Pool, cause: Cause) -> float:
    return (await pool.metrics()).counts[RESTARTS, cause]


async def until_restarted(pool: Pool, cause: Cause, times: int = 1) -> None:
    while await restarts(pool, cause) != times:
        await asyncio.sleep(0.02)


async def test_every_worker_gets_each_call(fakes: Fakes) -> None:
    async with fakes.pool(workers=3) as pool:
        await pool.start()
        assert await pool.prepare(version(1)) is None
        await pool.serve(Plan())
        assert fakes.got("prepare") == fakes.got("serve") == fakes.alive()
        assert set(pool.pids) == fakes.alive()
        assert len(pool.pids) == 3


async def test_a_version_that_one_worker_refuses_is_refused(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        refused = await pool.prepare(version(BAD))
        assert refused is not None
        assert refused.reason == "It is bad."


async def test_metrics_are_the_sum_over_all_workers_dead_ones_included(fakes: Fakes) -> None:
    async with fakes.pool(workers=3) as pool:
        await pool.start()
        first = (await pool.metrics()).counts["asked",]
        assert first >= 3
        await pool.serve(PLAN)
        for victim in fakes.alive():
            os.kill(victim, signal.SIGKILL)
        await until_restarted(pool, Cause.KILLED, 3)
        assert (await pool.metrics()).counts["asked",] >= first


async def test_a_drain_adds_up_the_requests_and_ends_every_process(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(Plan())
        assert await pool.drain() == Drained(accepted=6, answered=4)
        assert fakes.alive() == set()


async def test_auto_is_one_worker_on_a_gpu(fakes: Fakes) -> None:
    fakes.shall("gpu")
    with socket.socket() as listener:
        environment = {**os.environ, "FAKE_WORKER": str(fakes.folder)}
        pool = Pool(Settings(), listener, environment, unexpected, module=FAKE)
        await pool.start()
        assert len(fakes.alive()) == 1
        await pool.kill()


async def test_an_error_at_the_start_is_raised_unchanged(fakes: Fakes) -> None:
    fakes.shall("no-device")
    async with fakes.pool() as pool:
        with pytest.raises(DeviceError, match=r"^There is no device\.$"):
            await pool.start()


async def test_a_worker_that_dies_before_it_has_started_fails_the_start(fakes: Fakes) -> None:
    fakes.shall("die-at-start")
    async with fakes.pool() as pool:
        with pytest.raises(StartError, match=rf"ended with status {DEAD} during start-up"):
            await pool.start()


async def test_a_dead_worker_is_replaced_by_one_that_has_the_plan(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(Plan())
        before = fakes.alive()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(fakes.got("serve")) == 3)
        assert fakes.alive() == fakes.got("serve") - {victim}
        assert f"worker process {victim} was ended by SIGKILL; starting a replacement" in caplog.text
        await until(lambda: len(pool.pids) == 2)


async def test_a_call_returns_if_every_worker_dies(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        fakes.shall("die-at-serve")
        await pool.serve(Plan())
        assert pool.pids == []


async def test_a_version_that_kills_its_process_costs_one_worker_and_is_refused(fakes: Fakes) -> None:
    async with fakes.pool(workers=3) as pool:
        await pool.start()
        await pool.serve(Plan())
        before = fakes.alive()
        refused = await pool.prepare(version(DEADLY))
        assert refused is not None
        assert refused.reason.startswith("Loading this version ended every worker process")
        await until(lambda: len(before & fakes.alive()) == 2)
        await until(lambda: len(pool.pids) == 3 and len(fakes.alive()) == 3)
        assert len(before & fakes.alive()) == 2
        assert await pool.prepare(version(2)) is None


async def test_a_cancelled_spawn_leaves_no_socket_open() -> None:
    with socket.socket() as listener:
        before = open_files()
        for turns in range(4):  # of the event loop, before it gives up
            starting = asyncio.create_task(WorkerProcess.spawn(FAKE, listener, dict(os.environ), unexpected))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
        await until(lambda: open_files() == before)


async def test_without_any_worker_a_version_waits_for_a_replacement(fakes: Fakes) -> None:
    async with fakes.pool(workers=1) as pool:
        await pool.start()
        await pool.serve(Plan())
        assert await pool.prepare(version(DEADLY)) is not None
        await until(lambda: not fakes.alive())
        assert await pool.prepare(version(2)) is None
        assert fakes.got("prepare") & fakes.alive()


async def test_a_worker_that_dies_again_and_again_is_replaced_after_growing_pauses(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    async with fakes.pool(workers=1) as pool:
        await pool.start()
        await pool.serve(Plan())
        fakes.shall("die-at-serve")
        os.kill(min(fakes.alive()), signal.SIGKILL)
        await until(lambda: "exit 2 in a row" in caplog.text)
        assert re.search(rf"worker process \d+ ended with status {DEAD}: exit 2 in a row", caplog.text)
        assert "Restarting in 1 seconds" in caplog.text
        fakes.shall_no_more("die-at-serve")
        await until(lambda: len(fakes.got("serve")) == 2)


def test_the_pauses_double_up_to_a_bound() -> None:
    assert [pause_before(deaths) for deaths in (1, 2, 3, 4, 5)] == [0, 1, 2, 4, 8]
    assert pause_before(10_000) == LONGEST_PAUSE


async def test_replaces_a_worker_whose_event_loop_hangs_without_a_call(fakes: Fakes) -> None:
    async with fakes.pool(hang_seconds=0.4) as pool:
        await pool.start()
        await pool.serve(PLAN)
        hung = min(fakes.alive())
        fakes.shall(f"hang-at-get_metrics-{hung}")
        await until(lambda: len(pool.pids) == 2 and hung not in pool.pids)


async def test_a_long_load_does_not_count_as_a_hang(fakes: Fakes) -> None:
    async with fakes.pool(workers=1, hang_seconds=0.4) as pool:
        await pool.start()
        await pool.serve(PLAN)
        (worker,) = fakes.alive()
        fakes.shall(f"hang-at-prepare-{worker}")
        loading = asyncio.create_task(pool.prepare(version(2)))
        reports = (await pool.metrics()).counts["asked",]
        while (await pool.metrics()).counts["asked",] < reports + 200:  # far longer than the limit
            await asyncio.sleep(0.01)
        assert fakes.alive() == {worker}
        assert not loading.done()
        loading.cancel()


async def test_a_lone_replacement_prepares_each_version_in_a_call_of_its_own(fakes: Fakes) -> None:
    async with fakes.pool(workers=1) as pool:
        await pool.start()
        await pool.serve(PLAN)
        (first,) = fakes.alive()
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(pool.pids) == 1 and first not in pool.pids)
        assert fakes.got("prepare") == set(pool.pids)


async def replacement_that_loads(fakes: Fakes) -> int:
    """Kills a worker; returns the process ID of its replacement, which loads until its file is removed."""
    before = fakes.got("start")
    fakes.shall("hang-at-start")
    os.kill(min(fakes.alive()), signal.SIGKILL)
    await until(lambda: len(fakes.got("start")) > len(before))
    (replacement,) = fakes.got("start") - before
    fakes.shall(f"hang-at-prepare-{replacement}")
    fakes.shall_no_more("hang-at-start")
    await until(lambda: replacement in fakes.got("prepare"))
    return replacement


async def test_a_replacement_that_is_still_loading_gets_no_plan_that_would_make_it_listen(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(PLAN)
        replacement = await replacement_that_loads(fakes)
        await pool.serve(PLAN)
        assert len(pool.pids) == 1
        fakes.shall("refuse")
        fakes.shall_no_more(f"hang-at-prepare-{replacement}")
        await until_restarted(pool, Cause.UNFIT)
        assert replacement not in fakes.got("serve") | fakes.alive()


async def test_a_replacement_also_loads_what_the_others_prepare_meanwhile(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(PLAN)
        replacement = await replacement_that_loads(fakes)
        assert await pool.prepare(version(2)) is None
        fakes.shall_no_more(f"hang-at-prepare-{replacement}")
        await until(lambda: len(pool.pids) == 2)
        assert replacement in fakes.got("prepare2")


async def test_a_replacement_that_cannot_serve_what_the_others_do_takes_no_connections(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(PLAN)
        first, second = sorted(fakes.alive())
        fakes.shall("refuse")
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(fakes.got("start")) > 3)
        assert fakes.got("serve") == {first, second}
        fakes.shall_no_more("refuse")
        await until(lambda: len(pool.pids) == 2)


async def test_each_death_is_counted_by_its_cause(fakes: Fakes) -> None:
    async with fakes.pool(hang_seconds=0.4) as pool:
        await pool.start()
        await pool.serve(PLAN)
        assert [await restarts(pool, cause) for cause in Cause] == [0] * len(Cause)
        os.kill(min(fakes.alive()), signal.SIGKILL)
        await until_restarted(pool, Cause.KILLED)
        await until(lambda: len(pool.pids) == 2)
        hung = min(fakes.alive())
        fakes.shall(f"hang-at-get_metrics-{hung}")
        await until_restarted(pool, Cause.UNRESPONSIVE)
        assert await restarts(pool, Cause.KILLED) == 1


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [("refuse", Cause.UNFIT), ("no-device", Cause.NOT_STARTED), ("die-at-start", Cause.NOT_STARTED)],
)
async def test_a_replacement_that_fails_counts_as_a_restart(fakes: Fakes, trouble: str, cause: Cause) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(PLAN)
        fakes.shall(trouble)
        os.kill(min(fakes.alive()), signal.SIGKILL)
        await until_restarted(pool, cause)
        assert await restarts(pool, Cause.KILLED) == 1


async def test_a_worker_that_ends_by_itself_counts_as_exited(fakes: Fakes) -> None:
    async with fakes.pool() as pool:
        await pool.start()
        await pool.serve(PLAN)
        fakes.shall("die-at-get_metrics")
        await until_restarted(pool, Cause.EXITED, 2)
