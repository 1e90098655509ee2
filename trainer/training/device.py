"""Where a run computes, and in which precision it is fast there."""

import platform
import re
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from trainer.errors import DeviceError
from trainer.recipe import Precision
from trainer.training.distributed import local_rank, started_by_torchrun


def choose_device(asked: str) -> torch.device:
    """auto takes CUDA where it works. Raises DeviceError where cuda is asked for and unusable: never silently slow."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = (
            "this PyTorch was built without CUDA" if torch.version.cuda is None else "no usable NVIDIA GPU or driver"
        )
        raise DeviceError(f"--device cuda was asked for, but {reason} was found; use --device cpu or auto.")
    return _own_gpu() if started_by_torchrun() else torch.device("cuda")


def _own_gpu() -> torch.device:
    """Of several processes on this machine each has a GPU of its own."""
    own, there = local_rank(), torch.cuda.device_count()
    if own >= there:
        raise DeviceError(f"There are more processes on this machine than GPUs ({there}); lower --nproc-per-node.")
    return torch.device("cuda", own)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({_processor()}, {torch.get_num_threads()} threads)"


def _processor() -> str:
    """Linux alone knows it by a file and not by `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def computes_in_bf16(precision: Precision, device: torch.device) -> bool:
    """auto is bf16 where the device has instructions for it; elsewhere it is emulated, and slower than fp32."""
    if precision is not Precision.AUTO:
        return precision is Precision.BF16
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # PyTorch has no public question for this on its older supported releases.
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[None]:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
