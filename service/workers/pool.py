"""The worker processes: started, replaced when they die, asked all together, ended."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import reduce
from operator import add

from service.errors import NotReadyError, StartError
from service.repository.plan import LOAD_SECONDS, Plan, Refused, VersionRef
from service.settings import Settings, readable, worker_count
from service.telemetry.counters import RESTARTS, Report, Totals
from service.workers import messages
from service.workers.channel import A, Handler
from service.workers.worker_process import Cause, Death, Member

WORKER = "service.workers.worker"
ANSWER_SECONDS = 120.0  # beyond the time limits of loads; all else is quick
STABLE_SECONDS = 30.0  # who served so long did not die of its start
LONGEST_PAUSE = 30.0
COLLECT_SECONDS = 1.0  # what the workers have to report what they counted; a later report counts next time
END_SECONDS = 20.0  # what a worker may take beyond its time to drain; then it is killed

logger = logging.getLogger(__name__)


class Pool:
    """Workers, as service/repository/plan.py means it, over processes. handle answers what a worker calls."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        environment: Mapping[str, str],
        handle: Handler,
        *,
        module: str = WORKER,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._environment = environment
        self._handle = handle
        self._module = module
        self._answer_seconds = answer_seconds
        self._spawned: set[Member] = set()
        self._members: list[Member] = []  # those that have started: they are asked
        self._keepers: list[asyncio.Task[None]] = []
        self._someone = asyncio.Event()  # is there to be asked
        self._plan: Plan | None = None
        self._collecting: set[asyncio.Task[None]] = set()
        self._totals = Totals()
        for cause in Cause:
            self._totals.count(RESTARTS, cause, increment=0)  # a counter that first appears as 1 shows no rise

    @property
    def pids(self) -> list[int]:
        """The process ids of those that take requests."""
        return [member.process.pid for member in self._members if member.serving]

    @property
    def plan(self) -> Plan | None:
        """What every worker serves; None before the first one."""
        return self._plan

    async def start(self) -> None:
        """Starts the first worker, which knows the device, and then the others. Raises StartError for any."""
        first, started = await self._spawn()
        logger.info("models run on %s: %s", started.provider, started.reason)
        count = worker_count(self._settings.workers, gpu=started.gpu)
        others = await asyncio.gather(*(self._spawn() for _ in range(count - 1)), return_exceptions=True)
        members = [first]
        for other in others:
            if isinstance(other, BaseException):
                raise other
            members.append(other[0])
        self._keepers = [asyncio.create_task(self._keep(member)) for member in members]

    async def prepare(self, ref: VersionRef) -> Refused | None:
        """Once they serve, one worker goes ahead: a version that kills a process shall not kill them all."""
        call = messages.Prepare(ref=ref)
        await self._someone.wait()
        members = list(self._members)
        groups = [members[:1], members[1:]] if self._plan is not None else [members]
        lost = "No worker process lived through loading it; the log says how it ended. Load it again to try once more."
        for group in groups:
            verdicts = await asyncio.gather(*(self._verdict(member, call) for member in group))
            answers = [verdict.refused for verdict in verdicts if verdict is not None]
            if group and not answers:
                return Refused(ref=ref, reason=lost)
            if refused := next(filter(None, answers), None):
                return refused
        return None

    async def serve(self, plan: Plan) -> None:
        """Whoever dies meanwhile is replaced by one that starts with this plan. Raises StartError at the first plan."""
        first, self._plan = self._plan is None, plan
        errors = await asyncio.gather(*(self._apply(member, plan) for member in list(self._members)))
        if first and (error := next(filter(None, errors), None)):
            raise error

    async def metrics(self) -> Report:
        """Returns the totals of all workers. A worker that answers too late adds its report to the next totals."""
        reports = [asyncio.create_task(self._collect(member)) for member in self._members]
        self._collecting.update(reports)
        if reports:
            await asyncio.wait(reports, timeout=COLLECT_SECONDS)
        self._collecting = {report for report in self._collecting if not report.done()}
        return self._totals.report()

    async def drain(self) -> messages.Drained:
        """Every worker answers what it has and ends. The requests of all that came so far."""
        await self._stop_replacing()
        self._listener.close()
        # Those that do not serve yet go first: while one of them holds the port, callers get in and are not answered.
        for member in self._spawned.difference(self._members):
            member.kill()
            await member.process.wait()
        reports = []
        for serving in (False, True):
            members = [member for member in self._members if member.serving is serving]
            reports += await asyncio.gather(*(self._drain(member) for member in members))
        return reduce(add, reports, messages.Drained())

    async def kill(self) -> None:
        """At once, whatever they do. Safe to call at any time, and again."""
        await self._stop_replacing()
        for member in self._spawned:
            member.kill()
        for member in list(self._spawned):
            await self._buried(member)

    async def _spawn(self) -> tuple[Member, messages.Started]:
        """A worker that has started and does not serve yet. Raises StartError."""
        try:
            member = await Member.spawn(self._module, self._listener, self._environment, self._handle)
        except OSError as error:
            raise StartError(f"No worker process can be started: {error.strerror}.") from error
        self._spawned.add(member)
        try:
            started = await member.channel.call(messages.Start(settings=readable(self._settings)), messages.Started)
        except NotReadyError as error:
            death = await self._buried(member)
            raise StartError(f"A {death.how} before it could start; what it wrote above says why.") from error
        except Exception as error:
            member.kill()
            await self._buried(member)
            if isinstance(error, StartError):
                raise
            raise StartError(f"A worker process cannot start: {error} What it wrote above says why.") from error
        self._members.append(member)
        self._someone.set()
        return member, started

    async def _stop_replacing(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, member: Member) -> None:
        """One place among the workers: who dies in it is replaced, after a pause where that happens again and again."""
        clock = asyncio.get_running_loop().time
        since, deaths = clock(), 0
        death = await self._buried(member)
        while True:
            deaths = deaths + 1 if clock() - since < STABLE_SECONDS else 1
            self._totals.count(RESTARTS, death.cause)
            _say(death.how, deaths)
            await asyncio.sleep(pause_before(deaths))
            since = clock()
            try:
                member, _ = await self._spawn()
            except StartError as error:
                death = Death(Cause.NOT_STARTED, f"a worker process could not start: {error}")
                continue
            if self._plan is not None:
                lacking = await self._lacking(member, self._plan)
                if lacking is not None:
                    member.kill()
                    await self._buried(member)
                    death = Death(Cause.UNFIT, f"a new worker process cannot serve what the others do, {lacking}")
                    continue
                await self._apply(member, self._plan)
            death = await self._buried(member)

    async def _lacking(self, member: Member, plan: Plan) -> str | None:
        """Prepares the plan in a new worker. Returns what it cannot serve although others do: it must not join them.

        If no other worker serves, whatever it can serve is better than nothing.
        """
        lacking = None
        for ref in plan.serving:
            verdict = await self._verdict(member, messages.Prepare(ref=ref))
            if verdict is not None and verdict.refused is not None:
                lacking = lacking or f"{ref}: {verdict.refused.reason}"
        return lacking if self.pids else None

    async def _buried(self, member: Member) -> Death:
        """Waits for its end and takes it out of everything."""
        await member.channel.wait_closed()
        if member in self._members:
            self._members.remove(member)
        if not self._members:
            self._someone.clear()
        death = await member.ended()
        self._spawned.discard(member)
        self._totals.remove(member)
        return death

    async def _verdict(self, member: Member, call: messages.Prepare) -> messages.Verdict | None:
        """None where the worker died, of this or of something else."""
        try:  # a worker gives up a load by itself, and may have another one to end before
            return await self._call(member, call, messages.Verdict, 2 * LOAD_SECONDS + self._answer_seconds)
        except NotReadyError:
            return None

    async def _call(self, member: Member, call: messages.Call, answer: type[A], seconds: float | None = None) -> A:
        """A worker that does not answer is ended: it would hold up every change for ever. Raises as Channel.call."""
        seconds = seconds or self._answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await member.channel.call(call, answer)
        except TimeoutError as error:
            logger.error(  # noqa: TRY400 - it is said
                "worker process %d did not answer '%s' within %.0f seconds, and is ended",
                *(member.process.pid, call.kind, seconds),
            )
            member.kill(Cause.UNRESPONSIVE)
            raise NotReadyError("A worker process did not answer and was ended; ask again in a moment.") from error

    async def _apply(self, member: Member, plan: Plan) -> Exception | None:
        """A worker that cannot is ended, as it would serve something else than it should; then, why it cannot."""
        try:
            await self._call(member, messages.Serve(plan=plan), messages.Done)
            member.serving = True
        except NotReadyError:
            return None  # it died, and its keeper knows
        except Exception as error:
            logger.exception("worker process %d cannot serve what it should, and is ended", member.process.pid)
            member.kill(Cause.UNFIT)
            return error
        return None

    async def _collect(self, member: Member) -> None:
        """Adds what the worker has counted to the totals. If it dies first, its last report stands."""
        with suppress(NotReadyError):
            self._totals.add((await member.channel.call(messages.GetMetrics(), messages.Metrics)).report, member)

    async def _drain(self, member: Member) -> messages.Drained:
        """Asks for the drain and then closes the channel, at which a worker ends."""
        report = messages.Drained()
        try:
            async with asyncio.timeout(self._settings.drain_delay + self._settings.drain_seconds + END_SECONDS):
                report = await member.channel.call(messages.Drain(), messages.Drained)
                await member.channel.close()
                await member.process.wait()
        except TimeoutError:
            logger.error("worker process %d does not end, and is killed", member.process.pid)  # noqa: TRY400 - it is said
        except NotReadyError:
            logger.error("%s while it drained", (await self._buried(member)).how)  # noqa: TRY400 - it is said
        member.kill()
        return report


def pause_before(deaths: int) -> float:
    """Seconds to wait before the next try, after so many deaths in a row: 0, 1, 2, 4..."""
    return min(LONGEST_PAUSE, 2.0 ** min(deaths - 2, 10)) if deaths > 1 else 0.0


def _say(how: str, deaths: int) -> None:
    if deaths == 1:
        logger.error("%s; a new one takes its place", how)
        return
    logger.error(
        "%s; that is death %d in a row within %.0f seconds of a start: what workers write above says why, "
        "the next try is in %.0f seconds",
        *(how, deaths, STABLE_SECONDS, pause_before(deaths)),
    )
