"""One worker process and the channel to it."""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from service.workers.channel import Channel, Handler


class Cause(StrEnum):
    """Why a worker was replaced: the label values of the metric."""

    EXITED = "exited"  # it ended by itself, with a status
    KILLED = "killed"  # by a signal of another process or the kernel, often for lack of memory
    UNRESPONSIVE = "unresponsive"  # its event loop hung
    UNFIT = "unfit"  # it could not serve its plan
    NOT_STARTED = "not_started"


@dataclass(frozen=True)
class Death:
    cause: Cause
    description: str  # for the log


class WorkerProcess:
    """A worker from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.serving = False
        self._killed_for: Cause | None = None

    @classmethod
    async def spawn(
        cls, module: str, listener: socket.socket, environment: Mapping[str, str], handle: Handler
    ) -> "WorkerProcess":
        """Starts the process. If the caller is cancelled, neither a socket nor a process is left. Raises OSError."""
        near, far = socket.socketpair()
        with far:
            channel = await Channel.over(near, handle)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", module, str(listener.fileno()), str(far.fileno())),
                    pass_fds=(listener.fileno(), far.fileno()),
                    env=environment,
                    process_group=0,  # Ctrl-C must reach only the supervisor
                )
            except BaseException:
                await channel.close()
                raise
        return cls(process, channel)

    def __str__(self) -> str:
        return f"worker process {self.process.pid}"

    async def death(self) -> Death:
        """Waits for the end of the process."""
        status = await self.process.wait()
        await self.channel.close()
        cause = self._killed_for or (Cause.EXITED if status >= 0 else Cause.KILLED)
        how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        return Death(cause, f"{self} {how}")

    def kill(self, cause: Cause | None = None) -> None:
        """Kills the process. cause is recorded in place of KILLED, unless a cause is recorded already."""
        self._killed_for = self._killed_for or cause
        with suppress(ProcessLookupError):
            self.process.kill()
