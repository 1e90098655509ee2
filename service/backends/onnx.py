"""Runs models with ONNX Runtime. The only module of the service that imports onnxruntime."""

import base64
import contextlib
import ctypes
import functools
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from schemas.bundle import INPUT_NAME, MAP_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels
from service.backends.base import CPU, CUDA
from service.errors import DeviceError, DeviceMemoryError, InferenceError
from service.settings import Device

ONNXRUNTIME_VERSION: str = ort.__version__

_PROBABILITIES = OUTPUT_NAMES[:1]
_PROBABILITIES_AND_MAP = (OUTPUT_NAMES[0], MAP_NAME)
_LOG_WARNING, _LOG_FATAL = 2, 4  # ONNX Runtime's log levels; 2 is its default
_SHARE_ARENA = {"arena_extend_strategy": 1}  # kSameAsRequested: grow by the requested size, not by powers of two
_CUDA_OPTIONS = {
    # TF32 rounds fp32 to 10 bits, which exceeds the tolerance of the golden samples.
    "use_tf32": "0",
    # The default searches for the fastest convolution at each new batch size, which takes seconds.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}

# A 3x3 convolution as ONNX, 148 bytes. Running it loads cuDNN, which opening a session does not.
_PROBE = base64.b64decode(
    "CAoSADqHAQoPCgF4CgF3EgF5IgRDb252EgVwcm9iZSozCAEIAQgDCAMQAUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/"
    "WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAwoCCANiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQFA=="
)

logger = logging.getLogger(__name__)


class OnnxRuntime:
    """Opens sessions on the CPU or on CUDA."""

    def __init__(self, device: Device, *, threads: int, spin: bool, max_batch: int = 32, wide_threads: int = 0) -> None:
        """threads run one inference on the CPU; spin lets them wait actively, which suits a single process only.

        wide_threads run an inference that has the process to itself, if they are more. Raises DeviceError if CUDA is
        requested and does not work.
        """
        self._threads = threads
        self._spin = spin
        self._max_batch = max_batch
        self.provider, self.reason = _choose(device)
        self.wide: OnnxRuntime | None = None
        if self.provider == CPU and wide_threads > threads:
            self.wide = OnnxRuntime(Device.CPU, threads=wide_threads, spin=False, max_batch=1)

    def open(self, model: bytes) -> "OnnxSession":
        _share_cpu_arena()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._spin else "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        provider = (CUDA, _CUDA_OPTIONS) if self.provider == CUDA else self.provider
        try:
            # Without enable_fallback=0, a device that fails at a later run is silently replaced by the CPU.
            session = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise InferenceError(f"ONNX Runtime cannot open the graph: {_one_line(error)}") from error
        _trim_memory()
        if self.provider == CUDA:
            return BucketSession(session, CUDA, "cuda", self._max_batch)
        return OnnxSession(session, self.provider, self._max_batch)


class OnnxSession:
    """A session on the CPU."""

    def __init__(self, session: ort.InferenceSession, provider: str, max_batch: int) -> None:
        """Raises InferenceError if the graph does not run on the provider."""
        self._session = session
        self.warm_batches: Sequence[int] = tuple(dict.fromkeys((1, max_batch)))
        self.provider: str = session.get_providers()[0]
        if self.provider != provider:  # ONNX Runtime falls back without raising
            raise InferenceError(f"ONNX Runtime put the graph on {self.provider} instead of {provider}.")
        self.inputs = [TensorInfo(i.name, i.type, i.shape) for i in session.get_inputs()]
        self.outputs = [TensorInfo(o.name, o.type, o.shape) for o in session.get_outputs()]

    def run(self, images: Pixels) -> FloatArray:
        return self._run(images, _PROBABILITIES)[0]

    def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        probabilities, maps = self._run(images, _PROBABILITIES_AND_MAP)
        return probabilities, maps

    def _run(self, images: Pixels, outputs: Sequence[str]) -> list[FloatArray]:
        try:
            return self._infer(images, outputs)
        except Exception as error:  # as in open
            if not _out_of_memory(error):
                raise InferenceError(f"ONNX Runtime failed on a batch of {len(images)}: {_one_line(error)}") from error
            if len(images) == 1:
                raise DeviceMemoryError(f"{self.provider} is out of memory; try again later.") from error
        logger.warning("%s has no memory for a batch of %d images; running two halves", self.provider, len(images))
        middle = len(images) // 2
        halves = (self._run(images[:middle], outputs), self._run(images[middle:], outputs))
        return [np.concatenate(parts) for parts in zip(*halves, strict=True)]

    def _infer(self, images: Pixels, outputs: Sequence[str]) -> list[FloatArray]:
        found: list[FloatArray] = self._session.run(outputs, {INPUT_NAME: images})
        return found


class BucketSession(OnnxSession):
    """A session on a GPU. It pads each batch to one of a few sizes, each with its own buffers on the device.

    A new batch size would make cuDNN choose its kernels again, during a request.
    """

    def __init__(self, session: ort.InferenceSession, provider: str, device: str, max_batch: int) -> None:
        super().__init__(session, provider, max_batch)
        self._device = device
        self.warm_batches = buckets(max_batch)
        self._buffers: dict[tuple[int, Sequence[str]], tuple[ort.IOBinding, ort.OrtValue, list[ort.OrtValue]]] = {}

    def _infer(self, images: Pixels, outputs: Sequence[str]) -> list[FloatArray]:
        size = next((size for size in self.warm_batches if size >= len(images)), len(images))
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        if (size, outputs) not in self._buffers:
            self._buffers[size, outputs] = self._bind(padded, outputs)
        binding, input_, found = self._buffers[size, outputs]
        input_.update_inplace(padded)
        self._session.run_with_iobinding(binding)
        # Copies, since the next batch of this size overwrites the buffers.
        return [np.array(output.numpy()[: len(images)]) for output in found]

    def _bind(self, images: Pixels, outputs: Sequence[str]) -> "tuple[ort.IOBinding, ort.OrtValue, list[ort.OrtValue]]":
        binding, found = self._session.io_binding(), []
        input_ = ort.OrtValue.ortvalue_from_numpy(images, self._device, 0)
        binding.bind_ortvalue_input(INPUT_NAME, input_)
        shapes = {output.name: output.shape[1:] for output in self.outputs}
        for name in outputs:
            shape = (len(images), *shapes[name])
            found.append(ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, 0))
            binding.bind_ortvalue_output(name, found[-1])
        return binding, input_, found


def buckets(max_batch: int) -> tuple[int, ...]:
    """Returns 1, 2, 4, ... and max_batch: padding is at most half of a batch."""
    powers = (1 << exponent for exponent in range(max_batch.bit_length()))
    return tuple(sorted({*powers, max_batch}))


@functools.cache
def _share_cpu_arena() -> None:
    """Gives the sessions of the process one arena. With an arena each, memory grows for a while as models change."""
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(cpu, ort.OrtArenaCfg(_SHARE_ARENA))


def _trim_memory() -> None:
    """Returns freed memory to the system. Opening a session frees copies of its weights, which glibc would keep."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(0)


def _out_of_memory(error: Exception) -> bool:
    """ONNX Runtime has no exception type for this; its arena, CUDA and cuDNN each word it differently."""
    text = str(error)
    return any(words in text for words in ("Failed to allocate memory", "out of memory", "ALLOC_FAILED"))


def _choose(device: Device) -> tuple[str, str]:
    """Returns (provider, reason)."""
    if device is Device.CPU:
        return CPU, "CONVOY_DEVICE=cpu."
    missing = _cuda_problem()
    if missing is None:
        return CUDA, "CUDA works here."
    if device is Device.CUDA:
        raise DeviceError(f"CONVOY_DEVICE=cuda, but CUDA cannot be used: {missing} Set CONVOY_DEVICE=auto or cpu.")
    return CPU, f"CUDA cannot be used: {missing}"


def _cuda_problem() -> str | None:
    """Returns None if a convolution ran on CUDA, else the missing part. get_available_providers() is not reliable."""
    if CUDA not in ort.get_available_providers():
        return "this build of onnxruntime does not include CUDA; install the package onnxruntime-gpu."
    if os.name == "posix" and _load_error("libcuda.so.1"):
        return "no NVIDIA driver is installed (libcuda.so.1); start a container with access to the GPU."
    with contextlib.redirect_stdout(io.StringIO()):  # _missing_library reports a missing library more clearly
        ort.preload_dlls()
    ort.set_default_logger_severity(_LOG_FATAL)
    try:
        session = ort.InferenceSession(_PROBE, providers=[CUDA], enable_fallback=0)
        if session.get_providers()[0] != CUDA:
            return _missing_library()
        session.run(None, {"x": np.ones((1, 1, 3, 3), np.float32)})
    except Exception as error:  # as in open; any failure means that CUDA does not work
        return _one_line(error)
    finally:
        ort.set_default_logger_severity(_LOG_WARNING)
    return None


def _missing_library() -> str:
    """Returns why ONNX Runtime could not load its CUDA provider, which it logs but does not raise.

    Call it only after ONNX Runtime has tried: the provider library does not work if it is loaded first.
    """
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if error := _load_error(str(provider)):
        return f"a CUDA library is missing ({error}); install the extra [cuda]."
    return "ONNX Runtime fell back to the CPU without a reason; its log may have one."


def _load_error(library: str) -> OSError | None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return error
    return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."
