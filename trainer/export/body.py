"""A backbone's graph in two exports: its body, which a linear probe does not change, and what follows the body.

The export of a body takes seconds. It computes the features for the probe, and becomes a part of the bundle's graph.
"""

import copy

import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from schemas.bundle import INPUT_NAME
from schemas.manifest import InputSpec
from trainer.export.exporter import example_of, graph_outputs, output_names, prepared, to_onnx
from trainer.models.activation_map import WithMap
from trainer.models.backbones import Backbone, Body
from trainer.models.layers import as_input

BODY_OUTPUTS = ("pooled", "features")


class _DeployedBody(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.body(as_input(images))
        return outputs


class _Head(nn.Module):
    """The outputs of a body to those of a bundle's graph."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = copy.deepcopy(network), temperature
        for module in self.network.modules():
            if isinstance(module, Backbone):
                module.body = nn.Identity()  # the exporter would process its layers, too

    def forward(self, pooled: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        if isinstance(self.network, WithMap):
            return graph_outputs(self.network.answer(pooled, features), self.temperature)
        assert isinstance(self.network, nn.Sequential)  # noqa: S101 - as build_network returns it
        _, backbone, *neuron = self.network
        assert isinstance(backbone, Backbone)  # noqa: S101 - only backbones have a body
        return graph_outputs(nn.Sequential(*neuron)(backbone.linear(pooled)), self.temperature)


def export_body(body: Body, spec: InputSpec) -> bytes:
    """Returns a file that computes BODY_OUTPUTS of uint8 images. Raises ExportError."""
    return to_onnx(_DeployedBody(prepared(body)).eval(), {INPUT_NAME: example_of(spec)}, list(BODY_OUTPUTS))


def add_head(body: bytes, network: nn.Module, temperature: float) -> bytes:
    """Returns the graph of a network with this body: one that build_network returned, or WithMap of it.

    Raises ExportError.
    """
    graph = onnx.load_from_string(body)
    examples = {
        output.name: torch.zeros(2, *(size.dim_value for size in output.type.tensor_type.shape.dim[1:]))
        for output in graph.graph.output
    }
    names = output_names(network)
    head = onnx.load_from_string(to_onnx(_Head(network, temperature).eval(), examples, names))
    head = compose.add_prefix(head, "head.", rename_outputs=False)
    joined = compose.merge_models(
        graph,
        head,
        [(name, f"head.{name}") for name in BODY_OUTPUTS],
        outputs=names,
        producer_name=graph.producer_name,
        producer_version=graph.producer_version,
    )
    del joined.opset_import[len(graph.opset_import) :]  # merge_models repeats them, which ONNX Runtime refuses
    content: bytes = joined.SerializeToString()
    return content
