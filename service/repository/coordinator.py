"""The desired state: one per service, however many processes serve it. It scans, has workers prepare, and swaps.

What calls asked for (pins, unloads) is kept in memory alone, as artifacts/ may be read-only: a restart begins again
at CONVOY_VERSIONS. Every decision is version_policy.py's; here is what comes in between and must wait.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from service.errors import ForbiddenError, ModelNotFoundError, ModelRefusedError, NotReadyError, StartError
from service.repository.plan import Key, Plan, PlannedModel, PlannedVersion, Workers, key
from service.repository.scanner import Found, Scan, fingerprint, scan
from service.repository.version_policy import NO_WISH, Wish, make_plan, target
from service.settings import Reload, Settings, parse_policy
from service.telemetry.statistics import Statistics

POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Coordinator:
    """A ModelControl. One thing changes at a time: a load waits for the refresh that is under way."""

    def __init__(self, settings: Settings, workers: Workers, poll_seconds: float = POLL_SECONDS) -> None:
        self._artifacts = settings.artifacts
        self._reload = settings.reload
        self._policy = parse_policy(settings.versions)
        self._workers = workers
        self._poll_seconds = poll_seconds
        self._polling: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._found: dict[str, tuple[Found, ...]] = {}
        self._wishes: dict[str, Wish] = {}
        self._refused: dict[Key, str] = {}
        self._looks: dict[Key, tuple[Path, object]] = {}  # of what was refused, to see when its files change
        self._held: set[Key] = set()  # what the workers have ready, serving or not
        self._plan = Plan()
        self._trouble: dict[str, str] = {}  # said once, not every second

    @property
    def plan(self) -> Plan:
        """What serves now: a worker that starts late prepares and serves this."""
        return self._plan

    async def start(self) -> None:
        """Serves what is there, and where settings say so, what comes. Raises StartError."""
        async with self._lock:
            await self._take(await asyncio.to_thread(scan, self._artifacts))
        for name in sorted(set(self._policy.pins) - set(self._found)):
            logger.warning("CONVOY_VERSIONS pins %s, which is no model that is there", name)
        for name, version in self._policy.pins.items():
            if name in self._found and version not in {found.version for found in self._found[name]}:
                logger.warning(
                    "CONVOY_VERSIONS pins %s to version %d, which is not there: nothing of it serves", name, version
                )
        if self._reload is Reload.POLL:
            self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """No more changes. What serves is left as it is."""
        if self._polling:
            self._polling.cancel()
            with suppress(asyncio.CancelledError):
                await self._polling

    async def refresh(self) -> None:
        """Takes what is new in the folder, and lets go of what is gone; on a folder that is lost all stays as it is."""
        async with self._lock:
            try:
                seen = await asyncio.to_thread(scan, self._artifacts)
            except StartError as error:
                self._say("", str(error))
                return
            if self._found and not seen.models:
                self._say("", f"{self._artifacts} has no model any more, as if it were lost: what serves still does")
                return
            self._trouble.pop("", None)
            await self._take(seen)

    async def load(self, name: str, version: int | None = None) -> None:
        self._allow_change()
        async with self._lock:
            found = await self._find(name)
            wish = Wish(pin=version)
            first = target(found, self._policy, wish, {}, self._plan)
            if first is None:
                asked = self._policy.pins[name] if version is None else version
                there = ", ".join(str(one.version) for one in found)
                raise ModelNotFoundError(f"There is no version {asked} of {name}; there are {there}.")
            self._forget_refusals(lambda of: of[0] == name and version in {None, of[1]})  # a call is worth a try
            tried, answers = await self._prepare_one(found, wish)
            # A pin needs its own bundle: that the old one of its number would answer in its place is no reason for it.
            changes = not tried if version is not None else answers or not self._serving(name)
            if changes:
                self._found[name], self._wishes[name] = found, wish
            else:  # what serves still does; just the reason is shown
                before = self._wishes.get(name, NO_WISH)
                self._wishes[name] = replace(before, refused=before.refused | tried.keys())
                known = {one.version: one for one in self._found.get(name, ())}
                known |= {one.version: one for one in found if one.version in tried}
                self._found[name] = tuple(known[number] for number in sorted(known))
            await self._settle()
            if reason := tried.get(first.version):
                raise ModelRefusedError(
                    f"{name} version {first.version} was refused, and {self._instead(name, first)}: {reason}"
                )

    async def unload(self, name: str) -> None:
        self._allow_change()
        async with self._lock:
            with suppress(ModelNotFoundError, NotReadyError):  # gone from the folder, it may still serve
                self._found[name] = await self._find(name)
            if name not in self._found:
                raise self._unknown(name)
            self._wishes[name] = Wish(unloaded_up_to=self._found[name][-1].version)
            await self._settle()

    async def statistics(self) -> Sequence[Statistics]:
        return await self._workers.statistics()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except Exception:
                logger.exception("the folder of bundles could not be taken up; it is tried again")

    async def _take(self, seen: Scan) -> None:
        for name, reason in seen.unreadable.items():
            self._say(name, f"the folder {self._artifacts / name} cannot be read: {reason}")
        for name in set(self._trouble) - set(seen.unreadable):
            del self._trouble[name]
        unseen = {name: found for name, found in self._found.items() if name in seen.unreadable}
        self._found = dict(seen.models) | unseen
        self._wishes = {name: wish for name, wish in self._wishes.items() if name in self._found}
        changed = await asyncio.to_thread(_changed, self._looks)
        there = {(one.name, one.version, one.stamp) for found in self._found.values() for one in found}
        self._forget_refusals(lambda of: of in changed or of not in there)
        await self._settle()

    async def _settle(self) -> None:
        """Prepares what the plan lacks until nothing does, as each refusal changes the plan, then serves it."""
        while True:
            plan = make_plan(self._found, self._policy, self._wishes, self._refused, self._plan)
            serving = [(model.name, version) for model in plan.models for version in model.serving]
            lacking = [(name, version) for name, version in serving if key(name, version) not in self._held]
            if not lacking:
                break
            for name, version in lacking:
                await self._prepare(name, version)
        keys = {key(name, version) for name, version in serving}
        if plan != self._plan or keys != self._held:
            await self._workers.serve(plan)
            self._plan, self._held = plan, keys

    async def _prepare_one(self, found: Sequence[Found], wish: Wish) -> tuple[dict[int, str], bool]:
        """Prepares what is to answer, and as long as that is refused what is to in its place, as a start would.

        (why each was refused, by version; whether one can answer).
        """
        tried: dict[int, str] = {}
        while wanted := target(found, self._policy, wish, self._refused, self._plan):
            reason = await self._prepare(found[0].name, wanted)
            if reason is None:
                return tried, True
            tried[wanted.version] = reason
        return tried, False

    def _serving(self, name: str) -> PlannedModel | None:
        """The model in the plan, where one of its versions answers."""
        return next((model for model in self._plan.models if model.name == name and model.current is not None), None)

    def _instead(self, name: str, refused: PlannedVersion) -> str:
        model = self._serving(name)
        if model is None:
            return f"nothing of {name} serves"
        before = " as it was before" if model.current == refused.version else ""
        return f"version {model.current}{before} serves"

    async def _prepare(self, name: str, version: PlannedVersion) -> str | None:
        of = key(name, version)
        if of in self._held:
            return None
        look = await asyncio.to_thread(fingerprint, version.path)  # before: what changes meanwhile is a change
        reason = await self._workers.prepare(name, version)
        if reason is None:
            self._held.add(of)
        else:
            self._refused[of], self._looks[of] = reason, (version.path, look)
        return reason

    async def _find(self, name: str) -> tuple[Found, ...]:
        """The model's versions in the folder now. Only names that a scan gave are ever looked for there."""
        try:
            seen = await asyncio.to_thread(scan, self._artifacts)
        except StartError as error:
            raise NotReadyError(str(error)) from error
        if name in seen.unreadable:
            raise NotReadyError(f"The folder of {name} cannot be read: {seen.unreadable[name]}.")
        if name not in seen.models:
            raise self._unknown(name)
        return seen.models[name]

    def _unknown(self, name: str) -> ModelNotFoundError:
        there = f"there are {', '.join(sorted(self._found))}" if self._found else "there are none"
        return ModelNotFoundError(f"There is no model '{name}' to load or unload; {there}.")

    def _allow_change(self) -> None:
        if self._reload is Reload.OFF:
            raise ForbiddenError("CONVOY_RELOAD=off fixes what serves; set it to poll or explicit to load and unload.")

    def _forget_refusals(self, which: Callable[[Key], bool]) -> None:
        for of in [of for of in self._refused if which(of)]:
            del self._refused[of], self._looks[of]

    def _say(self, about: str, trouble: str) -> None:
        if self._trouble.get(about) != trouble:
            logger.error("%s", trouble)
        self._trouble[about] = trouble


def _changed(looks: Mapping[Key, tuple[Path, object]]) -> set[Key]:
    return {of for of, (path, look) in looks.items() if fingerprint(path) != look}
