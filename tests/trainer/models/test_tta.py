import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.manifest import InputSpec
from tests.support.parity import parity_of
from trainer.export.onnx import export
from trainer.models.build import build
from trainer.models.layers import Shape
from trainer.models.tta import AveragedViews, with_views
from trainer.network_config import PlainConfig
from trainer.recipe import Views

IMAGES = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))


class Corner(nn.Module):
    """Logits that are the pixels of the first row: every view gives others."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :]


def test_one_view_is_the_network_itself() -> None:
    network = Corner()
    assert with_views(network, Views.ONE) is network


def test_mirror_averages_an_image_and_its_mirror() -> None:
    expected = (IMAGES[:, 0, 0, :] + IMAGES[:, 0, 0, :].flip(1)) / 2
    assert torch.allclose(AveragedViews(Corner(), Views.MIRROR)(IMAGES), expected)


def test_shift_weighs_image_and_mirror_a_half_and_the_four_moved_ones_the_rest() -> None:
    padded = nn.functional.pad(IMAGES, (1, 1, 1, 1), mode="reflect")
    first, second = padded[:, 0, 0, :-2], padded[:, 0, 2, 2:]
    still = IMAGES[:, 0, 0, :]
    expected = (still + still.flip(1)) / 4 + (first + first.flip(1) + second + second.flip(1)) / 8
    assert torch.allclose(AveragedViews(Corner(), Views.SHIFT)(IMAGES), expected)


@pytest.mark.parametrize("views", [Views.MIRROR, Views.SHIFT])
def test_views_are_exported_with_the_network(views: Views) -> None:
    torch.manual_seed(0)
    network = build(PlainConfig(widths=(4,), dense=8), Shape(height=8, width=8, channels=3, classes=3)).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    network = with_views(network, views)
    content = export(network, InputSpec(height=8, width=8, channels=3))
    parity = parity_of(content, network, images)
    assert parity.max_logit_difference < 1e-4
