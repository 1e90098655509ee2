import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from schemas.image import Pixels
from schemas.manifest import InputSpec
from tests.support.parity import parity_of
from trainer.errors import ExportError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import PARITY_BATCHES, NetworkOutput, export
from trainer.models.build import build
from trainer.models.layers import Normalise, Shape
from trainer.network_config import NETWORKS, network_named

SPEC = InputSpec(height=24, width=24, channels=3)
SHAPE = Shape(height=24, width=24, channels=3, classes=5)


def images(count: int = 40) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, *SPEC.shape), dtype=np.uint8)


def with_statistics(network: nn.Module) -> nn.Module:
    """Sets batch norm statistics as after training, different in every channel."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1.0, 1.0),
                (module.running_var, 0.3, 3.0),
                (module.weight.data, -1.5, 1.5),
                (module.bias.data, -1.0, 1.0),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return network.eval()


class ParallelBranches(nn.Module):
    """Parallel Conv+BN branches on one input, joined by sum and concatenation; exporters have fused these wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 6, kernel, padding=kernel // 2, bias=bias), nn.BatchNorm2d(6))
            for kernel, bias in ((1, False), (3, True), (5, False))
        )
        self.identity = nn.BatchNorm2d(3)
        self.head = nn.Linear(21, 5)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (branch(x) for branch in self.branches)
        joined = torch.cat([torch.relu(first + second), first, torch.relu(third), self.identity(x)], dim=1)
        logits: Tensor = self.head(joined.mean(dim=(2, 3)))
        return logits


def normalised(network: nn.Module) -> nn.Module:
    return nn.Sequential(Normalise(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])), network)


@pytest.mark.parametrize(
    "build",
    [ParallelBranches, *(partial(build, network_named(name), SHAPE) for name in NETWORKS)],
    ids=["parallel-branches", *NETWORKS],
)
def test_the_exported_graph_equals_the_network(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = with_statistics(normalised(build()))
    before = copy.deepcopy(network.state_dict())
    parity = parity_of(export(network, SPEC), network, images())
    assert parity.images == 40
    assert parity.max_logit_difference < 1e-3
    assert parity.argmax_agreement == 1
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batch_norm_is_folded_into_the_convolution() -> None:
    graph = onnx.load_from_string(
        export(with_statistics(normalised(build(network_named("inception"), SHAPE))), SPEC)
    ).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_graph_takes_a_batch_of_any_size_and_returns_probabilities_and_logits() -> None:
    model = OnnxModel(export(with_statistics(normalised(ParallelBranches())), SPEC))
    (tensor,) = model.inputs
    assert (tensor.name, tensor.type, tuple(tensor.shape[1:])) == ("images", "tensor(uint8)", SPEC.shape)
    for count in (1, 2, 7, 33):
        probabilities, logits = model.run(images(count))
        assert probabilities.shape == logits.shape == (count, 5)
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert np.array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))


def test_answers_do_not_depend_on_the_batch_size() -> None:
    model = OnnxModel(export(with_statistics(normalised(ParallelBranches())), SPEC))
    batch = images(300)
    assert np.allclose(model.probabilities(batch)[-3:], model.run(batch[-3:])[0], atol=1e-6)
    assert np.allclose(model.logits(batch)[:3], model.run(batch[:3])[1], atol=1e-5)


def test_large_images_are_compared_in_every_batch_size_too() -> None:
    large = np.zeros((30, 1024, 1024, 1), np.uint8)
    compared = NetworkOutput.of(lambda images: np.zeros((len(images), 2), np.float32), large)
    assert len(compared.images) == len(compared.logits) == 3 * max(PARITY_BATCHES)


def test_refuses_the_graph_of_another_network() -> None:
    network = with_statistics(normalised(ParallelBranches()))
    model = export(network, SPEC)
    with torch.no_grad():
        network.get_parameter("1.head.bias")[0] += 0.01
    with pytest.raises(ExportError, match=r"differs from the network by 0\.01 in a logit at batch size 1"):
        parity_of(model, network, images())


def test_refuses_a_graph_that_is_wrong_only_in_larger_batches() -> None:
    """As if an exporter fixed the batch in a reshape: batch size 1 is right, batch size 2 mixes up the images."""

    class MixesUp(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x)
            return logits.flip(0)

    network = with_statistics(normalised(ParallelBranches()))
    with pytest.raises(ExportError, match="batch size 2"):
        parity_of(export(MixesUp(network).eval(), SPEC), network, images())


def test_refuses_a_fixed_batch_size() -> None:
    network = with_statistics(normalised(ParallelBranches()))
    model = onnx.load_from_string(export(network, SPEC))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(ExportError, match="fixed at batch size 2"):
        parity_of(model.SerializeToString(), network, images())


def test_a_failed_export_is_one_sentence() -> None:
    class Undecided(ParallelBranches):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :5] if x.sum() > 0 else x.flatten(1)[:, 5:10]

    with pytest.raises(ExportError, match="PyTorch could not export the network"):
        export(Undecided(), SPEC)


def test_the_file_contains_no_path_of_this_machine() -> None:
    model = export(with_statistics(normalised(ParallelBranches())), SPEC)
    assert str(Path(__file__).parent.parent.parent).encode() not in model
    assert b"stack_trace" not in model
