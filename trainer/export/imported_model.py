"""Turns an ONNX classifier from elsewhere into a bundle's graph: uint8 images in, probabilities and logits out."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from schemas.bundle import INPUT_NAME, OUTPUT_NAMES, FloatArray
from schemas.image import Pixels
from trainer.errors import ImportedModelError, one_line
from trainer.evaluation.onnx_session import CPU, ImageRows, batches

Shape = tuple[int, int, int]
"""height, width, channels"""
_INPUT_TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
}
_PREFIX = "original/"
_TRIAL_IMAGES = 3
_SMALLEST_PROBABILITY = 1e-7
_SUM_TOLERANCE = 1e-2  # of the probabilities of one image


class Layout(StrEnum):
    """The order of the axes of the model's input, after the batch."""

    NCHW = "nchw"
    NHWC = "nhwc"
    FLAT = "flat"  # one row of height * width * channels numbers


@dataclass(frozen=True)
class Normalisation:
    """The model takes (pixel / 255 - mean) / std; each has one number, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        mean, std = (",".join(f"{number:.6g}" for number in numbers) for numbers in (self.mean, self.std))
        return f"--mean {mean} --std {std}"

    @property
    def factor(self) -> FloatArray:
        return np.divide(1 / 255, self.std).astype(np.float32)

    @property
    def offset(self) -> FloatArray:
        return np.divide(self.mean, self.std).astype(np.float32)


USUAL_NORMALISATIONS = {
    "pixels from 0 to 255": Normalisation((0.0,), (1 / 255,)),
    "pixels from 0 to 1": Normalisation((0.0,), (1.0,)),
    "pixels from -1 to 1": Normalisation((0.5,), (0.5,)),
    "ImageNet's mean and std": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class ImportedModel:
    """A classifier as another exporter wrote it.

    shape is (height, width, channels) of its images. outputs is the number of its outputs, 1 for a sigmoid;
    gives_logits tells whether they are logits or probabilities.
    """

    def __init__(
        self, model: ModelProto, layout: Layout | None = None, shape: Shape | None = None, *, gives_logits: bool = False
    ) -> None:
        """Reads layout and shape from the graph if they are not given. Raises ImportedModelError."""
        self._input = _only_input(model)
        self._type = self._input.type.tensor_type.elem_type
        self.takes_bytes = self._type == TensorProto.UINT8
        self.layout, self.shape = _layout_and_shape(self._input, layout, shape)
        if self.shape[2] not in {1, 3}:
            raise ImportedModelError(
                f"In the layout {self.layout}, the images of the model have {self.shape[2]} channels; they must have 1 "
                "(grey) or 3 (RGB). Give the right --layout."
            )
        self._output, last = _output(model)
        self._model = _with_output(model, self._output)
        try:
            self._session = onnxruntime.InferenceSession(self._model.SerializeToString(), providers=[CPU])
        except Exception as error:  # ONNX Runtime raises exceptions of many types
            raise ImportedModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {one_line(error)}. "
                f"Export it again with another opset; it has opset {_opset(model)}."
            ) from error
        noise = np.random.default_rng(0).integers(0, 256, (_TRIAL_IMAGES, *self.shape), np.uint8)
        found = self.run(noise, USUAL_NORMALISATIONS["pixels from 0 to 1"])
        self.outputs: int = found.shape[1]
        self.gives_logits = gives_logits or bool(last) or not _are_probabilities(found)
        if last == "Sigmoid" and self.outputs > 1:
            raise ImportedModelError(
                f"The model ends in a sigmoid of {self.outputs} classes, so an image may have several labels. Only "
                "models that give an image one label can be served."
            )

    @property
    def classes(self) -> int:
        return max(2, self.outputs)

    @property
    def parameters(self) -> int:
        constants = self._model.graph.initializer  # those of int64 are shapes
        return sum(int(np.prod(each.dims)) for each in constants if each.data_type != TensorProto.INT64)

    def run(self, images: ImageRows, normalisation: Normalisation) -> FloatArray:
        """Runs the original on uint8 [n, height, width, channels]; returns float32 [n, outputs].

        Raises ImportedModelError if it cannot run on a batch of images.
        """
        try:
            found = [self._run(images[rows], normalisation) for rows in batches(images)]
        except Exception as error:
            raise ImportedModelError(
                f"The model cannot classify a batch of images: {one_line(error)}. Export it with a free batch size."
            ) from error
        return np.concatenate(found).astype(np.float32)

    def logits(self, images: ImageRows, normalisation: Normalisation) -> FloatArray:
        """Like run, but returns the logits of all classes, float32 [n, classes]."""
        found = self.run(images, normalisation)
        if self.outputs == 1:
            found = np.hstack([np.zeros_like(found) if self.gives_logits else 1 - found, found])
        return found if self.gives_logits else np.log(np.maximum(found, np.float32(_SMALLEST_PROBABILITY)))

    def bundle_graph(self, normalisation: Normalisation, temperature: float = 1.0) -> bytes:
        """Returns the file of a bundle: the original graph between its preprocessing and a calibrated softmax."""
        model = compose.add_prefix(self._model, _PREFIX)
        graph, nodes = model.graph, _Nodes()
        taken = nodes.add("Cast", INPUT_NAME, to=TensorProto.FLOAT)
        if not self.takes_bytes:
            taken = nodes.add("Mul", taken, nodes.constant(normalisation.factor))
            taken = nodes.add("Sub", taken, nodes.constant(normalisation.offset))
        if self.layout is Layout.NCHW:
            taken = nodes.add("Transpose", taken, perm=[0, 3, 1, 2])
        elif self.layout is Layout.FLAT:
            taken = nodes.add("Reshape", taken, nodes.constant(np.array([-1, int(np.prod(self.shape))])))
        nodes.add("Cast", taken, name=_PREFIX + self._input.name, to=self._type)

        nodes.proto.extend(graph.node)

        found = nodes.add("Cast", _PREFIX + self._output, to=TensorProto.FLOAT)
        if self.outputs == 1:
            whole = found if self.gives_logits else nodes.constant(np.ones(1, np.float32))
            found = nodes.add("Concat", nodes.add("Sub", whole, found), found, axis=1)
        if not self.gives_logits:
            smallest = nodes.constant(np.array([_SMALLEST_PROBABILITY], np.float32))
            found = nodes.add("Log", nodes.add("Max", found, smallest))
        probabilities, logits = OUTPUT_NAMES
        nodes.add("Identity", found, name=logits)
        scaled = nodes.add("Mul", logits, nodes.constant(np.array([1 / temperature], np.float32)))
        nodes.add("Softmax", scaled, name=probabilities, axis=1)

        for field in (graph.node, graph.input, graph.output, model.metadata_props):
            del field[:]
        graph.node.extend(nodes.proto)
        graph.initializer.extend(nodes.constants)
        graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", *self.shape]))
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", self.classes]) for name in OUTPUT_NAMES
        )
        data: bytes = model.SerializeToString()
        return data

    def _run(self, images: Pixels, normalisation: Normalisation) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = images
        if not self.takes_bytes:
            values = images * normalisation.factor - normalisation.offset
        if self.layout is Layout.NCHW:
            values = values.transpose(0, 3, 1, 2)
        elif self.layout is Layout.FLAT:
            values = values.reshape(len(values), -1)
        values = np.ascontiguousarray(values, dtype=_INPUT_TYPES[self._type])
        (found,) = self._session.run([self._output], {self._input.name: values})
        if found.ndim != 2 or len(found) != len(images):
            raise ValueError(f"for {len(images)} images, the shape of '{self._output}' is {list(found.shape)}")
        output: npt.NDArray[Any] = found
        return output


class _Nodes:
    """Nodes of a graph in the making, and their constants."""

    def __init__(self) -> None:
        self.proto: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Returns the name of the node's output."""
        name = name or f"convoy/{operator}_{len(self.proto)}"
        self.proto.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values: npt.NDArray[Any]) -> str:
        name = f"convoy/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def read_model(path: Path) -> ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf raises exceptions of many types
        raise ImportedModelError(f"{path} cannot be read as an ONNX model ({one_line(error)}).") from error


def _only_input(model: ModelProto) -> ValueInfoProto:
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(f"'{each.name}'" for each in inputs) or "none"
        raise ImportedModelError(f"The model has {len(inputs)} inputs ({names}); it must have one, the images.")
    images: ValueInfoProto = inputs[0]
    if images.type.tensor_type.elem_type not in _INPUT_TYPES:
        kind = TensorProto.DataType.Name(images.type.tensor_type.elem_type)
        raise ImportedModelError(f"The model's input '{images.name}' has the type {kind}; it must be float or uint8.")
    return images


def _layout_and_shape(image: ValueInfoProto, layout: Layout | None, shape: Shape | None) -> tuple[Layout, Shape]:
    """Checks the axes of the input, and finds those that are not given."""
    axes = [each.dim_value or None for each in image.type.tensor_type.shape.dim]
    shown = f"The model's input '{image.name}' has the shape {_shown(image)}"
    if len(axes) not in {2, 4}:
        raise ImportedModelError(f"{shown}; it must have a batch axis and the axes of an image.")
    if axes[0] is not None:
        raise ImportedModelError(
            f"{shown}, which fixes the batch size at {axes[0]}. Export it again with a free batch size (in PyTorch, "
            "dynamic_shapes or dynamic_axes for axis 0)."
        )
    if layout is None:
        if len(axes) == 2:
            layout = Layout.FLAT
        elif (axes[1] in {1, 3}) != (axes[3] in {1, 3}):
            layout = Layout.NCHW if axes[1] in {1, 3} else Layout.NHWC
        else:
            raise ImportedModelError(f"{shown}. Say where the channels are: --layout nchw or --layout nhwc.")
    if (layout is Layout.FLAT) != (len(axes) == 2):
        raise ImportedModelError(f"{shown}, which is not the layout {layout}.")
    order = (1, 2, 3) if layout is Layout.NHWC else (2, 3, 1)
    found = (None, None, None) if layout is Layout.FLAT else tuple(axes[i] for i in order)
    if shape is None:
        if None in found:
            raise ImportedModelError(f"{shown}. Give the size of its images, as in --input 224,224,3.")
        shape = (int(found[0] or 0), int(found[1] or 0), int(found[2] or 0))
    expected, given = ((axes[1],), (int(np.prod(shape)),)) if layout is Layout.FLAT else (found, shape)
    if any(a is not None and a != b for a, b in zip(expected, given, strict=True)):
        raise ImportedModelError(f"{shown}, which does not fit --input {','.join(map(str, shape))}.")
    return layout, shape


def _output(model: ModelProto) -> tuple[str, str | None]:
    """Returns the name of the classes' tensor, and the operator left out after it, whose input are logits.

    A softmax or sigmoid at the end is left out, because its input is more precise than its output's logarithm.
    scikit-learn's converter adds an output of labels, and may turn the probabilities into maps.
    """
    maker = {output: node for node in model.graph.node for output in node.output}
    names = []
    for output in model.graph.output:
        last = maker.get(output.name)
        if last is not None and last.op_type == "ZipMap":
            names.append(last.input[0])
        elif output.type.tensor_type.elem_type in {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}:
            names.append(output.name)
    if len(names) != 1:
        shown = ", ".join(f"'{each.name}'" for each in model.graph.output)
        raise ImportedModelError(f"The model has the outputs {shown}; it must have one of probabilities or logits.")
    last = maker.get(names[0])
    if last is not None and last.op_type in {"Softmax", "Sigmoid"}:
        return last.input[0], last.op_type
    return names[0], None


def _with_output(model: ModelProto, name: str) -> ModelProto:
    """Returns the part of the model that computes this tensor, as its only output."""
    part = ModelProto()
    part.CopyFrom(model)
    needed, nodes = {name}, []
    for node in reversed(model.graph.node):  # in topological order, as the format requires
        if needed & set(node.output):
            nodes.append(node)
            needed |= _names_in(node)
    constants = [constant for constant in model.graph.initializer if constant.name in needed]
    for field in (part.graph.node, part.graph.initializer, part.graph.output):
        del field[:]
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(constants)
    part.graph.output.append(ValueInfoProto(name=name))  # ONNX Runtime infers its type
    return part


def _names_in(node: onnx.NodeProto) -> set[str]:
    """Returns the tensors that a node reads, also in the graphs of its branches and loops."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(*(_names_in(inner) for graph in graphs for inner in graph.node))


def _are_probabilities(found: FloatArray) -> bool:
    """Returns whether each row has numbers from 0 to 1, which add up to 1 unless there is only one."""
    sums = found.sum(axis=1)
    return bool(
        (found >= 0).all()
        and (found <= 1 + _SUM_TOLERANCE).all()
        and (found.shape[1] == 1 or (abs(sums - 1) < _SUM_TOLERANCE).all())
    )


def _opset(model: ModelProto) -> int:
    return max((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=0)


def _shown(tensor: ValueInfoProto) -> str:
    return f"[{', '.join(str(each.dim_value or each.dim_param or '?') for each in tensor.type.tensor_type.shape.dim)}]"
