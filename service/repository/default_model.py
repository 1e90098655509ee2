"""Which model answers requests that name none."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from schemas.default_model import is_quick_start
from schemas.manifest import ModelManifest
from service.repository.plan import Plan, VersionRef

logger = logging.getLogger(__name__)

_Origin = tuple[bool, str, str]
"""Whether it is the quick start's model, when its oldest version was trained, and its name. The smallest is default."""


class DefaultModel:
    """The configured model, else the one that default.json names, else the first one.

    It stays the same when others are added, and when it is refused or unloaded: clients must not get the answers of
    another model. Exception: the quick start's model is replaced by the first other model that serves. Without
    default.json, the first model after a restart is the one that was trained first: unlike the times of files, that
    survives copies.
    """

    def __init__(
        self, configured: str | None, read_manifest: Callable[[VersionRef], Awaitable[ModelManifest | None]]
    ) -> None:
        self._configured = configured
        self._read_manifest = read_manifest
        self._origins: dict[VersionRef, _Origin] = {}

    async def choose(
        self, plan: Plan, oldest: Mapping[str, VersionRef], before: str | None, recorded: str | None
    ) -> str | None:
        """Returns the default of the plan; None without models. oldest has each model's oldest version."""
        names = {model.name for model in plan.models}
        if recorded in names and not self._configured:
            return recorded
        if self._configured or len(names) < 2:
            return self._configured or min(names, default=None)
        if before in names:
            gives_way, _, _ = await self._origin(oldest[before])
            if not gives_way:
                return before
            names = {before} | {ref.name for ref in plan.serving}
        _, _, default = min([await self._origin(oldest[name]) for name in names])
        if default != before:
            logger.info("default model: %s. Set CONVOY_DEFAULT_MODEL to change it", default)
        return default

    async def _origin(self, ref: VersionRef) -> _Origin:
        if ref not in self._origins:
            self._origins[ref] = _origin(ref.name, await self._read_manifest(ref))
        return self._origins[ref]


def _origin(name: str, manifest: ModelManifest | None) -> _Origin:
    if manifest is None:
        return (False, "~", name)  # "~" sorts after every time
    return (is_quick_start(manifest), manifest.provenance.created, name)
