"""Stands in for the real coordinator."""

from collections.abc import Sequence

from service.control import Plan, Workers
from service.settings import Settings
from service.statistics import Statistics


class Coordinator:
    def __init__(self, settings: Settings, workers: Workers) -> None:  # noqa: ARG002
        self._workers = workers

    async def start(self) -> None:
        await self._workers.serve(Plan())

    async def close(self) -> None: ...

    async def load(self, name: str, version: int | None = None) -> None: ...

    async def unload(self, name: str) -> None: ...

    async def statistics(self) -> Sequence[Statistics]:
        return await self._workers.statistics()
