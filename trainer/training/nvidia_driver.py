"""Asks NVIDIA's driver for a GPU: PyTorch, which also knows, takes seconds to import."""

import ctypes
import os

from trainer.errors import DeviceError


def check_device(name: str) -> None:
    """Raises DeviceError for cuda on a machine without a usable GPU."""
    if name == "cuda" and not _finds_gpu():
        raise DeviceError(
            "--device cuda cannot be used: there is no usable NVIDIA GPU or driver. Use --device cpu or auto."
        )


def _finds_gpu() -> bool:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
