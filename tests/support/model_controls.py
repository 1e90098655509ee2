"""Replacements of the coordinator."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

from schemas.promotion import PromotedBy, Promotion
from service.errors import ModelNotFoundError


@dataclass
class RecordingControl:
    """A ModelControl that knows one model and records its calls."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def load(self, name: str, version: int | None = None) -> None:
        self._find(name)
        self.calls.append(("load", name, version))

    async def promote(self, name: str, version: int) -> Promotion:
        self._find(name)
        self.calls.append(("promote", name, version))
        return Promotion(version=version, when="2026-01-01T00:00:00Z", by=PromotedBy.API, reason="A test.")

    async def unload(self, name: str) -> None:
        self._find(name)
        self.calls.append(("unload", name))

    def _find(self, name: str) -> None:
        if name != "colours":
            raise ModelNotFoundError(f"There is no model '{name}' to load or unload; there are colours.")


@dataclass
class SlowControl(RecordingControl):
    """Waits for `let` before it acts; sets `finished` afterwards."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    async def load(self, name: str, version: int | None = None) -> None:
        await self.let.wait()
        await super().load(name, version)
        self.finished.set()

    async def unload(self, name: str) -> None:
        await self.let.wait()
        await super().unload(name)
        self.finished.set()
