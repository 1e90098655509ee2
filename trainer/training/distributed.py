"""Data-parallel training: torchrun starts several processes, and each takes its share of every batch.

recipe.batch_size is the size of the whole batch, so the number of processes does not change what a run computes. The
one exception is batch norm, which sees only its own process's share. Only the main process prints and writes.
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
    """The processes of a run, and this process's rank among them. All processes must call every method but shard."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def shard(self, batch: Tensor) -> Tensor:
        """Returns this process's share of a batch: every size-th image. Shares differ by at most one image."""
        return batch[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over all processes; `values` is overwritten."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """Returns the main process's value in every process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Runs the block in the main process, then in the others."""
        if self.size > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_main:
            distributed.barrier()

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Returns the network to call in training, which averages gradients over the processes.

        It synchronises the parameters that require a gradient now; build it again when that set changes.
        """
        return network if self.size == 1 else DistributedDataParallel(network)


ALONE = World()


def started_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Returns this process's number on its machine, which is also the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started, if it did.

    Raises ProcessError when another process of the run ends early. PyTorch reports only a lost connection.
    """
    if not started_by_torchrun():
        yield ALONE
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ProcessError(f"WORLD_SIZE is set, but not {', '.join(missing)}. Start several processes with torchrun.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise ProcessError(
            "Another process of this run ended early, so this one stops too. Read that process's error message, then "
            "start the same command again with --resume."
        ) from error
    finally:
        distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """gloo raises plain RuntimeErrors, which only their text identifies."""
    return isinstance(error, distributed.DistError) or any(
        text in str(error) for text in ("gloo", "Connection closed by peer", "Connection reset by peer")
    )
