"""PyTorch's exporter: modules to ONNX models, without its messages and metadata."""

import copy
import logging
import warnings

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from schemas.bundle import MAP_NAME, OUTPUT_NAMES
from schemas.manifest import InputSpec
from trainer.errors import ExportError, one_line
from trainer.models.activation_map import WithMap
from trainer.models.backbones import Backbone

OPSET = 20


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> bytes:
    """Returns the ONNX file of a module in eval mode for batches of any size. Raises ExportError.

    inputs are the names of its arguments, with examples of two images.
    """
    try:
        model = _export_quietly(module, inputs, outputs)
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # exporting and checking raise exceptions of many types
        raise _export_error(error) from error
    data: bytes = model.SerializeToString()
    return data


def output_names(network: nn.Module) -> list[str]:
    return [*OUTPUT_NAMES, MAP_NAME] if isinstance(network, WithMap) else list(OUTPUT_NAMES)


def graph_outputs(found: Tensor | tuple[Tensor, Tensor], temperature: float) -> tuple[Tensor, ...]:
    """Returns probabilities and logits [batch, classes], and maps [batch, h, w] if the network has them.

    The temperature calibrates the probabilities; the logits remain the network's own.
    """
    logits, *maps = found if isinstance(found, tuple) else (found,)
    return (logits / temperature).softmax(dim=1), logits, *maps


def example_of(spec: InputSpec) -> Tensor:
    return torch.zeros(2, *spec.shape, dtype=torch.uint8)


def prepared(network: nn.Module) -> nn.Module:
    """Returns a copy with batch norm folded into its convolutions: exporters' own folding has broken branches.

    Most of timm's networks cannot be traced for that; ONNX Runtime folds theirs when it loads the file. Raises
    ExportError.
    """
    network = copy.deepcopy(network).cpu().eval()
    modules = list(network.modules())
    for module in modules:
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False  # operators that write into their input take far longer to export
    folds = not any(isinstance(module, Backbone) for module in modules)
    if not folds or not any(isinstance(module, nn.BatchNorm2d) for module in modules):
        return network
    try:
        return fuse(network)
    except Exception as error:  # tracing raises exceptions of many types
        raise _export_error(error) from error


def _export_error(error: Exception) -> ExportError:
    return ExportError(f"PyTorch could not export the network: {one_line(error)}")


def _export_quietly(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> ModelProto:
    """Exports without the exporter's log lines and warnings about its own internals; errors are still raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in inputs},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


def _strip(model: ModelProto) -> None:
    """Removes the exporter's metadata: stack traces with paths of this machine."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
