"""Exports a network to ONNX bytes that take uint8 images, and checks that both compute the same."""

import copy
import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from schemas.bundle import INPUT_NAME, MAP_NAME, OUTPUT_NAMES, FloatArray
from schemas.image import Pixels
from schemas.manifest import Explanation, InputSpec, Parity
from trainer.data.dataset import Images, Rows
from trainer.errors import ExportError, one_line
from trainer.evaluation.onnx_session import ImageRows, OnnxModel, batches
from trainer.export.graph import Graph
from trainer.models.activation_map import WithMap, explained
from trainer.models.backbones import Backbone

OPSET = 20
PARITY_IMAGES = 1024
PARITY_BATCHES = (1, 2, 7)
MAP_IMAGES = 7
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-4


class Deployed(nn.Module):
    """The graph of a bundle: uint8 [batch, height, width, channels] -> probabilities and logits [batch, classes].

    A network with maps adds them, [batch, h, w]. The temperature calibrates the probabilities; the logits remain the
    network's own.
    """

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.network(images.permute(0, 3, 1, 2).float() / 255)
        logits, *maps = found if isinstance(found, tuple) else (found,)
        return (logits / self.temperature).softmax(dim=1), logits, *maps


@dataclass(frozen=True)
class NetworkOutput:
    """Some rows of the test split, their images, and the original network's logits for them.

    images are uint8 [n, height, width, channels], logits float32 [n, classes].
    """

    rows: Rows
    images: Pixels
    logits: FloatArray

    @classmethod
    def of(cls, logits: Callable[[Pixels], FloatArray], test: Images | Pixels) -> "NetworkOutput":
        rows = spread(len(test), PARITY_IMAGES)
        return cls(rows, images := test[rows], logits(images))

    def parity(self, found: FloatArray) -> Parity:
        """Compares a model file's logits for the whole split with the network's."""
        found = found[self.rows]
        return Parity(
            images=len(found),
            max_logit_difference=float(np.abs(found - self.logits).max()),
            argmax_agreement=float((found.argmax(axis=1) == self.logits.argmax(axis=1)).mean()),
        )


def spread(count: int, most: int) -> Rows:
    """Returns at most so many positions at even steps over a split of count images, which may be sorted by class."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def export(network: nn.Module, spec: InputSpec, temperature: float = 1.0) -> bytes:
    """Returns the ONNX file of a network in eval mode; with maps, Graph divides it. Raises ExportError."""
    try:
        example = torch.zeros(2, *spec.shape, dtype=torch.uint8)
        deployed = Deployed(_prepared(network), temperature).eval()
        model = _export_quietly(deployed, example, has_map=isinstance(network, WithMap))
        _strip(model)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # tracing, exporting and checking raise exceptions of many types
        raise ExportError(f"PyTorch could not export the network: {one_line(error)}") from error
    data: bytes = model.SerializeToString()
    return data


def export_with_map(
    network: nn.Module, spec: InputSpec, temperature: float, images: Pixels
) -> tuple[Graph, Explanation]:
    """Like export, with class activation maps if the network can have them; compares those of a few images.

    network is one that build_network returned, maybe with test-time views.
    """
    with_map, explanation = explained(network, spec)
    graph = Graph.of(export(with_map, spec, temperature))
    if graph.map_nodes:
        _check_maps(graph.with_map, with_map, images[:MAP_IMAGES])
    return graph, explanation


def check_batches(model: OnnxModel, network: NetworkOutput) -> None:
    """Raises ExportError if a logit of an exported fp32 model differs from its network at batch size 1, 2 or 7."""
    _check_batch_is_symbolic(model)
    for size in PARITY_BATCHES:
        for start in range(0, min(len(network.images), 3 * size), size):
            rows = slice(start, start + size)
            _check_close(model.run(network.images[rows])[1], network.logits[rows])


def check_classes(answered: FloatArray, network: NetworkOutput) -> Parity:
    """Compares an exported fp32 model's logits for the test split with its network.

    Raises ExportError if the class of an image differs, except for near ties.
    """
    found, expected = answered[network.rows], network.logits
    best = np.sort(expected, axis=1)
    near_tie = best[:, -1] - best[:, -2] <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(best[:, -1])
    same = (found.argmax(axis=1) == expected.argmax(axis=1)) | near_tie
    if not same.all():
        raise ExportError(
            f"The exported graph predicts another class than the network for {int((~same).sum())} of {len(same):,} "
            "test images."
        )
    return network.parity(answered)


def network_logits(network: nn.Module, images: ImageRows) -> FloatArray:
    """Returns the logits of a PyTorch network in eval mode, computed on the CPU: float32 [n, classes].

    Each core computes batches of its own, as in OnnxModel.answers.
    """
    reference, threads = Deployed(network).eval(), torch.get_num_threads()

    @torch.no_grad()
    def logits(rows: slice) -> FloatArray:
        found: FloatArray = reference(torch.from_numpy(images[rows]))[1].numpy()
        return found

    try:
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as cores:
            return np.concatenate(list(cores.map(logits, batches(images))))
    finally:
        torch.set_num_threads(threads)  # for MKL, a thread sets the number of all


def _check_maps(model: OnnxModel, network: nn.Module, images: Pixels) -> None:
    """Compares the maps of an exported graph with those of its network with maps.

    Raises ExportError if they differ, except for images whose classes are nearly tied.
    """
    with torch.no_grad():
        _, logits, expected = (tensor.numpy() for tensor in Deployed(network)(torch.from_numpy(images)))
    probabilities, found = model.explain(images)
    same = probabilities.argmax(axis=1) == logits.argmax(axis=1)
    difference = np.abs(found[same] - expected[same]).max(initial=0.0)
    if not difference <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected).max():  # NaN fails
        raise ExportError(
            f"The class activation maps of the exported graph differ from the network's by {difference:.2g}."
        )


def _check_close(found: FloatArray, expected: FloatArray) -> None:
    if not np.allclose(found, expected, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE):
        raise ExportError(
            f"The exported graph differs from the network by {np.abs(found - expected).max():.2g} in a logit at batch "
            f"size {len(found)} (tolerance: {ABSOLUTE_TOLERANCE:g} + {RELATIVE_TOLERANCE:g} of the logit)."
        )


def _prepared(network: nn.Module) -> nn.Module:
    """Returns a copy with batch norm folded into its convolutions: exporters' own folding has broken branches.

    Most of timm's networks cannot be traced for that; ONNX Runtime folds theirs when it loads the file.
    """
    network = copy.deepcopy(network).cpu().eval()
    modules = list(network.modules())
    for module in modules:
        if getattr(module, "inplace", False):
            vars(module)["inplace"] = False  # operators that write into their input take far longer to export
    folds = not any(isinstance(module, Backbone) for module in modules)
    return fuse(network) if folds and any(isinstance(module, nn.BatchNorm2d) for module in modules) else network


def _export_quietly(network: Deployed, example: Tensor, *, has_map: bool) -> ModelProto:
    """Exports without the exporter's log lines and warnings about its own internals; errors are still raised."""
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
                output_names=[*OUTPUT_NAMES, MAP_NAME] if has_map else list(OUTPUT_NAMES),
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
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


def _check_batch_is_symbolic(model: OnnxModel) -> None:
    for tensor in (*model.inputs, *model.outputs):
        if isinstance(tensor.shape[0], int):
            raise ExportError(f"The exported graph's '{tensor.name}' is fixed at batch size {tensor.shape[0]}.")
