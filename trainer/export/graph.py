"""An ONNX graph in two files: the nodes that only the class activation map needs are apart from the others.

ONNX Runtime computes every output of a graph, requested or not. Appended to the first file, the second one gives the
whole graph again: protobuf merges concatenated messages.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto

from schemas.bundle import MAP_NAME, FloatArray, hash_file
from schemas.image import Pixels
from schemas.manifest import VariantMap
from trainer.evaluation.onnx_session import OnnxModel


@dataclass(frozen=True)
class Graph:
    """map_nodes is empty for a graph without maps."""

    main: bytes
    map_nodes: bytes = b""

    @classmethod
    def of(cls, content: bytes) -> "Graph":
        """Divides a graph that may have the output `cam`."""
        whole = onnx.load_from_string(content)
        if all(output.name != MAP_NAME for output in whole.graph.output):
            return cls(content)
        return cls(*_divide(whole))

    @property
    def whole(self) -> bytes:
        return self.main + self.map_nodes

    @cached_property
    def model(self) -> OnnxModel:
        return OnnxModel(self.main)

    @cached_property
    def with_map(self) -> OnnxModel:
        return OnnxModel(self.whole)

    def write(self, file: Path, map_tolerance: float | None) -> VariantMap | None:
        """Writes model.onnx, and beside it model.cam.onnx for a graph with maps; returns the latter's entry."""
        file.write_bytes(self.main)
        if not self.map_nodes or map_tolerance is None:
            return None
        nodes = file.with_suffix(f".{MAP_NAME}.onnx")
        nodes.write_bytes(self.map_nodes)
        return VariantMap(**dict(hash_file(nodes, file.parent)), golden_tolerance=map_tolerance)


@dataclass(frozen=True)
class GoldenMaps:
    """Images, uint8 [n, height, width, channels], with the expected maps [n, h, w] of the classes [n]."""

    images: Pixels
    classes: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    maps: FloatArray

    @property
    def scale(self) -> float:
        """The largest absolute value, by which differences are judged: logits have no unit."""
        return max(float(np.abs(self.maps).max()), float(np.finfo(np.float32).tiny))

    def difference(self, model: OnnxModel) -> float:
        """Returns the model's largest difference from the maps of the images for which it predicts the same class."""
        probabilities, found = model.explain(self.images)
        same = probabilities.argmax(axis=1) == self.classes
        return float(np.abs(found[same] - self.maps[same]).max(initial=0.0))


def _divide(whole: ModelProto) -> tuple[bytes, bytes]:
    needed = _needed(whole.graph)
    main, rest = ModelProto(), ModelProto()
    main.CopyFrom(whole)
    for name, is_main in (
        ("node", lambda node: any(output in needed for output in node.output)),
        ("initializer", lambda constant: constant.name in needed),
        ("output", lambda output: output.name != MAP_NAME),
        ("value_info", lambda value: value.name in needed),
    ):
        main.graph.ClearField(name)
        for entry in getattr(whole.graph, name):
            getattr((main if is_main(entry) else rest).graph, name).append(entry)
    return main.SerializeToString(), rest.SerializeToString()


def _needed(graph: GraphProto) -> set[str]:
    """Returns the names of the tensors that the outputs without the map need."""
    needed = {output.name for output in graph.output} - {MAP_NAME}
    for node in reversed(graph.node):  # in topological order
        if needed & set(node.output):
            needed |= set(node.input)
    return needed
