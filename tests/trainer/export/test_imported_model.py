"""Models of other exporters become graphs of bundles that compute the same."""

import re
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from torch import nn

from schemas.bundle import FloatArray
from schemas.image import Pixels
from trainer.errors import ImportedModelError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.imported_model import USUAL_NORMALISATIONS, ImportedModel, Layout, read_model

HERE = Path(__file__).parent / "made_elsewhere"
ZERO_TO_255 = USUAL_NORMALISATIONS["pixels from 0 to 255"]
ZERO_TO_ONE = USUAL_NORMALISATIONS["pixels from 0 to 1"]
IMAGENET = USUAL_NORMALISATIONS["ImageNet's mean and std"]


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def exported_by_torch(folder: Path, network: nn.Module, *shape: int) -> Path:
    path, free = folder / "torch.onnx", {0: torch.export.Dim("batch")}
    with warnings.catch_warnings(action="ignore"):  # the exporter's, about itself
        torch.onnx.export(
            network.eval(), (torch.zeros(2, *shape),), path, dynamic_shapes=(free,), dynamo=True, verbose=False
        )
    return path


def small_network(outputs: int = 4, *end: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs), *end)


def graph(
    inputs: dict[str, list[int | str]],
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> ModelProto:
    """A model that averages each channel of its first input, [batch, channels, height, width]."""
    first = next(iter(inputs))
    nodes = [helper.make_node("Cast", [first], ["x"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["x"], [name], axes=[2, 3], keepdims=0) for name in outputs]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "means",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in outputs],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )


def softmax(logits: FloatArray) -> FloatArray:
    probabilities: FloatArray = torch.from_numpy(logits).softmax(dim=1).numpy()
    return probabilities


def outputs_of(model: Path, name: str, images: FloatArray) -> list[FloatArray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: list[FloatArray] = session.run(None, {name: images})
    return found


def test_a_keras_model_takes_nhwc_and_its_softmax_becomes_logits() -> None:
    model = ImportedModel(read_model(HERE / "keras.onnx"))
    assert (model.layout, model.shape, model.classes, model.gives_logits) == (Layout.NHWC, (8, 8, 1), 10, True)
    images = noise(5, 8, 8, 1)
    probabilities, logits = OnnxModel(model.bundle_graph(ZERO_TO_255, temperature=2)).run(images)
    (original,) = outputs_of(HERE / "keras.onnx", "pixels", images.astype(np.float32))
    assert softmax(logits) == pytest.approx(original, abs=1e-5)
    assert probabilities == pytest.approx(softmax(logits / np.float32(2)), abs=1e-5)


def test_a_scikit_learn_model_takes_rows_and_gives_maps_of_probabilities() -> None:
    path = HERE / "scikit_learn.onnx"
    model = ImportedModel(read_model(path), shape=(8, 8, 1))
    assert (model.layout, model.classes, model.gives_logits) == (Layout.FLAT, 10, False)
    images = noise(5, 8, 8, 1)
    probabilities, _ = OnnxModel(model.bundle_graph(ZERO_TO_ONE)).run(images)
    _, maps = outputs_of(path, "X", (images.reshape(5, 64) / 255).astype(np.float32))
    assert probabilities == pytest.approx(np.array([list(row.values()) for row in maps]), abs=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_pytorch_model_takes_nchw_normalised_as_imagenet(tmp_path: Path, batch: int) -> None:
    network = small_network()
    model = ImportedModel(read_model(exported_by_torch(tmp_path, network, 3, 12, 10)))
    assert (model.layout, model.shape, model.classes, model.gives_logits) == (Layout.NCHW, (12, 10, 3), 4, True)
    images = noise(batch, 12, 10, 3)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    expected = network((pixels - mean) / std).detach().numpy()
    assert OnnxModel(model.bundle_graph(IMAGENET)).run(images)[1] == pytest.approx(expected, abs=1e-4)
    assert model.logits(images, IMAGENET) == pytest.approx(expected, abs=1e-4)
    assert model.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("ends_in_sigmoid", [True, False])
def test_one_output_becomes_two_classes(tmp_path: Path, ends_in_sigmoid: bool) -> None:
    network = small_network(1, *[nn.Sigmoid()] * ends_in_sigmoid)
    model = ImportedModel(read_model(exported_by_torch(tmp_path, network, 3, 8, 8)))
    images = noise(6, 8, 8, 3)
    probabilities, logits = OnnxModel(model.bundle_graph(ZERO_TO_ONE)).run(images)
    found = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).detach().numpy()
    second = found if ends_in_sigmoid else 1 / (1 + np.exp(-found))
    assert probabilities == pytest.approx(np.hstack([1 - second, second]), abs=1e-5)
    assert logits == pytest.approx(model.logits(images, ZERO_TO_ONE), abs=1e-5)


def test_outputs_between_0_and_1_may_be_declared_logits(tmp_path: Path) -> None:
    file = exported_by_torch(tmp_path, small_network(2, Halves()), 3, 8, 8)
    assert not ImportedModel(read_model(file)).gives_logits
    assert ImportedModel(read_model(file), gives_logits=True).gives_logits


class Halves(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * 0 + 0.5


def test_a_model_of_bytes_gets_the_pixels_as_they_are() -> None:
    model = ImportedModel(graph({"x0": ["n", 3, 4, 4]}, TensorProto.UINT8))
    images = noise(2, 4, 4, 3)
    assert model.takes_bytes
    assert OnnxModel(model.bundle_graph(ZERO_TO_ONE)).run(images)[1] == pytest.approx(
        images.mean(axis=(1, 2)), rel=1e-5
    )


def test_the_options_set_a_layout_and_size_that_the_graph_leaves_open() -> None:
    model = ImportedModel(graph({"x0": ["n", 3, "h", 3]}), Layout.NCHW, (5, 3, 3))
    assert (model.layout, model.shape) == (Layout.NCHW, (5, 3, 3))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (graph({"a": ["n", 3, 4, 4], "b": ["n", 3, 4, 4]}), "has 2 inputs ('a', 'b'); it must have one"),
        (graph({"a": [1, 3, 4, 4]}), "fixes the batch size at 1. Export it again with a free batch size"),
        (graph({"a": ["n", 3, 4, 3]}), "Say where the channels are: --layout nchw or --layout nhwc"),
        (graph({"a": ["n", 3, "h", "w"]}), "Give the size of its images, as in --input 224,224,3"),
        (graph({"a": ["n", 3, 4]}), "it must have a batch axis and the axes of an image"),
        (graph({"a": ["n", 3, 4, 4]}, TensorProto.INT64), "has the type INT64; it must be float or uint8"),
        (graph({"a": ["n", 3, 4, 4]}, outputs=("y", "z")), "has the outputs 'y', 'z'; it must have one"),
        (
            graph({"a": ["n", 3, 4, 4]}, opset=99),
            "cannot load the model: .*Export it again with another opset; it has opset 99",
        ),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_advice(model: ModelProto, sentence: str) -> None:
    with pytest.raises(ImportedModelError, match=sentence if ".*" in sentence else re.escape(sentence)):
        ImportedModel(model)


def test_an_input_size_that_contradicts_the_graph_is_refused() -> None:
    with pytest.raises(ImportedModelError, match="does not fit --input 5,4,3"):
        ImportedModel(graph({"a": ["n", 3, 4, 4]}), shape=(5, 4, 3))


def test_a_layout_with_other_channels_than_grey_or_rgb_is_refused() -> None:
    with pytest.raises(ImportedModelError, match="In the layout nhwc, the images of the model have 4 channels"):
        ImportedModel(graph({"a": ["n", 3, 4, 4]}), Layout.NHWC)


def test_a_model_of_several_labels_per_image_is_refused(tmp_path: Path) -> None:
    file = exported_by_torch(tmp_path, small_network(4, nn.Sigmoid()), 3, 8, 8)
    with pytest.raises(ImportedModelError, match="an image may have several labels"):
        ImportedModel(read_model(file))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ImportedModelError, match=r"a\.onnx cannot be read as an ONNX model"):
        read_model(tmp_path / "a.onnx")
