"""A worker process that loads nothing and can die on request: `python -m tests.support.fake_worker`.

The folder in FAKE_WORKER holds what it shall do: a file `die-at-<call>` ends it at that call,
`hang-at-<call>` and `hang-at-<call>-<pid>` make it wait there, `refuse` makes it refuse every version.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path

from service.errors import DeviceError
from service.repository.plan import Refused
from service.telemetry.counters import Report
from service.workers import messages
from service.workers.channel import Channel

DEAD = 7
BAD = 13  # a version that is refused
DEADLY = 666  # a version that ends the process that loads it


async def answer(call: messages.Call) -> messages.Answer:
    folder = Path(os.environ["FAKE_WORKER"])
    if (folder / f"die-at-{call.kind}").exists():
        os._exit(DEAD)
    (folder / f"{call.kind}-{os.getpid()}").touch()
    hang = folder / f"hang-at-{call.kind}", folder / f"hang-at-{call.kind}-{os.getpid()}"
    while any(file.exists() for file in hang):
        await asyncio.sleep(0.01)
    match call:
        case messages.Start():
            if (folder / "no-device").exists():
                raise DeviceError("There is no device.")
            return messages.Started(gpu=(folder / "gpu").exists(), provider="Fake", reason="It is a fake.")
        case messages.Prepare():
            (folder / f"prepare{call.ref.version}-{os.getpid()}").touch()
            if call.ref.version == DEADLY:
                os._exit(DEAD)
            bad = call.ref.version == BAD or (folder / "refuse").exists()
            return messages.Verdict(refused=Refused(ref=call.ref, reason="It is bad.") if bad else None)
        case messages.GetMetrics():
            return messages.Metrics.of(Report({("asked",): 1}, {}))
        case messages.Drain():
            return messages.Drained(accepted=3, answered=2)
    return messages.Done()


async def run(control: socket.socket) -> None:
    channel = await Channel.over(control, answer)
    await channel.wait_closed()


if __name__ == "__main__":
    asyncio.run(run(socket.socket(fileno=int(sys.argv[2]))))
