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
    """Why a worker's place was empty: the values of the metric's label."""

    EXITED = "exited"  # by itself, with a status
    KILLED = "killed"  # by a signal from elsewhere: often for want of memory
    UNRESPONSIVE = "unresponsive"  # it did not answer in time, and was ended
    UNFIT = "unfit"  # it could not serve what it should, and was ended
    NOT_STARTED = "not_started"  # it ended, or had to be, before it had started


@dataclass(frozen=True)
class Death:
    """how is for the log, after "a"."""

    cause: Cause
    how: str


class Member:
    """A worker from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.process = process
        self.channel = channel
        self.serving = False
        self._ended_for: Cause | None = None

    @classmethod
    async def spawn(
        cls, module: str, listener: socket.socket, environment: Mapping[str, str], handle: Handler
    ) -> "Member":
        """Raises OSError. Whoever gives up waiting for it leaves neither a socket nor a process behind."""
        ours, its = socket.socketpair()
        with its:
            channel = await Channel.over(ours, handle)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", module, str(listener.fileno()), str(its.fileno())),
                    pass_fds=(listener.fileno(), its.fileno()),
                    env=environment,
                    process_group=0,  # ^C is for the supervisor
                )
            except BaseException:
                await channel.close()
                raise
        return cls(process, channel)

    async def ended(self) -> Death:
        """Waits for the end of the process."""
        status = await self.process.wait()
        await self.channel.close()
        cause = self._ended_for or (Cause.EXITED if status >= 0 else Cause.KILLED)
        return Death(cause, f"worker process {self.process.pid} {said(status)}")

    def kill(self, cause: Cause | None = None) -> None:
        """cause is why its place is to be empty, where that is not just that it was killed."""
        self._ended_for = self._ended_for or cause
        with suppress(ProcessLookupError):
            self.process.kill()


def said(status: int) -> str:
    """How a process ended, by its return code."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
