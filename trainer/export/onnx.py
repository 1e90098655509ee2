"""nn.Module -> ONNX bytes that take uint8 images, equal to the network or not written at all."""

import copy
import logging
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray
from schemas.manifest import InputSpec, Parity
from trainer.errors import ExportError
from trainer.evaluation.onnx_session import BATCH, ImageRows, OnnxModel

OPSET = 20
PARITY_BATCHES = (1, 2, 7)
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-4


class Deployed(nn.Module):
    """The graph of a bundle: uint8 [batch, height, width, channels] -> probabilities and logits [batch, classes].

    The temperature calibrates the probabilities; the logits stay the network's own.
    """

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images.permute(0, 3, 1, 2).float() / 255)
        return (logits / self.temperature).softmax(dim=1), logits


@dataclass(frozen=True)
class Exported:
    """The file's bytes and their parity with the network on some images.

    logits are the network's own for these images, answers the file's probabilities and logits.
    """

    model: bytes
    parity: Parity
    logits: FloatArray
    answers: tuple[FloatArray, FloatArray]


def export(network: nn.Module, spec: InputSpec, images: ImageRows, temperature: float = 1.0) -> Exported:
    """ONNX bytes of a network in eval mode, checked against it on the given real images.

    Raises ExportError where the two differ: at any of the batch sizes 1, 2 and 7, or in the class they give to an image
    of the whole set, but for near ties.
    """
    return check_parity(network, to_onnx(network, spec, temperature), images)


def to_onnx(network: nn.Module, spec: InputSpec, temperature: float = 1.0) -> bytes:
    """Batch norm is folded into the convolutions first: exporters' own folding has broken parallel branches before."""
    try:
        folded = fuse(copy.deepcopy(network).cpu().eval()) if _has_batch_norm(network) else network
        model = _quietly_exported(Deployed(folded, temperature).eval(), torch.zeros(2, *spec.shape, dtype=torch.uint8))
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # tracing, exporting and checking each raise a tree of their own
        raise ExportError(f"PyTorch could not export the network: {_first_line(error)}") from error
    data: bytes = model.SerializeToString()
    return data


def check_parity(network: nn.Module, model: bytes, images: ImageRows) -> Exported:
    """Raises ExportError; see export."""
    onnx_model = OnnxModel(model)
    _check_batch_is_symbolic(onnx_model)
    for size in PARITY_BATCHES:
        for start in range(0, min(len(images), 3 * size), size):
            batch = images[start : start + size]
            expected, found = network_logits(network, batch), onnx_model.run(batch)[1]
            if not np.allclose(found, expected, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE):
                raise ExportError(
                    f"The exported graph differs from the network by {np.abs(found - expected).max():.2g} in a logit "
                    f"at batch size {len(batch)} (allowed: {ABSOLUTE_TOLERANCE:g} + {RELATIVE_TOLERANCE:g} of it); "
                    "no bundle was written."
                )
    logits, answers = network_logits(network, images), onnx_model.answers(images)
    return Exported(model, _agreement(logits, answers[1]), logits, answers)


def _agreement(expected: FloatArray, found: FloatArray) -> Parity:
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    best = np.sort(expected, axis=1)
    near_tie = best[:, -1] - best[:, -2] <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(best[:, -1])
    if not (same | near_tie).all():
        raise ExportError(
            f"The exported graph gives {int((~(same | near_tie)).sum())} of {len(same):,} test images "
            "another class than the network; no bundle was written."
        )
    return parity(expected, found)


def parity(expected: FloatArray, found: FloatArray) -> Parity:
    """Of logits [n, classes]."""
    return Parity(
        images=len(found),
        max_logit_difference=float(np.abs(found - expected).max()),
        argmax_agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )


@torch.no_grad()
def network_logits(network: nn.Module, images: ImageRows) -> FloatArray:
    """PyTorch's own, of a network in eval mode on the CPU: float32 [n, classes]."""
    reference = Deployed(network).eval()
    batches = [reference(torch.from_numpy(images[i : i + BATCH]))[1].numpy() for i in range(0, len(images), BATCH)]
    return np.concatenate(batches)


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _quietly_exported(network: Deployed, example: Tensor) -> ModelProto:
    """The exporter logs and warns of its own internals; what goes wrong still comes as an exception."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[INPUT_NAME],
                output_names=list(OUTPUT_NAMES),
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise RuntimeError("the exporter gave nothing")
    return program.model_proto


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _strip(model: ModelProto) -> None:
    """Drops the exporter's notes, which hold stack traces with paths of this machine."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _check_batch_is_symbolic(model: OnnxModel) -> None:
    for tensor in (*model.inputs, *model.outputs):
        if isinstance(tensor.shape[0], int):
            raise ExportError(f"The exported graph's '{tensor.name}' is fixed at batch size {tensor.shape[0]}.")
