"""`python -m tests.support.reload_memory ARTIFACTS sound|leaking`: what 200 reloads add, in KiB and in threads."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

from service.backends.onnx import OnnxRuntime, OnnxSession
from service.repository.coordinator import Coordinator
from service.repository.registry import Registry
from service.settings import Device, Reload, Settings
from tests.support.bundles import write_bundle

RELOADS = 200
WARM_UP = 60


class LeakingRuntime(OnnxRuntime):
    """Keeps every session that it opened: the leak that the test must detect."""

    leaked: ClassVar[list[OnnxSession]] = []

    def open(self, model: bytes) -> OnnxSession:
        self.leaked.append(super().open(model))
        return self.leaked[-1]


def resident_kib() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())]))


def own_threads() -> int:
    """Counts threads, without those of asyncio's pool, which grows while its threads are busy."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


async def measure(artifacts: Path, runtime: OnnxRuntime) -> tuple[int, int]:
    settings = Settings(artifacts=artifacts, reload=Reload.EXPLICIT)
    registry = Registry(settings, runtime)
    coordinator = Coordinator(settings, registry)
    await coordinator.start()

    async def reload(times: int) -> tuple[int, int]:
        for i in range(times):
            await coordinator.load("colours", 1 + i % 2)
        while any(thread.name == "files" for thread in threading.enumerate()):  # the last one is about to end
            await asyncio.sleep(0.01)
        return resident_kib(), own_threads()

    (memory, threads), (memory_after, threads_after) = await reload(WARM_UP), await reload(RELOADS)
    await registry.close()
    return memory_after - memory, threads_after - threads


if __name__ == "__main__":
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    write_bundle(folder, version=2)
    runtime = (LeakingRuntime if kind == "leaking" else OnnxRuntime)(Device.CPU, threads=1, spin=False)
    sys.stdout.write(" ".join(map(str, asyncio.run(measure(folder, runtime)))))
