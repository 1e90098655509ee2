"""The worker processes: started, watched, replaced when they end or hang, called all together, and drained."""

import asyncio
import logging
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import reduce
from operator import add

from service.errors import NotReadyError, StartError
from service.repository.plan import Plan, Refused, VersionRef
from service.settings import Settings, readable, worker_count
from service.telemetry.counters import RESTARTS, Report, Totals
from service.workers import messages
from service.workers.channel import Handler
from service.workers.worker_process import Cause, Death, WorkerProcess

WORKER = "service.workers.worker"
START_SECONDS = 300.0  # from the start of the process until its device is known
HANG_SECONDS = 30.0  # timeout of a ping. Loads and slow models run in other threads
COLLECT_SECONDS = 1.0  # between reports of a worker, and the longest wait for them
STABLE_SECONDS = 30.0  # a worker that served for so long did not end because of its start
LONGEST_PAUSE = 30.0
END_SECONDS = 20.0  # beyond the grace period, until a draining worker is killed

logger = logging.getLogger(__name__)


class Pool:
    """The Workers of service/repository/plan.py as processes. handle answers the calls of the workers."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        environment: Mapping[str, str],
        handle: Handler,
        *,
        module: str = WORKER,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._environment = environment
        self._handle = handle
        self._module = module
        self._hang_seconds = hang_seconds
        self._processes: set[WorkerProcess] = set()
        self._members: list[WorkerProcess] = []  # they have all that serves: only they get calls and connections
        self._occupied = asyncio.Event()  # there are members
        self._replacers: list[asyncio.Task[None]] = []
        self._watchers: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._collecting: set[asyncio.Task[None]] = set()
        self._plan: Plan | None = None
        self._prepared: set[VersionRef] = set()  # since the last plan, for the next one
        self._totals = Totals()
        for cause in Cause:
            self._totals.count(RESTARTS, cause, increment=0)  # a counter that first appears as 1 shows no rise

    @property
    def pids(self) -> list[int]:
        """The process IDs of the workers that take requests."""
        return [worker.process.pid for worker in self._members if worker.serving]

    @property
    def plan(self) -> Plan | None:
        """What every worker serves; None before the first plan."""
        return self._plan

    async def start(self) -> None:
        """Starts the first worker, which finds out the device, and then the others. Raises StartError."""
        first, started = await self._spawn()
        logger.info("models run on %s: %s", started.provider, started.reason)
        count = worker_count(self._settings.workers, gpu=started.gpu)
        others = await asyncio.gather(*(self._spawn() for _ in range(count - 1)), return_exceptions=True)
        workers = [first]
        for other in others:
            if isinstance(other, BaseException):
                raise other
            workers.append(other[0])
        for worker in workers:
            self._join(worker)
        self._replacers = [asyncio.create_task(self._replace_at_exit(worker)) for worker in workers]

    async def prepare(self, ref: VersionRef) -> Refused | None:
        """Loads the version in every worker. While workers serve, one tries it first: it may kill the process."""
        call = messages.Prepare(ref=ref)
        while not self._members:
            await self._occupied.wait()
        called: set[WorkerProcess] = set()
        while group := [worker for worker in self._members if worker not in called]:  # one may have joined meanwhile
            if self._plan is not None and not called:
                del group[1:]
            called.update(group)
            verdicts = await asyncio.gather(*(_verdict(worker, call) for worker in group))
            answered = [verdict for verdict in verdicts if verdict is not None]
            if not answered:
                reason = (
                    "Loading this version ended every worker process that tried. The log has the exit status. Load the "
                    "version to try again."
                )
                return Refused(ref=ref, reason=reason)
            if refused := next((verdict.refused for verdict in answered if verdict.refused), None):
                return refused
        self._prepared.add(ref)
        return None

    async def serve(self, plan: Plan) -> None:
        """Serves the plan in every worker. If a worker dies, its replacement starts with this plan.

        Raises StartError if a worker cannot serve the first plan.
        """
        first, self._plan = self._plan is None, plan
        self._prepared.clear()
        errors = await asyncio.gather(*(self._apply(worker, plan) for worker in self._members))
        if first and (error := next(filter(None, errors), None)):
            raise error

    async def metrics(self) -> Report:
        """Returns the totals of all workers. A worker that answers late adds its report to later totals."""
        reports = [asyncio.create_task(self._collect(worker)) for worker in self._members]
        self._collecting.update(reports)
        if reports:
            await asyncio.wait(reports, timeout=COLLECT_SECONDS)
        self._collecting = {report for report in self._collecting if not report.done()}
        return self._totals.report()

    async def drain(self) -> messages.Drained:
        """Drains and ends every worker. Returns how many requests they accepted and answered."""
        await _cancel(self._replacers)
        self._listener.close()
        # Workers that are no members go first: a connection that they hold the port for would never be answered.
        for worker in self._processes.difference(self._members):
            worker.kill()
            await worker.process.wait()
        reports = []
        for serving in (False, True):
            workers = [worker for worker in self._members if worker.serving is serving]
            reports += await asyncio.gather(*(self._drain(worker) for worker in workers))
        return reduce(add, reports, messages.Drained())

    async def kill(self) -> None:
        """Kills every process. It may be called at any time, and again."""
        await _cancel(self._replacers)
        for worker in self._processes:
            worker.kill()
        for worker in list(self._processes):
            await self._remove_at_exit(worker)
        await _cancel(self._collecting)

    async def _spawn(self) -> tuple[WorkerProcess, messages.Started]:
        """Returns a worker that has started and is no member yet. Raises StartError."""
        try:
            worker = await WorkerProcess.spawn(self._module, self._listener, self._environment, self._handle)
        except OSError as error:
            raise StartError(f"No worker process can be started: {error.strerror}.") from error
        self._processes.add(worker)
        try:
            async with asyncio.timeout(START_SECONDS):
                started = await worker.channel.call(messages.Start(settings=readable(self._settings)), messages.Started)
        except NotReadyError as error:
            death = await self._remove_at_exit(worker)
            raise StartError(f"A {death.description} during start-up; see its log lines above.") from error
        except Exception as error:
            worker.kill()
            await self._remove_at_exit(worker)
            if isinstance(error, StartError):
                raise
            why = f"It took over {START_SECONDS:.0f} seconds." if isinstance(error, TimeoutError) else error
            raise StartError(f"A worker process cannot start: {why} See its log lines above.") from error
        self._watchers[worker] = asyncio.create_task(self._watch(worker))
        return worker, started

    def _join(self, worker: WorkerProcess) -> None:
        self._members.append(worker)
        self._occupied.set()

    async def _replace_at_exit(self, worker: WorkerProcess) -> None:
        """Replaces the worker, and then each replacement, when it ends. Waits longer if they end soon after a start."""
        clock = asyncio.get_running_loop().time
        since, deaths = clock(), 0
        death = await self._remove_at_exit(worker)
        while True:
            deaths = deaths + 1 if clock() - since < STABLE_SECONDS else 1
            self._totals.count(RESTARTS, death.cause)
            _log_death(death, deaths)
            await asyncio.sleep(pause_before(deaths))
            since = clock()
            try:
                worker, _ = await self._spawn()
            except StartError as error:
                death = Death(Cause.NOT_STARTED, f"a worker process could not start: {error}")
                continue
            if refusal := await self._catch_up(worker):
                worker.kill()
                await self._remove_at_exit(worker)
                death = Death(Cause.UNFIT, f"the replacement worker refused a version that the others serve: {refusal}")
                continue
            if not worker.channel.closed:
                self._join(worker)  # without an await since _catch_up: no plan can come in between
                if self._plan is not None:
                    await self._apply(worker, self._plan)
            death = await self._remove_at_exit(worker)

    async def _catch_up(self, worker: WorkerProcess) -> str | None:
        """Loads in a new worker all versions that the others serve, or have prepared to serve next.

        Returns the first refusal. If no other worker serves, refusals are ignored.
        """
        loaded: set[VersionRef] = set()
        while refs := {*(self._plan.serving if self._plan else ()), *self._prepared} - loaded:
            for ref in refs:
                verdict = await _verdict(worker, messages.Prepare(ref=ref))
                if verdict is None:
                    return None  # it died
                if verdict.refused and self.pids:
                    return f"{ref}: {verdict.refused.reason}"
                loaded.add(ref)
        return None

    async def _watch(self, worker: WorkerProcess) -> None:
        """Collects the worker's counts every second, and kills the worker if its event loop hangs."""
        while not worker.channel.closed:
            report = asyncio.create_task(self._collect(worker))
            for _ in range(2):  # after a pause of the whole machine, the first time limit says nothing about the worker
                done, _ = await asyncio.wait({report}, timeout=self._hang_seconds / 2)
                if done:
                    break
            else:
                logger.error("%s has not answered for %.0f seconds; killing it", worker, self._hang_seconds)
                worker.kill(Cause.UNRESPONSIVE)
            await report
            await asyncio.sleep(COLLECT_SECONDS)

    async def _collect(self, worker: WorkerProcess) -> None:
        """Adds the worker's new counts to the totals. If it dies first, they are lost."""
        with suppress(NotReadyError):
            self._totals.add((await worker.channel.call(messages.GetMetrics(), messages.Metrics)).report, worker)

    async def _remove_at_exit(self, worker: WorkerProcess) -> Death:
        """Waits for the end of the worker and removes it."""
        await worker.channel.wait_closed()
        if worker in self._members:
            self._members.remove(worker)
        if not self._members:
            self._occupied.clear()
        if watcher := self._watchers.pop(worker, None):
            await _cancel([watcher])
        death = await worker.death()
        self._processes.discard(worker)
        self._totals.remove(worker)
        return death

    async def _apply(self, worker: WorkerProcess, plan: Plan) -> Exception | None:
        """A worker that fails is killed, because it would serve something else. Returns the error."""
        try:
            await worker.channel.call(messages.Serve(plan=plan), messages.Done)
            worker.serving = True
        except NotReadyError:
            return None  # it died, and will be replaced
        except Exception as error:
            logger.exception("%s failed to apply the plan; killing it", worker)
            worker.kill(Cause.UNFIT)
            return error
        return None

    async def _drain(self, worker: WorkerProcess) -> messages.Drained:
        """Drains the worker, and closes the channel, which ends it."""
        drained = messages.Drained()
        try:
            async with asyncio.timeout(self._settings.drain_delay + self._settings.drain_seconds + END_SECONDS):
                drained = await worker.channel.call(messages.Drain(), messages.Drained)
                await self._collect(worker)  # for a scrape of a worker that still drains
                await worker.channel.close()
                await worker.process.wait()
        except TimeoutError:
            logger.error("%s did not exit in time; killing it", worker)  # noqa: TRY400 - no traceback
        except NotReadyError:
            logger.error("%s while it drained", (await self._remove_at_exit(worker)).description)  # noqa: TRY400 - no traceback
        worker.kill()
        return drained


def pause_before(deaths: int) -> float:
    """Returns the seconds to wait before the next try after that many deaths in a row: 0, 1, 2, 4..."""
    return min(LONGEST_PAUSE, 2.0 ** min(deaths - 2, 10)) if deaths > 1 else 0.0


async def _verdict(worker: WorkerProcess, call: messages.Prepare) -> messages.Verdict | None:
    """Returns None if the worker died, of this or of something else. A worker gives up a load after its time limit."""
    try:
        return await worker.channel.call(call, messages.Verdict)
    except NotReadyError:
        return None


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _log_death(death: Death, deaths: int) -> None:
    if deaths == 1:
        logger.error("%s; starting a replacement", death.description)
        return
    logger.error(
        "%s: exit %d in a row within %.0f seconds of a start. See its log lines above. Restarting in %.0f seconds",
        *(death.description, deaths, STABLE_SECONDS, pause_before(deaths)),
    )
