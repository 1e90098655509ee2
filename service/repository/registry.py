"""What is live in this process: versions are held ready, swapped in at once, closed when their last request ends."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.manifest import ModelManifest
from service.backends.base import Runtime
from service.errors import ModelNotFoundError, ModelRefusedError, ModelRequiredError, NotReadyError
from service.inference.model import Model
from service.repository.loader import Entry, Loaded, Loader, Refused, Unloaded, read_manifest
from service.repository.plan import Key, Plan, PlannedModel, PlannedVersion, key
from service.repository.scanner import Found
from service.settings import Settings
from service.telemetry.observer import Nobody, Serving, Watcher
from service.telemetry.statistics import Statistics

_UNPREPARED = "It was not loaded in this process before it was to serve."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Served:
    """One model: its versions in rising order, and of these the one that answers where none is named."""

    entries: Sequence[Entry] = ()
    current: Loaded | None = None

    @property
    def loaded(self) -> Mapping[int, Loaded]:
        return {entry.found.version: entry for entry in self.entries if isinstance(entry, Loaded)}


_NOTHING = _Served()


@dataclass
class _Shelf:
    """What was prepared, by key: ready to serve or serving, failed with its reason; and the manifests of the rest."""

    ready: dict[Key, Loaded] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    manifests: dict[Key, ModelManifest | None] = field(default_factory=dict)


class Registry:
    """The models of this process, as the last plan has them; none until the first.

    prepare and catch_up block: call them off the event loop. Call everything else on it.
    """

    def __init__(self, settings: Settings, runtime: Runtime, watcher: Watcher | None = None) -> None:
        self._settings = settings
        self._runtime = runtime
        self._watcher = watcher or Nobody()
        self._loader = Loader(settings, runtime, self._watcher.observer)
        self._shelf = _Shelf()
        self._models: Mapping[str, _Served] = {}
        self._unclosed: set[Loaded] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one load at a time: two would take twice the memory, and more of the cores

    def prepare(self, name: str, version: PlannedVersion) -> str | None:
        """Opens, verifies, warms and checks a version beside what serves, and holds it; or says why it is refused."""
        with self._loading:
            return self._prepare(name, version)

    def catch_up(self, plan: Plan) -> None:
        """Prepares what the plan serves and is not here yet, as in a process that started late."""
        for model in plan.models:
            for version in model.versions:
                of = key(model.name, version)
                if version in model.serving:
                    self.prepare(model.name, version)
                elif of not in self._shelf.manifests:
                    self._shelf.manifests[of] = read_manifest(version.path)

    def serve(self, plan: Plan) -> None:
        """Serves what was prepared of the plan. What is left over is closed when its last request ends."""
        models = {model.name: self._served(model) for model in plan.models}
        named = {key(model.name, version) for model in plan.models for version in model.versions}
        serving = {key(model.name, version) for model in plan.models for version in model.serving}
        before, gone = set(self.loaded), set(self._models) - set(models)
        with self._lock:
            self._models = models
            left = [self._shelf.ready.pop(of) for of in set(self._shelf.ready) - serving]
            for known in (self._shelf.failed, self._shelf.manifests):
                for of in set(known) - named:
                    del known[of]
            for loaded in left:
                loaded.retired = True
            idle = [loaded for loaded in left if not loaded.leases]
        for loaded in idle:
            self._let_go(loaded)
        self._tell(before, gone)
        default = self._settings.default_model
        if default and default not in self._models:
            logger.warning("CONVOY_DEFAULT_MODEL=%s names no model that is there", default)
        if not self.loaded:
            advice = "GET /models says why" if self._models else "train one (make train), or set CONVOY_ARTIFACTS"
            logger.warning("no model serves from %s: %s", self._settings.artifacts.absolute(), advice)

    async def close(self) -> None:
        """Closes all models together, so that their waits for running batches do not add up."""
        with self._lock:
            self._closed = True
            left = list(self._unclosed)
        for loaded in left:
            self._let_go(loaded)
        await asyncio.gather(*(loaded.model.wait_closed() for loaded in left))

    @contextmanager
    def lease(self, name: str | None = None, version: int | None = None) -> Iterator[Model]:
        """The model to ask, which stays open as long as the request has it, whatever is loaded meanwhile.

        Without a name it is the default model, without a version the current one. Raises as model().
        """
        with self._lock:
            loaded = self._find(name, version)
            loaded.leases += 1
        try:
            yield loaded.model
        finally:
            with self._lock:
                loaded.leases -= 1
                last = loaded.retired and not loaded.leases
            if last:
                self._let_go(loaded)

    def model(self, name: str | None = None, version: int | None = None) -> Model:
        """What lease would give, for what it says of itself; to be asked it must be leased.

        Raises ModelRequiredError, ModelNotFoundError, ModelRefusedError, or NotReadyError where nothing is loaded.
        """
        return self._find(name, version).model

    def statistics(self) -> Sequence[Statistics]:
        """One entry a version that serves, of this process alone."""
        return tuple(loaded.model.statistics() for loaded in self.loaded)

    @property
    def runtime(self) -> Runtime:
        """It says where models run, and why there."""
        return self._runtime

    @property
    def entries(self) -> Sequence[Entry]:
        """Every version that serves or should, by name and rising version."""
        return tuple(entry for served in self._models.values() for entry in served.entries)

    @property
    def loaded(self) -> Sequence[Loaded]:
        return tuple(entry for entry in self.entries if isinstance(entry, Loaded))

    @property
    def refused(self) -> Sequence[Refused]:
        return tuple(entry for entry in self.entries if isinstance(entry, Refused))

    @property
    def default(self) -> str | None:
        """The model that answers where none is named: the one that is set, or the only one there is.

        A refused model counts as there: damage to one must not make another answer in its place.
        """
        if self._settings.default_model:
            return self._settings.default_model
        return next(iter(self._models)) if len(self._models) == 1 else None

    def entry(self, name: str, version: int | None = None) -> Entry:
        """A version of the model; without one, that which answers, or where none does the newest.

        Raises ModelNotFoundError.
        """
        served = self._model(name)
        if version is None:
            return served.current or served.entries[-1]
        for entry in served.entries:
            if entry.found.version == version:
                return entry
        raise ModelNotFoundError(f"Version {version} of {name} neither serves nor should; GET /models lists what does.")

    def is_current(self, entry: Entry) -> bool:
        return entry is self._models.get(entry.found.name, _NOTHING).current

    def _model(self, name: str) -> _Served:
        if name not in self._models:
            raise ModelNotFoundError(f"There is no model '{name}'; {self._there()}.")
        return self._models[name]

    def _find(self, name: str | None, version: int | None) -> Loaded:
        if name is None:
            name = self.default
        if name is None and not self._models:
            raise NotReadyError("There is no model yet; train one (make train).")
        if name is None:
            raise ModelRequiredError(
                f"Several models are here: name one as in /models/{next(iter(self._models))}/predict, "
                f"or set CONVOY_DEFAULT_MODEL; {self._there()}."
            )
        served = self._model(name)
        loaded = served.current if version is None else served.loaded.get(version)
        if loaded is None:
            raise _why_not(name, version, served, self._settings.versions)
        return loaded

    def _prepare(self, name: str, version: PlannedVersion) -> str | None:
        of = key(name, version)
        if of in self._shelf.ready:
            return None
        loaded = self._loader.load(Found(name, version.version, version.path, version.stamp))
        self._watcher.loaded(name, succeeded=isinstance(loaded, Loaded))
        with self._lock:
            if isinstance(loaded, Refused):
                self._shelf.failed[of], self._shelf.manifests[of] = loaded.reason, loaded.manifest
                return loaded.reason
            if self._closed:
                return "The service is going down."
            self._unclosed.add(loaded)
            self._shelf.ready[of] = loaded
            return None

    def _served(self, model: PlannedModel) -> _Served:
        entries = [self._entry(model, version) for version in model.versions]
        current = [entry for entry in entries if isinstance(entry, Loaded) and entry.found.version == model.current]
        return _Served(entries, current[0] if current else None)

    def _entry(self, model: PlannedModel, version: PlannedVersion) -> Entry:
        of = key(model.name, version)
        loaded = self._shelf.ready.get(of)
        if loaded and version in model.serving:
            return loaded
        if loaded:  # it goes, and its manifest is still shown
            self._shelf.manifests[of] = loaded.bundle.manifest
        found = Found(model.name, version.version, version.path, version.stamp)
        manifest = self._shelf.manifests.get(of)
        if model.unloaded and not version.refused:
            return Unloaded(found, manifest)
        return Refused(found, version.reason or self._shelf.failed.get(of, _UNPREPARED), manifest)

    def _tell(self, before: set[Loaded], gone: set[str]) -> None:
        for loaded in self.loaded:
            if loaded not in before:
                _announce(loaded)
        for name in gone:
            self._watcher.state(name, None, refused=0)
        for name, served in self._models.items():
            refused = sum(isinstance(entry, Refused) for entry in served.entries)
            instead = (loaded.model.choice.in_place_of for loaded in served.loaded.values())
            fallbacks = {variant.value for variant in instead if variant}
            self._watcher.state(name, _serving(served.current) if served.current else None, refused, fallbacks)

    def _let_go(self, loaded: Loaded) -> None:
        with self._lock:
            self._unclosed.discard(loaded)
        loaded.model.close()
        logger.info("%s version %d is closed", loaded.found.name, loaded.found.version)

    def _there(self) -> str:
        return f"there are {', '.join(self._models)}" if self._models else "there are none"


def _why_not(
    name: str, version: int | None, served: _Served, policy: str
) -> ModelNotFoundError | ModelRefusedError | NotReadyError:
    """Why there is no such version of the model, or no current one. policy is CONVOY_VERSIONS."""
    for entry in reversed(served.entries):
        if isinstance(entry, Unloaded) and version in {None, entry.found.version}:
            return NotReadyError(
                f"{name} version {entry.found.version} was unloaded; "
                f"POST /v2/repository/models/{name}/load loads it again."
            )
    for entry in reversed(served.entries):
        if isinstance(entry, Refused) and version in {None, entry.found.version}:
            return ModelRefusedError(
                f"{name} version {entry.found.version} was refused and cannot answer: {entry.reason}"
            )
    there = [str(number) for number in served.loaded]
    advice = "" if policy == "all" else ", and with CONVOY_VERSIONS=all every one that is there"
    serve = f"version {there[0]} is" if len(there) == 1 else f"versions {', '.join(there)} are" if there else "none is"
    return ModelNotFoundError(f"Version {version} of {name} is not served; {serve}{advice}.")


def _announce(loaded: Loaded) -> None:
    found, model = loaded.found, loaded.model
    logger.info(
        "%s version %d serves as %s on %s (%s)",
        *(found.name, found.version, model.choice.variant.name, model.provider, model.choice.reason),
    )


def _serving(loaded: Loaded) -> Serving:
    return Serving(loaded.found.version, loaded.model.choice.variant.name, loaded.model.provider)
