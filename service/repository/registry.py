"""The models of this process: versions are prepared, swapped in at once, and closed when their last request ends."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from service.backends.base import Runtime
from service.errors import ModelNotFoundError, ModelRefusedError, NotReadyError
from service.inference.model import Model
from service.repository.candidate import read_candidate
from service.repository.daemon_thread import in_daemon_thread
from service.repository.loader import Entry, Loaded, Loader
from service.repository.plan import LOAD_SECONDS, Plan, PlannedModel, Refused, Unloaded, VersionRef
from service.settings import Settings
from service.telemetry.metrics import Serving, Telemetry

_UNPREPARED = "This worker has not loaded the version."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Served:
    """One model: its versions in rising order, and the one that answers requests that name no version."""

    entries: Sequence[Entry] = ()
    current: Loaded | None = None
    candidates: Sequence[VersionRef] = ()

    @property
    def loaded(self) -> Mapping[int, Loaded]:
        return {entry.ref.version: entry for entry in self.entries if isinstance(entry, Loaded)}


_NOTHING = _Served()


class Registry:
    """The Workers of one process, on its event loop. It has no models until the first plan."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        telemetry: Telemetry | None = None,
        *,
        load_seconds: float = LOAD_SECONDS,
    ) -> None:
        self._settings = settings
        self.runtime = runtime
        self._telemetry = telemetry or Telemetry(runtime.provider)
        self._loader = Loader(settings, runtime, self._telemetry)
        self._load_seconds = load_seconds
        self._prepared: dict[VersionRef, Loaded | Refused] = {}  # the serving versions, and those prepared since
        self._models: Mapping[str, _Served] = {}
        self._default: str | None = None
        self._open: set[Loaded] = set()
        self._closed = False
        self._loading = asyncio.Lock()  # two loads at a time would take twice the memory, and more of the cores

    async def prepare(self, ref: VersionRef) -> Refused | None:
        """Loads a version beside those that serve and holds it. Returns None if the version may serve."""
        async with self._loading:
            if isinstance(self._prepared.get(ref), Loaded):
                return None
            entry = await self._load(ref)
            self._telemetry.loaded(ref.name, succeeded=isinstance(entry, Loaded))
            if self._closed:
                _close(entry)
                return Refused(ref=ref, reason="The service is shutting down.")
            self._prepared[ref] = entry
            if isinstance(entry, Refused):
                return entry
            self._open.add(entry)
            return None

    async def serve(self, plan: Plan) -> None:
        """Serves the prepared versions of the plan. Closes each of the others when its last request ends."""
        models = {model.name: self._served(model) for model in plan.models}
        prepared = {ref: self._prepared[ref] for ref in plan.serving if ref in self._prepared}
        before, gone = set(self.loaded), set(self._models) - set(models)
        left = [old for ref, old in self._prepared.items() if isinstance(old, Loaded) and ref not in prepared]
        self._models, self._prepared, self._default = models, prepared, plan.default
        for loaded in left:
            loaded.retired = True
            if not loaded.leases:
                self._release(loaded)
        self._report(before, gone)

    async def close(self) -> None:
        """Closes all models together, so that their waits for running batches do not add up."""
        self._closed = True
        left = list(self._open)
        for loaded in left:
            self._release(loaded)
        await asyncio.gather(*(loaded.model.wait_closed() for loaded in left))

    @contextmanager
    def lease(self, name: str | None = None, version: int | None = None) -> Iterator[Model]:
        """Yields a model, which stays open until the block ends, whatever is loaded meanwhile.

        Without a name it is the default model, without a version the current one. Raises ModelNotFoundError,
        ModelRefusedError, or NotReadyError if nothing is loaded.
        """
        loaded = self._find(name, version)
        loaded.leases += 1
        try:
            yield loaded.model
        finally:
            loaded.leases -= 1
            if loaded.retired and not loaded.leases:
                self._release(loaded)

    @property
    def entries(self) -> Sequence[Entry]:
        """Every version of the plan, by name and rising version."""
        return tuple(entry for served in self._models.values() for entry in served.entries)

    @property
    def candidates(self) -> Sequence[VersionRef]:
        """Every version that the plan leaves out, by name and rising version."""
        return tuple(ref for served in self._models.values() for ref in served.candidates)

    @property
    def loaded(self) -> Sequence[Loaded]:
        return tuple(entry for entry in self.entries if isinstance(entry, Loaded))

    @property
    def refused(self) -> Sequence[Refused]:
        return tuple(entry for entry in self.entries if isinstance(entry, Refused))

    @property
    def default(self) -> str | None:
        """The model that answers requests that name none."""
        return self._default

    def entry(self, name: str, version: int | None = None) -> Entry:
        """A version of the model, or a candidate, whose manifest is read from the disk.

        Without a number, it is the current version or, if none serves, the newest.

        Raises ModelNotFoundError.
        """
        served = self._model(name)
        if version is None:
            return served.current or served.entries[-1]
        for entry in served.entries:
            if entry.ref.version == version:
                return entry
        for ref in served.candidates:
            if ref.version == version:
                return read_candidate(ref)
        raise ModelNotFoundError(f"Version {version} of {name} does not exist. GET /models lists the versions.")

    def is_current(self, entry: Entry) -> bool:
        return entry is self._models.get(entry.ref.name, _NOTHING).current

    def _model(self, name: str) -> _Served:
        if name not in self._models:
            raise ModelNotFoundError(f"Unknown model '{name}'. {self._names()}")
        return self._models[name]

    def _find(self, name: str | None, version: int | None) -> Loaded:
        name = name or self._default
        if name is None:
            raise NotReadyError("There is no model yet; train one (make train).")
        served = self._model(name)
        loaded = served.current if version is None else served.loaded.get(version)
        if loaded is None:
            raise _not_served(name, version, served, self._settings.versions)
        return loaded

    async def _load(self, ref: VersionRef) -> Loaded | Refused:
        """Refuses the version after the time limit. The thread continues, and a model that it still loads is closed."""
        loading: asyncio.Future[Loaded | Refused] = in_daemon_thread(lambda: self._loader.load(ref))
        try:
            async with asyncio.timeout(self._load_seconds):
                return await asyncio.shield(loading)
        except (TimeoutError, asyncio.CancelledError) as error:
            loading.add_done_callback(lambda late: _close(late.result()))
            if isinstance(error, asyncio.CancelledError):
                raise
            reason = f"Loading it took longer than {self._load_seconds:g} seconds; check the disk or network mount."
            logger.error("%s is refused: %s", ref, reason)  # noqa: TRY400 - the message is the whole cause
            return Refused(ref=ref, reason=reason)

    def _served(self, model: PlannedModel) -> _Served:
        serving = {ref: self._prepared.get(ref) or Refused(ref=ref, reason=_UNPREPARED) for ref in model.serving}
        current = serving.get(model.current) if model.current else None
        entries: list[Entry] = [*serving.values(), *model.refused, *model.unloaded]
        entries.sort(key=lambda entry: entry.ref.version)
        return _Served(entries, current if isinstance(current, Loaded) else None, model.candidates)

    def _report(self, before: set[Loaded], gone: set[str]) -> None:
        """Logs and counts the changes of a new plan."""
        for loaded in self.loaded:
            if loaded not in before:
                model = loaded.model
                variant, reason = model.choice.variant.name, model.choice.reason
                logger.info("%s serves as %s on %s (%s)", loaded.ref, variant, model.provider, reason)
        for name in gone:
            self._telemetry.state(name, None, refused=0)
        for name, served in self._models.items():
            refused = sum(isinstance(entry, Refused) for entry in served.entries)
            instead = (loaded.model.choice.in_place_of for loaded in served.loaded.values())
            fallbacks = {variant.value for variant in instead if variant}
            self._telemetry.state(name, _serving(served.current) if served.current else None, refused, fallbacks)
        if not self.loaded:
            advice = (
                "GET /models gives the reasons" if self._models else "train one (make train), or set CONVOY_ARTIFACTS"
            )
            logger.warning("no model is loaded from %s: %s", self._settings.artifacts.absolute(), advice)

    def _release(self, loaded: Loaded) -> None:
        self._open.discard(loaded)
        loaded.model.close()
        logger.info("%s is closed", loaded.ref)

    def _names(self) -> str:
        return f"Models: {', '.join(self._models)}." if self._models else "There are no models."


def _not_served(
    name: str, version: int | None, served: _Served, policy: str
) -> ModelNotFoundError | ModelRefusedError | NotReadyError:
    """Returns the reason why this version, or any current one, does not serve. policy is CONVOY_VERSIONS."""
    for entry in reversed(served.entries):
        if isinstance(entry, Unloaded) and version in {None, entry.ref.version}:
            return NotReadyError(f"{entry.ref} was unloaded; POST /v2/repository/models/{name}/load loads it again.")
    for entry in reversed(served.entries):
        if isinstance(entry, Refused) and version in {None, entry.ref.version}:
            return ModelRefusedError(f"{entry.ref} was refused and cannot answer: {entry.reason}")
    numbers = [str(number) for number in served.loaded]
    advice = "" if policy == "all" else "; CONVOY_VERSIONS=all serves every version"
    serving = f"Serving: {', '.join(numbers)}" if numbers else "No version serves"
    return ModelNotFoundError(f"{name} version {version} is not served. {serving}{advice}.")


def _close(entry: Loaded | Refused) -> None:
    if isinstance(entry, Loaded):
        entry.model.close()


def _serving(loaded: Loaded) -> Serving:
    return Serving(loaded.ref.version, loaded.model.choice.variant.name, loaded.model.provider)
