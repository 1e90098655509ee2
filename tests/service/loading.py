import asyncio

from service.coordinator import Coordinator
from service.local_workers import LocalWorkers
from service.registry import Registry
from service.settings import Reload, Settings


def load_all(registry: Registry, settings: Settings) -> None:
    """What a service with these settings does at its start."""
    fixed = settings.model_copy(update={"reload": Reload.OFF})
    asyncio.run(Coordinator(fixed, LocalWorkers(registry)).start())
