"""Compares an exported file with its network."""

from functools import partial

from torch import nn

from schemas.image import Pixels
from schemas.manifest import Parity
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.onnx import NetworkOutput, check_batches, check_classes, network_logits


def parity_of(content: bytes, network: nn.Module, images: Pixels) -> Parity:
    """Raises ExportError."""
    model, original = OnnxModel(content), NetworkOutput.of(partial(network_logits, network), images)
    check_batches(model, original)
    return check_classes(model.logits(images), original)
