"""Exports a network to ONNX bytes that take uint8 images, and checks that both compute the same."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from schemas.bundle import INPUT_NAME, FloatArray
from schemas.image import Pixels
from schemas.manifest import Explanation, InputSpec, Parity
from trainer.data.dataset import Images, Rows
from trainer.errors import ExportError
from trainer.evaluation.onnx_session import ImageRows, OnnxModel, batches
from trainer.export.body import add_head
from trainer.export.exporter import example_of, graph_outputs, output_names, prepared, to_onnx
from trainer.export.graph import Graph
from trainer.models.activation_map import explained
from trainer.models.layers import as_input

PARITY_IMAGES = 1024
PARITY_PIXELS = 2**23  # PyTorch takes several times as long for an image as ONNX Runtime
PARITY_BATCHES = (1, 2, 7)
BATCHES_OF_EACH_SIZE = 3
MAP_IMAGES = 7
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-4


class Deployed(nn.Module):
    """The graph of a bundle: uint8 [batch, height, width, channels] to graph_outputs."""

    def __init__(self, network: nn.Module, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return graph_outputs(self.network(as_input(images)), self.temperature)


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
        _, height, width, _ = test.shape
        affordable = max(BATCHES_OF_EACH_SIZE * max(PARITY_BATCHES), PARITY_PIXELS // (height * width))
        rows = spread(len(test), min(PARITY_IMAGES, affordable))
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
    deployed = Deployed(prepared(network), temperature).eval()
    return to_onnx(deployed, {INPUT_NAME: example_of(spec)}, output_names(network))


def export_with_map(
    network: nn.Module, spec: InputSpec, temperature: float, images: Pixels, body: bytes | None = None
) -> tuple[Graph, Explanation]:
    """Like export, with class activation maps if the network can have them; compares those of a few images.

    network is one that build_network returned, maybe with test-time views. body is the file of its body, if it has been
    exported that far.
    """
    with_map, explanation = explained(network, spec)
    content = export(with_map, spec, temperature) if body is None else add_head(body, with_map, temperature)
    graph = Graph.of(content)
    if graph.map_nodes:
        _check_maps(graph.with_map, with_map, images[:MAP_IMAGES])
    return graph, explanation


def check_batches(model: OnnxModel, network: NetworkOutput) -> None:
    """Raises ExportError if a logit of an exported fp32 model differs from its network at batch size 1, 2 or 7."""
    _check_batch_is_symbolic(model)
    for size in PARITY_BATCHES:
        for start in range(0, min(len(network.images), BATCHES_OF_EACH_SIZE * size), size):
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


def _check_batch_is_symbolic(model: OnnxModel) -> None:
    for tensor in (*model.inputs, *model.outputs):
        if isinstance(tensor.shape[0], int):
            raise ExportError(f"The exported graph's '{tensor.name}' is fixed at batch size {tensor.shape[0]}.")
