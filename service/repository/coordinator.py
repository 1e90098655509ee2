"""The desired state: which versions serve. Each service has one coordinator, whatever its number of workers.

The coordinator scans the artifacts folder, and tells the workers to prepare new versions and then to serve them.
version_policy.py makes every decision. promoted.json records a promotion, and default.json the default model. Pins and
unloads are kept only in memory, because artifacts/ may be read-only: a restart returns to CONVOY_VERSIONS.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from schemas.bundle import open_bundle
from schemas.errors import BundleError
from schemas.manifest import ModelManifest
from schemas.promotion import PROMOTION_FILE, PromotedBy, Promotion, promote
from service.errors import (
    ConflictError,
    ForbiddenError,
    ModelNotFoundError,
    ModelRefusedError,
    NotReadyError,
    StartError,
)
from service.repository.daemon_thread import in_daemon_thread
from service.repository.default_model import DefaultModel
from service.repository.plan import Plan, Refused, Unloaded, VersionRef, Workers
from service.repository.scanner import Scan, fingerprint, scan
from service.repository.version_policy import DAMAGED_RECORD, KnownModel, Override, make_plan, plan_model
from service.settings import Reload, Rule, Settings, parse_policy

POLL_SECONDS = 1.0
READ_SECONDS = 10.0  # the time limit for reading a manifest that is only shown

logger = logging.getLogger(__name__)


class Coordinator:
    """A ModelControl. Changes happen one at a time: a load waits for a refresh that is in progress."""

    def __init__(self, settings: Settings, workers: Workers, poll_seconds: float = POLL_SECONDS) -> None:
        self._artifacts = settings.artifacts
        self._reload = settings.reload
        self._policy = parse_policy(settings.versions)
        self._configured_default = settings.default_model
        self._default_model = DefaultModel(settings.default_model, self._read_manifest)
        self._recorded_default: str | None = None
        self._workers = workers
        self._poll_seconds = poll_seconds
        self._polling: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._models: dict[str, KnownModel] = {}
        self._refused: dict[VersionRef, Refused] = {}
        self._fingerprints: dict[VersionRef, object] = {}  # of the refused versions, to notice when their files change
        self._held: set[VersionRef] = set()  # versions that every worker has loaded, serving or not
        self._outdated = False  # workers may hold versions that are not in the plan
        self._plan = Plan()
        self._manifests: dict[VersionRef, ModelManifest | None] = {}  # of the versions that do not serve
        self._logged: dict[Path, str] = {}  # each problem is logged once, not every second

    @property
    def plan(self) -> Plan:
        """What serves now. A worker that starts later prepares and serves the same."""
        return self._plan

    async def start(self) -> None:
        """Serves what the folder contains and, if configured, what appears later. Raises StartError."""
        async with self._lock:
            await self._apply(await self._scan())
        if self._configured_default and self._configured_default not in self._models:
            logger.warning("CONVOY_DEFAULT_MODEL=%s names no model in %s", self._configured_default, self._artifacts)
        for name, version in self._policy.pins.items():
            if name not in self._models:
                logger.warning("CONVOY_VERSIONS pins %s, but this model does not exist", name)
            elif version not in {ref.version for ref in self._models[name].versions}:
                logger.warning("CONVOY_VERSIONS pins %s to version %d, which does not exist", name, version)
        if self._reload is Reload.POLL:
            self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Stops polling. Served versions stay loaded."""
        if self._polling:
            self._polling.cancel()
            with suppress(asyncio.CancelledError):
                await self._polling

    async def refresh(self) -> None:
        """Serves new versions and releases deleted ones. If the whole folder is lost, nothing changes."""
        async with self._lock:
            try:
                seen = await self._scan()
            except StartError as error:
                self._log_once(self._artifacts, str(error))
                return
            if self._models and not seen.models:
                self._log_once(
                    self._artifacts, f"{self._artifacts} contains no models any more; the loaded ones continue to serve"
                )
                return
            await self._apply(seen)

    async def load(self, name: str, version: int | None = None) -> None:
        self._allow_change()
        async with self._lock:
            wanted = replace(await self._find(name), override=Override(pin=version))
            first = self._target(wanted, refused={})
            if first is None and version is None and wanted.damaged:
                raise ModelRefusedError(f"{name} was refused: {DAMAGED_RECORD}")
            if first is None:
                raise _no_version(name, self._policy.pins[name] if version is None else version, wanted)
            self._forget_refusals(lambda ref: ref.name == name and version in {None, ref.version})  # try again
            refused, can_answer = await self._prepare_target(wanted)
            # A pin takes effect only if the new bundle of this number is valid, even if the old one still serves.
            takes_effect = not refused if version is not None else can_answer or self._current(name) is None
            if takes_effect:
                self._models[name] = wanted
            else:
                self._models[name] = self._models.get(name, KnownModel(())).showing(refused)
            await self._settle()
            if first in refused:
                raise self._refusal(refused[first])

    async def unload(self, name: str) -> None:
        self._allow_change()
        async with self._lock:
            try:
                model = await self._find(name)
            except (ModelNotFoundError, NotReadyError):  # deleted from the folder, it may still serve
                if name not in self._models:
                    raise
                model = self._models[name]
            self._models[name] = replace(model, override=Override(unloaded_up_to=model.versions[-1].version))
            await self._settle()

    async def promote(self, name: str, version: int) -> Promotion:
        self._allow_change()
        if self._policy.rule is not Rule.PROMOTED or name in self._policy.pins:
            raise ConflictError("CONVOY_VERSIONS fixes the served versions. Promotions need CONVOY_VERSIONS=promoted.")
        async with self._lock:
            model = await self._find(name)
            ref = next((ref for ref in model.versions if ref.version == version), None)
            if ref is None:
                raise _no_version(name, version, model)
            self._forget_refusals(lambda refused: refused == ref)  # try again
            refused = await self._prepare(ref)
            try:
                if refused is None:
                    promotion = await self._write_promotion(ref)
                    self._models[name] = KnownModel(model.versions, promotion)
                    return promotion
                self._models[name] = self._models.get(name, KnownModel(())).showing([ref])
            finally:
                await self._settle()
            raise self._refusal(refused)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except Exception:
                logger.exception("cannot apply the changes in the artifacts folder; retrying")

    async def _scan(self) -> Scan:
        return await in_daemon_thread(lambda: scan(self._artifacts))

    async def _apply(self, seen: Scan) -> None:
        unreadable = {self._artifacts / name: reason for name, reason in seen.unreadable.items()}
        for path, reason in unreadable.items():
            self._log_once(path, f"the folder {path} cannot be read: {reason}")
        for path, reason in seen.ignored.items():
            self._log_once(path, f"{str(path)!r} is ignored: {reason}", logging.WARNING)
        self._logged = {path: self._logged[path] for path in (*unreadable, *seen.ignored)}
        models = {name: self._known(name, seen) for name in seen.models}
        self._recorded_default = seen.default
        self._models = models | {name: model for name, model in self._models.items() if name in seen.unreadable}
        known = dict(self._fingerprints)
        changed = await in_daemon_thread(lambda: _changed(known))
        existing = {ref for model in self._models.values() for ref in model.versions}
        self._forget_refusals(lambda ref: ref in changed or ref not in existing)
        await self._settle()

    def _known(self, name: str, seen: Scan) -> KnownModel:
        """Returns the model as scanned. If its promoted.json is invalid, its last valid record still applies."""
        before = self._models.get(name, KnownModel(()))
        promotion = seen.promotions.get(name)
        unusable = self._artifacts / name / PROMOTION_FILE in seen.ignored
        if unusable and before.promotion:
            promotion = before.promotion
        by_hand = promotion and promotion != before.promotion and promotion.by is not PromotedBy.TRAIN
        override = Override() if by_hand else before.override
        return KnownModel(seen.models[name], promotion, override, damaged=unusable and promotion is None)

    async def _settle(self) -> None:
        """Makes a plan, prepares its versions and serves it. A refusal changes the plan, so preparing repeats."""
        while True:
            plan = make_plan(self._models, self._policy, self._refused, self._plan)
            lacking = [ref for ref in plan.serving if ref not in self._held]
            if not lacking:
                break
            for ref in lacking:
                await self._prepare(ref)
        plan = await self._describe(plan)
        oldest = {name: model.versions[0] for name, model in self._models.items()}
        default = await self._default_model.choose(plan, oldest, self._plan.default, self._recorded_default)
        plan = plan.model_copy(update={"default": default})
        if plan != self._plan or self._outdated:
            await self._workers.serve(plan)
            self._plan, self._held, self._outdated = plan, set(plan.serving), False

    async def _describe(self, plan: Plan) -> Plan:
        """Returns the plan with the manifests of its unloaded versions, which a worker may never have loaded."""
        refs = [version.ref for model in plan.models for version in model.unloaded]
        known = self._manifests
        self._manifests = {ref: known[ref] if ref in known else await self._read_manifest(ref) for ref in refs}
        models = []
        for model in plan.models:
            described = [Unloaded(ref=version.ref, manifest=self._manifests[version.ref]) for version in model.unloaded]
            models.append(model.model_copy(update={"unloaded": tuple(described)}))
        return plan.model_copy(update={"models": tuple(models)})

    async def _read_manifest(self, ref: VersionRef) -> ModelManifest | None:
        """Returns None on an error or a timeout. The manifest of a refused version comes from the refusal."""
        if ref in self._refused:
            return self._refused[ref].manifest
        reading = in_daemon_thread(lambda: open_bundle(ref.path).manifest)
        with suppress(BundleError, TimeoutError):
            return await asyncio.wait_for(reading, READ_SECONDS)
        return None

    async def _prepare_target(self, model: KnownModel) -> tuple[dict[VersionRef, Refused], bool]:
        """Prepares the version that should answer. If it is refused, prepares the next one that a start would try.

        Returns the refusals, and whether a version can answer.
        """
        refused: dict[VersionRef, Refused] = {}
        while ref := self._target(model, self._refused):
            refusal = await self._prepare(ref)
            if refusal is None:
                return refused, True
            refused[ref] = refusal
        return refused, False

    def _target(self, model: KnownModel, refused: Mapping[VersionRef, Refused]) -> VersionRef | None:
        """Returns the version that should answer; None if it is missing or refused."""
        name = model.versions[0].name
        serving = [ref for ref in self._plan.serving if ref.name == name]
        return plan_model(name, model, self._policy, refused, serving).current

    async def _prepare(self, ref: VersionRef) -> Refused | None:
        if ref in self._held:
            return None
        # Taken before the load: a file that changes during it counts as a change.
        before = await in_daemon_thread(lambda: fingerprint(ref.path))
        self._outdated = True  # even if it fails: one worker may have loaded what another refuses
        refused = await self._workers.prepare(ref)
        if refused is None:
            self._held.add(ref)
        else:
            self._refused[ref], self._fingerprints[ref] = refused, before
        return refused

    async def _write_promotion(self, ref: VersionRef) -> Promotion:
        """Raises ConflictError if the folder cannot be written."""
        current = self._current(ref.name)
        serving = current.version if current else None
        folder = self._artifacts / ref.name
        reason = "An admin call promoted it."
        try:
            return await in_daemon_thread(
                lambda: promote(folder, ref.version, by=PromotedBy.API, reason=reason, serving=serving)
            )
        except OSError as error:
            raise ConflictError(
                f"{folder / PROMOTION_FILE} cannot be written: {error.strerror}. Make the folder writable, or write "
                "promoted.json at the source of the bundles."
            ) from error

    def _current(self, name: str) -> VersionRef | None:
        return next((model.current for model in self._plan.models if model.name == name), None)

    def _refusal(self, refused: Refused) -> ModelRefusedError:
        name, current = refused.ref.name, self._current(refused.ref.name)
        instead = f"Version {current.version} serves." if current else f"No version of {name} serves."
        if current and current.version == refused.ref.version:
            instead = f"The previous bundle of version {current.version} continues to serve."
        return ModelRefusedError(f"{refused.ref} was refused: {refused.reason} {instead}")

    async def _find(self, name: str) -> KnownModel:
        """Returns the model as it is in the folder now. The name is compared with scanned names, and is not a path."""
        try:
            seen = await self._scan()
        except StartError as error:
            raise NotReadyError(str(error)) from error
        if name in seen.unreadable:
            raise NotReadyError(f"The folder of {name} cannot be read: {seen.unreadable[name]}.")
        if name not in seen.models:
            raise self._unknown(name)
        return self._known(name, seen)

    def _unknown(self, name: str) -> ModelNotFoundError:
        names = f"Models: {', '.join(sorted(self._models))}." if self._models else "There are no models."
        return ModelNotFoundError(f"Unknown model '{name}'. {names}")

    def _allow_change(self) -> None:
        if self._reload is Reload.OFF:
            raise ForbiddenError("CONVOY_RELOAD=off allows no load, unload or promotion; set it to poll or explicit.")

    def _forget_refusals(self, which: Callable[[VersionRef], bool]) -> None:
        for ref in [ref for ref in self._refused if which(ref)]:
            del self._refused[ref], self._fingerprints[ref]

    def _log_once(self, path: Path, problem: str, level: int = logging.ERROR) -> None:
        if self._logged.get(path) != problem:
            logger.log(level, "%s", problem)
        self._logged[path] = problem


def _no_version(name: str, version: int, model: KnownModel) -> ModelNotFoundError:
    numbers = ", ".join(str(ref.version) for ref in model.versions)
    return ModelNotFoundError(f"There is no version {version} of {name}. Versions: {numbers}.")


def _changed(fingerprints: Mapping[VersionRef, object]) -> set[VersionRef]:
    return {ref for ref, before in fingerprints.items() if fingerprint(ref.path) != before}
