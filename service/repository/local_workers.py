"""The one process that serves: what the coordinator asks of its workers, done by the registry at hand."""

import asyncio
from collections.abc import Sequence

from service.repository.plan import Plan, PlannedVersion
from service.repository.registry import Registry
from service.telemetry.statistics import Statistics


class LocalWorkers:
    """Loads in a thread of its own, so that the event loop and the batchers go on serving; swaps on the event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def prepare(self, name: str, version: PlannedVersion) -> str | None:
        return await asyncio.to_thread(self._registry.prepare, name, version)

    async def serve(self, plan: Plan) -> None:
        await asyncio.to_thread(self._registry.catch_up, plan)
        self._registry.serve(plan)

    async def statistics(self) -> Sequence[Statistics]:
        return self._registry.statistics()
