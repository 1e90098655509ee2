"""The int8 and fp16 variants: made of the fp32 file, measured through ONNX Runtime, kept only where they pass.

A variant that cannot be made, or does not pass, is dropped with its reason; it never stops a run.
"""

import logging
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from schemas.bundle import INPUT_NAME, FloatArray, hash_file
from schemas.image import Pixels
from schemas.manifest import BatchSpeed, DroppedVariant, Variant, VariantMetrics, VariantName
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.onnx_session import CPU, CUDA, OnnxModel
from trainer.export.latency import measure_speed
from trainer.export.onnx import parity

CALIBRATION_IMAGES = 512
_CALIBRATION_BATCH = 64
# The gates.
LARGEST_LOSS = 0.005  # of accuracy, on validation
LEAST_SPEED = 1.05  # times fp32's, at every batch size: less may be chance, and is not worth any accuracy
LARGEST_TOLERANCE = 0.5  # of a golden probability: with more, a damaged file would pass as well
# Another processor rounds otherwise than the one that the tolerance was measured on.
_MARGIN, _LEAST_TOLERANCE = 1.5, 0.01


@dataclass(frozen=True)
class Reference:
    """What variants are made of and measured against.

    model is the fp32 file, validation and test what it answers; images are training images, whose activations give
    int8 its ranges; logits are the PyTorch network's on test; golden images have the probabilities expected.
    """

    model: bytes
    labels: tuple[str, ...]
    images: Pixels
    validation: Evaluation
    test: Evaluation
    logits: FloatArray
    golden: Pixels
    expected: FloatArray


@dataclass(frozen=True)
class Variants:
    kept: tuple[Variant, ...] = ()
    dropped: tuple[DroppedVariant, ...] = ()


class _UnfitError(Exception):
    """The message is why a variant is dropped."""


Timed = Callable[[OnnxModel, OnnxModel, Pixels], tuple[BatchSpeed, ...]]


def make_variants(
    names: Sequence[VariantName], reference: Reference, folder: Path, timed: Timed = measure_speed
) -> Variants:
    """Writes model.<name>.onnx into the folder for each variant that passes. Raises OSError where it cannot."""
    kept, dropped = [], []
    for name in names:
        try:
            model, speed = _passing(name, reference, timed)
        except _UnfitError as error:
            dropped.append(DroppedVariant(name=name, reason=str(error)))
        else:
            file = folder / f"model.{name}.onnx"
            file.write_bytes(model)
            kept.append(_described(name, OnnxModel(model, PROVIDERS[name]), speed, reference, file))
    return Variants(tuple(kept), tuple(dropped))


def _passing(name: VariantName, reference: Reference, timed: Timed) -> tuple[bytes, tuple[BatchSpeed, ...]]:
    """The variant's file and its speed. Raises _UnfitError."""
    provider = PROVIDERS[name]
    _check_provider(provider)
    try:
        with _quiet():
            model = CONVERT[name](reference)
        variant = OnnxModel(model, provider)
        _check_runs_there(variant, provider)
        _check_signature(variant, OnnxModel(reference.model))
        _check_tolerance(golden_tolerance(variant, reference))
        validation = evaluate(variant, reference.validation.data, reference.labels)
        _check_accuracy(validation.metrics.accuracy, reference.validation.metrics.accuracy)
        # One thread: a service for many requests has a worker a core.
        alone, fp32 = (OnnxModel(content, provider, threads=1) for content in (model, reference.model))
        speed = timed(alone, fp32, reference.images)
        _check_speed(speed)
    except _UnfitError:
        raise
    except Exception as error:  # the converters and ONNX Runtime raise whatever they like
        raise _UnfitError(f"it could not be made: {_one_line(error)}") from error
    return model, speed


def _described(
    name: VariantName, model: OnnxModel, speed: tuple[BatchSpeed, ...], reference: Reference, file: Path
) -> Variant:
    test = evaluate(model, reference.test.data, reference.labels)
    return Variant(
        name=name,
        **hash_file(file, file.parent).model_dump(),
        metrics=VariantMetrics(accuracy=test.metrics.accuracy, log_loss=test.metrics.log_loss),
        parity=parity(reference.logits, test.logits),
        golden_tolerance=golden_tolerance(model, reference),
        speed=speed,
    )


def to_int8(reference: Reference) -> bytes:
    """Static quantisation of convolutions and dense layers, weights by channel, as QDQ nodes (Jacob et al., 2018)."""
    with tempfile.TemporaryDirectory() as folder:
        fp32, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared", "quantised"))
        fp32.write_bytes(reference.model)
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)  # the exporter has written every shape already
        quantize_static(
            prepared,
            quantised,
            _Batches(reference.images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=True,
            reduce_range=saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantised.read_bytes()


def to_fp16(reference: Reference) -> bytes:
    """Half precision inside; what goes in and comes out stays as it is."""
    model = convert_float_to_float16(onnx.load_from_string(reference.model), keep_io_types=True)
    data: bytes = model.SerializeToString()
    return data


PROVIDERS = {VariantName.INT8: CPU, VariantName.FP16: CUDA}
CONVERT: dict[VariantName, Callable[[Reference], bytes]] = {VariantName.INT8: to_int8, VariantName.FP16: to_fp16}


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Pixels) -> None:
        self._batches: Iterator[Pixels] = iter(
            np.split(images, range(_CALIBRATION_BATCH, len(images), _CALIBRATION_BATCH))
        )

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def saturates(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = platform.machine()) -> bool:
    """Whether the processor adds products of 8 bits in 16, which 7-bit weights cannot fill: x86 before VNNI."""
    if machine.lower() not in {"x86_64", "amd64"}:
        return False
    return not (cpuinfo.exists() and {"avx512_vnni", "avx_vnni"} & set(cpuinfo.read_text().split()))


def golden_tolerance(model: OnnxModel, reference: Reference) -> float:
    """The variant's largest difference from a golden probability, with a margin; NaN where it answers NaN."""
    difference = float(np.abs(model.probabilities(reference.golden) - reference.expected).max())
    return difference * _MARGIN + _LEAST_TOLERANCE


def _check_provider(provider: str) -> None:
    if provider == CUDA and not (torch.cuda.is_available() and CUDA in onnxruntime.get_available_providers()):
        raise _UnfitError("no GPU to measure it on")


def _check_runs_there(model: OnnxModel, provider: str) -> None:
    if model.provider != provider:  # ONNX Runtime falls back without raising
        raise _UnfitError(f"ONNX Runtime put it on {model.provider} instead of {provider}")


def _check_signature(model: OnnxModel, fp32: OnnxModel) -> None:
    found, expected = (
        [(tensor.name, tensor.type, list(tensor.shape[1:])) for tensor in (*one.inputs, *one.outputs)]
        for one in (model, fp32)
    )
    if found != expected or any(isinstance(tensor.shape[0], int) for tensor in (*model.inputs, *model.outputs)):
        raise _UnfitError("its inputs or outputs are not those of fp32")


def _check_tolerance(tolerance: float) -> None:
    if not tolerance <= LARGEST_TOLERANCE:  # written so that NaN fails
        raise _UnfitError(
            f"golden samples would have to allow a difference of {tolerance:.2f} in a probability; "
            f"at most {LARGEST_TOLERANCE:g} is asked for"
        )


def _check_accuracy(accuracy: float, fp32: float) -> None:
    """Of validation: the test split chooses nothing."""
    if fp32 - accuracy > LARGEST_LOSS:
        raise _UnfitError(
            f"{(fp32 - accuracy) * 100:.2f} points of accuracy lost on validation; "
            f"at most {LARGEST_LOSS * 100:g} is asked for"
        )


def _check_speed(speed: Sequence[BatchSpeed]) -> None:
    slowest = min(speed, key=lambda entry: entry.ratio)
    if slowest.ratio < LEAST_SPEED:
        raise _UnfitError(
            f"{slowest.ratio:.2f} times the speed of fp32 at batch {slowest.batch}; "
            f"at least {LEAST_SPEED:g} is asked for"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The converters log what they raise as well, with its traceback."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
