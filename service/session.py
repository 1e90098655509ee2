"""What runs a model: the Session seam, ONNX Runtime behind it, and a fake for tests. Sole importer of onnxruntime."""

import base64
import contextlib
import ctypes
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray, TensorInfo
from schemas.image import Pixels
from service.errors import DeviceError, InferenceError
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


class Session(Protocol):
    """One loaded graph. run is called from one thread at a time."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""

    @property
    def inputs(self) -> Sequence[TensorInfo]: ...

    @property
    def outputs(self) -> Sequence[TensorInfo]: ...

    def run(self, images: Pixels) -> FloatArray:
        """uint8 [batch, height, width, channels] -> probabilities float32 [batch, classes]. Raises InferenceError."""


class Runtime(Protocol):
    """Opens sessions, all on one device. provider is what they are to run on, reason why."""

    @property
    def provider(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def open(self, model: bytes) -> Session:
        """Raises InferenceError for bytes that are no usable graph."""


class OnnxRuntime:
    """threads are those of one inference on the CPU; spin lets them wait actively, which only a lone process may."""

    def __init__(self, device: Device, *, threads: int, spin: bool) -> None:
        """Raises DeviceError where CUDA is asked for and does not work."""
        self._threads = threads
        self._spin = spin
        self.provider, self.reason = _choose(device)

    def open(self, model: bytes) -> "OnnxSession":
        try:
            # Without enable_fallback=0 a device that fails at a later run would silently be left for the CPU.
            providers = [_with_options(self.provider)]
            session = ort.InferenceSession(model, self._options(), providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise InferenceError(f"ONNX Runtime cannot open the graph: {_one_line(error)}") from error
        return OnnxSession(session, self.provider)

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._spin else "0")
        return options


class OnnxSession:
    """Raises InferenceError where the graph does not run on the provider that it is meant for."""

    def __init__(self, session: ort.InferenceSession, provider: str) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        if self.provider != provider:  # ONNX Runtime falls back without raising
            raise InferenceError(f"ONNX Runtime put the graph on {self.provider} instead of {provider}.")
        self.inputs = [TensorInfo(i.name, i.type, i.shape) for i in session.get_inputs()]
        self.outputs = [TensorInfo(o.name, o.type, o.shape) for o in session.get_outputs()]

    def run(self, images: Pixels) -> FloatArray:
        try:
            probabilities: FloatArray = self._session.run([_PROBABILITIES], {INPUT_NAME: images})[0]
        except Exception as error:  # as in open
            raise InferenceError(f"ONNX Runtime failed on a batch of {len(images)}: {_one_line(error)}") from error
        return probabilities


class FakeSession:
    """Answers with what answer(images) gives, in the shape of a graph of this input and number of classes."""

    provider = "FakeExecutionProvider"

    def __init__(self, shape: tuple[int, int, int], classes: int, answer: Callable[[Pixels], FloatArray]) -> None:
        self.inputs = [TensorInfo(INPUT_NAME, "tensor(uint8)", ["batch", *shape])]
        self.outputs = [TensorInfo(name, "tensor(float)", ["batch", classes]) for name in OUTPUT_NAMES]
        self._answer = answer

    def run(self, images: Pixels) -> FloatArray:
        return self._answer(images)


class FakeRuntime:
    """Opens whatever session_of gives for the model's bytes."""

    provider = FakeSession.provider
    reason = "It is a fake, for tests."

    def __init__(self, session_of: Callable[[bytes], Session]) -> None:
        self._session_of = session_of

    def open(self, model: bytes) -> Session:
        return self._session_of(model)


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """TF32 would round fp32 to 10 bits, further from the golden samples than they allow."""
    return (CUDA, {"use_tf32": "0"}) if provider == CUDA else provider


def usable_cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
