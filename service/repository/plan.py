"""What the coordinator decides and the workers apply.

    routes  -- ModelControl -->  Coordinator (the desired state)  -- Workers -->  the Registry of every worker

The coordinator runs in the supervisor and its workers are processes. If create_app is called without a control, as in
most tests, one process contains both, and its Registry is the only worker.
"""

from pathlib import Path
from typing import Protocol

from schemas.base import Frozen
from schemas.manifest import ModelManifest
from schemas.promotion import Promotion

LOAD_SECONDS = 120.0  # the time limit for loading one version, in each worker


class VersionRef(Frozen):
    """One version of a model, from the scan to the response. A replaced bundle has another stamp."""

    name: str
    version: int
    path: Path
    stamp: str = ""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


class Refused(Frozen):
    """A version that must not answer. reason is one sentence; manifest is None if it could not be read."""

    ref: VersionRef
    reason: str
    manifest: ModelManifest | None = None


class Unloaded(Frozen):
    """A version that would serve, but that a call unloaded."""

    ref: VersionRef
    manifest: ModelManifest | None = None
    reason: str = "A call unloaded it. Load it to serve it again."


class PlannedModel(Frozen):
    """Each tuple is in rising order of the versions; current answers requests that name no version.

    candidates are the versions that CONVOY_VERSIONS does not select. A model has unloaded versions only while none
    of its versions serves.
    """

    name: str
    serving: tuple[VersionRef, ...] = ()
    refused: tuple[Refused, ...] = ()
    unloaded: tuple[Unloaded, ...] = ()
    candidates: tuple[VersionRef, ...] = ()

    @property
    def current(self) -> VersionRef | None:
        return self.serving[-1] if self.serving else None


class Plan(Frozen):
    """Which versions serve, the same in every worker. default is the model that answers requests that name none."""

    models: tuple[PlannedModel, ...] = ()
    default: str | None = None

    @property
    def serving(self) -> tuple[VersionRef, ...]:
        return tuple(ref for model in self.models for ref in model.serving)


class Workers(Protocol):
    """All processes that serve. A call returns when the last of them has applied it."""

    async def prepare(self, ref: VersionRef) -> Refused | None:
        """Loads, warms and checks a version beside those that serve. Returns None if every worker accepts it."""

    async def serve(self, plan: Plan) -> None:
        """Serves exactly the plan's versions, which have been prepared, and releases all others."""


class ModelControl(Protocol):
    """What a caller may change while the service runs. A call returns when every worker has applied it."""

    async def load(self, name: str, version: int | None = None) -> None:
        """Serves the model as a start would, or only this version (a pin, until the next load).

        Raises ModelNotFoundError, or ModelRefusedError if the requested version is refused. That error gives the reason
        and the version that serves instead: the one that served before or, without a version, the newest good one.
        """

    async def promote(self, name: str, version: int) -> Promotion:
        """Records in promoted.json that the version serves, and serves it. Ends a pin and an unload.

        Raises ModelNotFoundError; ConflictError if CONVOY_VERSIONS is not `promoted`, or promoted.json cannot be
        written; ModelRefusedError if a worker refuses the version. If it raises, nothing that serves changes.
        """

    async def unload(self, name: str) -> None:
        """Stops serving the model until a load, or until a newer version appears. Raises ModelNotFoundError."""
