"""The seams between what decides which versions serve and what serves them.

    routes  -- ModelControl -->  Coordinator (the desired state)  -- Workers -->  every worker's Registry

The coordinator lives in the supervisor and its workers are processes; in tests, and wherever create_app is called by
itself, both live in the one process.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from schemas.base import Frozen
from service.telemetry.statistics import Statistics


class PlannedVersion(Frozen):
    version: int
    path: Path
    stamp: str = ""  # of the bundle's files: under another one it is another bundle, to be loaded anew
    reason: str | None = None  # why it is refused; None: it serves

    @property
    def refused(self) -> bool:
        return self.reason is not None


class PlannedModel(Frozen):
    """versions in rising order; current is the one that answers where none is named (None: no version serves)."""

    name: str
    versions: tuple[PlannedVersion, ...]
    current: int | None
    unloaded: bool = False  # by a call: nothing of it serves until it is loaded, or a newer version appears

    @property
    def serving(self) -> tuple[PlannedVersion, ...]:
        return () if self.unloaded else tuple(version for version in self.versions if not version.refused)


class Plan(Frozen):
    """Which versions are to serve: the desired state, the same in every worker."""

    models: tuple[PlannedModel, ...] = ()


Key = tuple[str, int, str]
"""Name, version and stamp: what tells one bundle from every other."""


def key(name: str, version: PlannedVersion) -> Key:
    return (name, version.version, version.stamp)


class Workers(Protocol):
    """All that serve. Answers come when the last of them has done it."""

    async def prepare(self, name: str, version: PlannedVersion) -> str | None:
        """Loads, warms and checks a version beside what serves; None, or why one of them refuses it."""

    async def serve(self, plan: Plan) -> None:
        """Serves just what the plan says; what was prepared is there at once, what is left over is let go."""

    async def statistics(self) -> Sequence[Statistics]:
        """One entry a version that serves, whole over all workers."""


class ModelControl(Protocol):
    """What may be changed while the service runs; each call answers once every worker has applied it."""

    async def load(self, name: str, version: int | None = None) -> None:
        """Serves the model as a start would, or just this version (a pin, until the next load).

        Raises ModelNotFoundError, or ModelRefusedError where the version that it is about was refused: with the
        reason and with what serves instead. That is what served before, or without a version the newest good one.
        """

    async def unload(self, name: str) -> None:
        """Nothing of the model serves until a load, or until a newer version appears. Raises ModelNotFoundError."""

    async def statistics(self) -> Sequence[Statistics]: ...
