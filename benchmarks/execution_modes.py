"""Compares inference on the event loop with inference in the worker thread.

    python -m benchmarks.execution_modes BUNDLE

Clients in the same process predict one image after another. Work that releases the GIL delays each batch by 0 to 10
ms. Prints the CPU time per request, and the delay of a timer on the event loop, which a call of /livez would see too.
"""

import asyncio
import hashlib
import io
import json
import statistics
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import uvloop
from PIL import Image

from schemas.bundle import FloatArray, open_bundle
from schemas.image import Pixels
from service.backends.base import Session
from service.backends.onnx import OnnxRuntime
from service.backends.variants import choose
from service.inference.execution import Execution, Mode, choose_execution
from service.inference.inputs import EncodedImage
from service.inference.model import Model
from service.inference.request_context import RequestContext
from service.settings import Device

SLOWED_MS = (0.0, 1.0, 3.0, 10.0)
CLIENTS = (1, 16)
REQUESTS = 320
ROUNDS = 5
_TIMER_SECONDS = 0.002


class SlowedSession:
    """A session that adds a number of seconds of CPU time to each batch."""

    def __init__(self, session: Session, seconds: float) -> None:
        self.provider, self.warm_batches = session.provider, session.warm_batches
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session = session
        self._work = bytes(round(seconds * _hashed_per_second()))

    def run(self, images: Pixels) -> FloatArray:
        if self._work:
            hashlib.sha256(self._work)
        return self._session.run(images)

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        return self._session.explain(images)


def _hashed_per_second() -> float:
    block, seconds = bytes(2**22), []
    for _ in range(5):
        started = time.thread_time()
        hashlib.sha256(block)
        seconds.append(time.thread_time() - started)
    return len(block) / min(seconds)


async def measure(model: Model, clients: int, images: list[EncodedImage]) -> tuple[float, float, float]:
    """Returns microseconds of CPU time per request, and the median and the 99th percentile of lateness in ms."""
    late: list[float] = []

    async def timer() -> None:
        while True:
            due = time.perf_counter() + _TIMER_SECONDS
            await asyncio.sleep(_TIMER_SECONDS)
            late.append(1000 * (time.perf_counter() - due))

    async def client() -> None:
        for _ in range(REQUESTS // clients):
            predictions = await model.predict(images, context=RequestContext.within(60))
            predictions.to_json()

    await client()
    late.clear()
    ticking, started = asyncio.create_task(timer()), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    cpu = time.process_time() - started
    ticking.cancel()
    return 1e6 * cpu / REQUESTS, float(np.percentile(late, 50)), float(np.percentile(late, 99))


async def main(path: Path) -> None:
    bundle = open_bundle(path)
    manifest, choice = bundle.manifest, choose(bundle.manifest, gpu=False, policy="auto")
    session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(bundle.read(choice.variant))
    sys.stdout.write(f"{manifest.name}: {choose_execution(session, manifest.input, 32).reason}\n")
    pixels = np.random.default_rng(0).integers(0, 256, manifest.input.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    for milliseconds, clients in product(SLOWED_MS, CLIENTS):
        slowed = SlowedSession(session, milliseconds / 1000)
        models = {
            mode: Model(
                manifest,
                choice,
                slowed,
                Execution(mode=mode, reason="measured", max_batch=32),
                queue=1000,
                max_pixels=10**6,
            )
            for mode in Mode
        }
        rounds = [
            {mode: await measure(model, clients, [EncodedImage(buffer.getvalue())]) for mode, model in models.items()}
            for _ in range(ROUNDS)
        ]
        for mode in Mode:
            cpu, p50, p99 = (
                round(statistics.median(values), 2) for values in zip(*(one[mode] for one in rounds), strict=True)
            )
            row = {"slowed_ms": milliseconds, "clients": clients, "mode": mode.value}
            row |= {"cpu_us_per_request": cpu, "late_p50_ms": p50, "late_p99_ms": p99}
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
