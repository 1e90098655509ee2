"""ONNX Runtime behind the Session seam. Sole importer of onnxruntime."""

import base64
import contextlib
import ctypes
import functools
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels
from service.errors import DeviceError, DeviceMemoryError, InferenceError
from service.settings import Device

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
ONNXRUNTIME_VERSION: str = ort.__version__

_PROBABILITIES = OUTPUT_NAMES[0]
_LOG_WARNING, _LOG_FATAL = 2, 4  # ONNX Runtime's levels; 2 is its default

# A 3x3 convolution as ONNX, 148 bytes: it makes CUDA load cuDNN, which a session alone does not.
_PROBE = base64.b64decode(
    "CAoSADqHAQoPCgF4CgF3EgF5IgRDb252EgVwcm9iZSozCAEIAQgDCAMQAUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/"
    "WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAwoCCANiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQFA=="
)

logger = logging.getLogger(__name__)


class OnnxRuntime:
    """threads are those of one inference on the CPU; spin lets them wait actively, which only a lone process may.

    No batch of more than max_batch images will come.
    """

    def __init__(self, device: Device, *, threads: int, spin: bool, max_batch: int = 32) -> None:
        """Raises DeviceError where CUDA is asked for and does not work."""
        self._threads = threads
        self._spin = spin
        self._max_batch = max_batch
        self.provider, self.reason = _choose(device)

    def open(self, model: bytes) -> "OnnxSession":
        try:
            # Without enable_fallback=0 a device that fails at a later run would silently be left for the CPU.
            providers = [_with_options(self.provider)]
            session = ort.InferenceSession(model, self._options(), providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise InferenceError(f"ONNX Runtime cannot open the graph: {_one_line(error)}") from error
        if self.provider == CUDA:
            return BucketSession(session, CUDA, "cuda", self._max_batch)
        return OnnxSession(session, self.provider, self._max_batch)

    def _options(self) -> ort.SessionOptions:
        _share_cpu_arena()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._spin else "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        return options


class OnnxSession:
    """Raises InferenceError where the graph does not run on the provider that it is meant for."""

    def __init__(self, session: ort.InferenceSession, provider: str, max_batch: int) -> None:
        self._session = session
        self.warm_batches: Sequence[int] = tuple(dict.fromkeys((1, max_batch)))
        self.provider: str = session.get_providers()[0]
        if self.provider != provider:  # ONNX Runtime falls back without raising
            raise InferenceError(f"ONNX Runtime put the graph on {self.provider} instead of {provider}.")
        self.inputs = [TensorInfo(i.name, i.type, i.shape) for i in session.get_inputs()]
        self.outputs = [TensorInfo(o.name, o.type, o.shape) for o in session.get_outputs()]

    def run(self, images: Pixels) -> FloatArray:
        try:
            return self._infer(images)
        except Exception as error:  # as in open
            if not _out_of_memory(error):
                raise InferenceError(f"ONNX Runtime failed on a batch of {len(images)}: {_one_line(error)}") from error
            if len(images) == 1:
                raise DeviceMemoryError(f"{self.provider} has no memory left; ask again later.") from error
        logger.warning("%s has no memory for a batch of %d; it is halved", self.provider, len(images))
        middle = len(images) // 2
        return np.concatenate([self.run(images[:middle]), self.run(images[middle:])])

    def _infer(self, images: Pixels) -> FloatArray:
        probabilities: FloatArray = self._session.run([_PROBABILITIES], {INPUT_NAME: images})[0]
        return probabilities


class BucketSession(OnnxSession):
    """For a GPU: a batch is filled up to the next of a few sizes, each with buffers of its own on the device.

    Each new batch size would make cuDNN choose its kernels anew, in the middle of a request.
    """

    def __init__(self, session: ort.InferenceSession, provider: str, device: str, max_batch: int) -> None:
        super().__init__(session, provider, max_batch)
        self._device = device
        self.warm_batches = buckets(max_batch)
        self._bound: dict[int, tuple[ort.IOBinding, ort.OrtValue, ort.OrtValue]] = {}

    def _infer(self, images: Pixels) -> FloatArray:
        size = next((size for size in self.warm_batches if size >= len(images)), len(images))
        padded = np.zeros((size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        binding, input_, output = self._buffers(padded)
        input_.update_inplace(padded)
        self._session.run_with_iobinding(binding)
        # A copy: the next batch of this size is written into the same buffer.
        probabilities: FloatArray = np.array(output.numpy()[: len(images)])
        return probabilities

    def _buffers(self, images: Pixels) -> "tuple[ort.IOBinding, ort.OrtValue, ort.OrtValue]":
        if len(images) not in self._bound:
            classes = next(output.shape[1] for output in self.outputs if output.name == _PROBABILITIES)
            input_ = ort.OrtValue.ortvalue_from_numpy(images, self._device, 0)
            output = ort.OrtValue.ortvalue_from_shape_and_type((len(images), classes), np.float32, self._device, 0)
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(INPUT_NAME, input_)
            binding.bind_ortvalue_output(_PROBABILITIES, output)
            self._bound[len(images)] = (binding, input_, output)
        return self._bound[len(images)]


def buckets(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, ... and max_batch: at most half of a batch is filling."""
    powers = (1 << exponent for exponent in range(max_batch.bit_length()))
    return tuple(sorted({*powers, max_batch}))


_CUDA_OPTIONS = {
    # TF32 would round fp32 to 10 bits, further from the golden samples than they allow.
    "use_tf32": "0",
    # The default searches for the fastest convolution at each new batch size, for seconds.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    return (CUDA, _CUDA_OPTIONS) if provider == CUDA else provider


@functools.cache
def _share_cpu_arena() -> None:
    """One arena for all sessions of the process, which grows by what is asked for and not by powers of two.

    With an arena each, memory grows for a while as models are swapped.
    """
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    same_as_requested = 1
    ort.create_and_register_allocator(cpu, ort.OrtArenaCfg({"arena_extend_strategy": same_as_requested}))


def _out_of_memory(error: Exception) -> bool:
    """ONNX Runtime has no exception of its own for it: by the words of its arena, of CUDA and of cuDNN."""
    said = str(error)
    return any(words in said for words in ("Failed to allocate memory", "out of memory", "ALLOC_FAILED"))


def _choose(device: Device) -> tuple[str, str]:
    """(provider, reason)."""
    if device is Device.CPU:
        return CPU, "CONVOY_DEVICE=cpu."
    missing = _why_no_cuda()
    if missing is None:
        return CUDA, "CUDA works here."
    if device is Device.CUDA:
        raise DeviceError(f"CONVOY_DEVICE=cuda, but CUDA cannot be used: {missing} Set CONVOY_DEVICE=auto or cpu.")
    return CPU, f"CUDA cannot be used: {missing}"


def _why_no_cuda() -> str | None:
    """None where a convolution really ran on CUDA, else what is missing. get_available_providers() does not tell."""
    if CUDA not in ort.get_available_providers():
        return "this build of onnxruntime has no CUDA in it; it is in the package onnxruntime-gpu."
    if not _loads("libcuda.so.1") and os.name == "posix":
        return "there is no NVIDIA driver here (libcuda.so.1); in a container, start it with the GPU given to it."
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; _missing_library says it better
        ort.preload_dlls()
    ort.set_default_logger_severity(_LOG_FATAL)
    try:
        session = ort.InferenceSession(_PROBE, providers=[CUDA], enable_fallback=0)
        if session.get_providers()[0] != CUDA:
            return _missing_library()
        session.run(None, {"x": np.ones((1, 1, 3, 3), np.float32)})
    except Exception as error:  # as in open; whatever it is, it is why
        return _one_line(error)
    finally:
        ort.set_default_logger_severity(_LOG_WARNING)
    return None


def _missing_library() -> str:
    """Why ONNX Runtime could not load its CUDA part, which it logs but does not tell.

    Only after it tried: a CUDA part that somebody else loads first would never find its host.
    """
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f"a CUDA library is missing ({error}); the extra [cuda] brings them."
    return "ONNX Runtime fell back to the CPU and did not say why; its own log may."


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."
