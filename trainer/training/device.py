"""The device that a run computes on."""

import platform
import re
from pathlib import Path

import torch

from trainer.errors import DeviceError
from trainer.training.distributed import local_rank, started_by_torchrun


def choose_device(name: str) -> torch.device:
    """Returns the device for auto, cpu or cuda; auto prefers a usable GPU.

    Raises DeviceError for cuda without a usable GPU: a run never falls back to the CPU silently.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        reason = "there is no usable NVIDIA GPU or driver" if built else "this PyTorch was built without CUDA"
        raise DeviceError(f"--device cuda cannot be used: {reason}. Use --device cpu or auto.")
    return _own_gpu() if started_by_torchrun() else torch.device("cuda")


def _own_gpu() -> torch.device:
    """Returns this process's own GPU. Raises DeviceError when the machine has fewer GPUs than processes."""
    rank, gpus = local_rank(), torch.cuda.device_count()
    if rank >= gpus:
        raise DeviceError(f"This machine has more processes than GPUs ({gpus}). Lower --nproc-per-node to {gpus}.")
    return torch.device("cuda", rank)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({_processor()}, {torch.get_num_threads()} threads)"


def _processor() -> str:
    """Returns the processor's name. On Linux `platform` does not know it, but /proc/cpuinfo does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
