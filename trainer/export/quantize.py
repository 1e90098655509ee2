"""Makes the int8 and fp16 variants from the fp32 file and keeps those that pass their gates.

A variant that fails is dropped with its reason; it never stops a run.
"""

import logging
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from trainer.data.split import Splits
from trainer.errors import one_line
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.onnx_session import CPU, CUDA, OnnxModel
from trainer.export.graph import GoldenMaps, Graph
from trainer.export.latency import measure_speed
from trainer.export.onnx import NetworkOutput, spread

CALIBRATION_IMAGES = 64  # 8 to 512 give the same accuracy
# The gates.
MAX_ACCURACY_LOSS = 0.005  # on validation
MIN_SPEED = 1.05  # times fp32's, at every batch size: less may be noise, and is not worth any accuracy
MAX_TOLERANCE = 0.5  # of a golden probability: with more, a damaged file would pass as well
# The service's processor may round differently from the one that the tolerance was measured on.
_MARGIN, _MIN_TOLERANCE = 1.5, 0.01


@dataclass(frozen=True)
class Reference:
    """The whole fp32 graph, and what its variants are compared with.

    validation_accuracy is the fp32 file's; golden_images are uint8 [n, height, width, channels], and
    golden_probabilities the expected float32 [n, classes].
    """

    model: bytes
    data: Splits
    validation_accuracy: float
    network: NetworkOutput
    golden_images: Pixels
    golden_probabilities: FloatArray
    golden_maps: GoldenMaps | None = None

    @property
    def calibration_images(self) -> Pixels:
        """Training images from all over the split: a source may be sorted by class."""
        return self.data.train.images[spread(len(self.data.train), CALIBRATION_IMAGES)]


@dataclass(frozen=True)
class Variants:
    kept: tuple[Variant, ...] = ()
    dropped: tuple[DroppedVariant, ...] = ()


class _UnfitError(Exception):
    """The message is the reason why a variant is dropped."""


SpeedTest = Callable[[OnnxModel, OnnxModel, Pixels], tuple[BatchSpeed, ...]]


def make_variants(
    names: Sequence[VariantName], reference: Reference, folder: Path, speed_test: SpeedTest = measure_speed
) -> Variants:
    """Writes model.<name>.onnx into the folder for each variant that passes. Raises OSError."""
    kept, dropped = [], []
    for name in names:
        try:
            graph, map_tolerance, variant = _make(name, reference, speed_test)
        except _UnfitError as error:
            dropped.append(DroppedVariant(name=name, reason=str(error)))
        else:
            file = folder / f"model.{name}.onnx"
            explanation = graph.write(file, map_tolerance)
            kept.append(Variant(name=name, **dict(hash_file(file, folder)), explanation=explanation, **variant))
    return Variants(tuple(kept), tuple(dropped))


def _make(name: VariantName, reference: Reference, speed_test: SpeedTest) -> tuple[Graph, float | None, dict[str, Any]]:
    """Returns the variant, the tolerance of its maps, and its manifest entry without files. Raises _UnfitError."""
    provider, data = PROVIDERS[name], reference.data
    _check_provider(provider)
    try:
        with _no_logging():
            graph = Graph.of(CONVERT[name](reference))
        model, fp32 = (OnnxModel(each.main, provider) for each in (graph, Graph.of(reference.model)))
        _check_runs_on(model, provider)
        _check_signature(model, fp32)
        tolerance = golden_tolerance(model, reference)
        _check_tolerance(tolerance)
        _check_accuracy(evaluate(model, data.validation, data.labels).metrics.accuracy, reference.validation_accuracy)
        speed = speed_test(model, fp32, reference.calibration_images)
        _check_speed(speed)
        test = evaluate(model, data.test, data.labels)
        map_tolerance = golden_map_tolerance(graph, provider, reference.golden_maps)
        return (
            graph,
            map_tolerance,
            {
                "metrics": VariantMetrics(accuracy=test.metrics.accuracy, log_loss=test.metrics.log_loss),
                "parity": reference.network.parity(test.logits),
                "golden_tolerance": tolerance,
                "speed": speed,
            },
        )
    except _UnfitError:
        raise
    except Exception as error:  # the converters and ONNX Runtime raise exceptions of many types
        raise _UnfitError(f"it could not be made: {one_line(error)}") from error


def to_int8(reference: Reference) -> bytes:
    """Quantises convolutions and dense layers statically, per channel, as QDQ nodes (Jacob et al., 2018)."""
    with tempfile.TemporaryDirectory() as folder:
        fp32, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared", "quantised"))
        fp32.write_bytes(reference.model)
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)  # the exporter has written every shape already
        quantize_static(
            prepared,
            quantised,
            _SingleImages(reference.calibration_images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Clip", "Relu"],  # activations narrow the range
            per_channel=True,
            reduce_range=saturates(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantised.read_bytes()


def to_fp16(reference: Reference) -> bytes:
    """Converts to half precision; inputs and outputs keep their types."""
    model = convert_float_to_float16(onnx.load_from_string(reference.model), keep_io_types=True)
    data: bytes = model.SerializeToString()
    return data


PROVIDERS = {VariantName.INT8: CPU, VariantName.FP16: CUDA}
CONVERT: dict[VariantName, Callable[[Reference], bytes]] = {VariantName.INT8: to_int8, VariantName.FP16: to_fp16}


class _SingleImages(CalibrationDataReader):  # type: ignore[misc]
    """Yields batches of one image: the calibrator holds the activations of all layers at once."""

    def __init__(self, images: Pixels) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image[np.newaxis]}


def saturates(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = platform.machine()) -> bool:
    """Returns whether the processor is x86 without VNNI.

    Such a processor adds products of 8-bit numbers in 16 bits, which overflow unless the weights have 7 bits.
    """
    if machine.lower() not in {"x86_64", "amd64"}:
        return False
    return not (cpuinfo.exists() and {"avx512_vnni", "avx_vnni"} & set(cpuinfo.read_text().split()))


def golden_tolerance(model: OnnxModel, reference: Reference) -> float:
    """Returns the variant's largest difference from a golden probability, with a margin; NaN if it answers NaN."""
    differences = np.abs(model.probabilities(reference.golden_images) - reference.golden_probabilities)
    return float(differences.max()) * _MARGIN + _MIN_TOLERANCE


def golden_map_tolerance(graph: Graph, provider: str, golden: GoldenMaps | None) -> float | None:
    """Like golden_tolerance, for the maps."""
    if golden is None:
        return None
    return golden.difference(OnnxModel(graph.whole, provider)) * _MARGIN + _MIN_TOLERANCE * golden.scale


def _check_provider(provider: str) -> None:
    if provider == CUDA and not (torch.cuda.is_available() and CUDA in onnxruntime.get_available_providers()):
        raise _UnfitError("this machine has no GPU to measure it on")


def _check_runs_on(model: OnnxModel, provider: str) -> None:
    if model.provider != provider:  # ONNX Runtime falls back without raising
        raise _UnfitError(f"ONNX Runtime ran it on {model.provider} instead of {provider}")


def _check_signature(model: OnnxModel, fp32: OnnxModel) -> None:
    found, expected = (
        [(tensor.name, tensor.type, list(tensor.shape[1:])) for tensor in (*one.inputs, *one.outputs)]
        for one in (model, fp32)
    )
    if found != expected or any(isinstance(tensor.shape[0], int) for tensor in (*model.inputs, *model.outputs)):
        raise _UnfitError("its inputs or outputs differ from those of fp32")


def _check_tolerance(tolerance: float) -> None:
    if not tolerance <= MAX_TOLERANCE:  # written so that NaN fails
        raise _UnfitError(
            f"golden samples would need a tolerance of {tolerance:.2f} in a probability; the limit is {MAX_TOLERANCE:g}"
        )


def _check_accuracy(accuracy: float, fp32: float) -> None:
    """Checks the loss on validation; the test split must not choose anything."""
    if fp32 - accuracy > MAX_ACCURACY_LOSS:
        raise _UnfitError(
            f"it loses {(fp32 - accuracy) * 100:.2f} points of accuracy on validation; "
            f"the limit is {MAX_ACCURACY_LOSS * 100:g}"
        )


def _check_speed(speed: Sequence[BatchSpeed]) -> None:
    slowest = min(speed, key=lambda entry: entry.ratio)
    if slowest.ratio < MIN_SPEED:
        raise _UnfitError(
            f"it has {slowest.ratio:.2f} times the speed of fp32 at batch size {slowest.batch}; "
            f"the minimum is {MIN_SPEED:g}"
        )


@contextmanager
def _no_logging() -> Iterator[None]:
    """Disables logging: the converters also log what they raise, with its traceback."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
