"""Several processes that train one network, started by torchrun: each takes its part of every batch.

The whole batch is recipe.batch_size however many processes share it, so that a run is the same run on more devices;
only batch norm sees less, the part of its own process. The first process alone speaks and writes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import ProcessError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this one is. Every method but part is called by all or by none."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, index: Tensor) -> Tensor:
        """What of a batch is for the process that asks: every size-th image; lengths differ by one at most."""
        return index[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def number_of_the_first(self, value: float) -> float:
        if self.size == 1:
            return value
        return float(self.of_the_first(value))

    def of_the_first(self, value: T) -> T:
        """What the first process has, in every process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """What each process has, in order."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        if self.size > 1:
            distributed.barrier()

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """The block in the first process, then in the others."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def averaging_gradients(self, network: nn.Module) -> nn.Module:
        """The network as it is called in training: gradients are means over the processes."""
        return network if self.size == 1 else DistributedDataParallel(network)


ALONE = World()


def started_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Which of this machine's processes this one is, and so which of its GPUs is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """The world that torchrun made, or this process alone.

    Raises ProcessError where another process of the run is gone: what it was told by, PyTorch's communication, knows no
    more than that.
    """
    if not started_by_torchrun():
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ProcessError(f"WORLD_SIZE is set, but not {', '.join(missing)}: start several processes with torchrun.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if not _lost_connection(error):
            raise
        raise ProcessError(
            "Another process of this run ended before its time (its own message stands above or in its log), so this "
            "one stops as well; start the same command again with --resume."
        ) from error
    finally:
        distributed.destroy_process_group()


def _lost_connection(error: RuntimeError) -> bool:
    """gloo raises plain RuntimeErrors: what they say is all there is to tell them by."""
    return isinstance(error, distributed.DistError) or any(
        word in str(error) for word in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
