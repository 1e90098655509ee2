import asyncio

from service.repository.coordinator import Coordinator
from service.repository.registry import Registry
from service.settings import Reload, Settings


def load_all(registry: Registry, settings: Settings) -> None:
    """Returns a registry with the models that a service with these settings loads at its start."""
    fixed = settings.model_copy(update={"reload": Reload.OFF})
    asyncio.run(Coordinator(fixed, registry).start())
