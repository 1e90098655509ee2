from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.models.build import build_network
from trainer.recipe import Precision
from trainer.training.checkpoint import Checkpoints
from trainer.training.loop import fit
from trainer.training.precision import with_precision

bf16_only = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="PyTorch has no bf16 kernels for this processor"
)


class Clock:
    """Advances by a minute at the first step in each precision, and by the given seconds at the others."""

    def __init__(self, fp32: float, bf16: float) -> None:
        self._seconds = {False: [fp32] * 5 + [60.0], True: [bf16] * 5 + [60.0]}
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def step(self, *, bf16: bool) -> None:
        self._now += self._seconds[bf16].pop()

    def __deepcopy__(self, memo: object) -> "Clock":
        return self


class TimedNetwork(nn.Module):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.clock = clock

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.clock.step(bf16=torch.is_autocast_enabled("cpu"))
        output: torch.Tensor = self.layers(images.mean(dim=(2, 3)))
        return output


@bf16_only
@pytest.mark.parametrize(
    ("fp32", "bf16", "fastest"), [(0.01, 0.02, Precision.FP32), (0.02, 0.01, Precision.BF16), (9, 30, Precision.FP32)]
)
def test_auto_chooses_the_precision_with_the_faster_step_and_prints_both_figures(
    fp32: float, bf16: float, fastest: Precision
) -> None:
    recipe, clock, notes = colour_images.recipe(precision="auto"), Clock(fp32, bf16), list[str]()
    network = TimedNetwork(clock)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    data = colour_images.splits(recipe).train
    assert with_precision(recipe, network, data, CPU, notes.append, clock=clock).precision is fastest
    figures = f"a training step takes {fp32 * 1000:.3g} ms in fp32 and {bf16 * 1000:.3g} ms in bf16"
    assert notes == [f"Precision {fastest}: {figures}."]
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_given_precision_is_not_measured(precision: Precision) -> None:
    recipe, notes = colour_images.recipe(precision=precision), list[str]()
    network = TimedNetwork(Clock(1, 1))
    assert with_precision(recipe, network, colour_images.splits(recipe).train, CPU, notes.append) == recipe
    assert notes == []


@bf16_only
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_resumed_run_keeps_the_precision_that_it_measured(precision: Precision, tmp_path: Path) -> None:
    """The first run has a fixed precision. Without the checkpoint, the resumed one would measure it."""
    recipe = colour_images.recipe(epochs=2, precision=precision)
    data, checkpoints = colour_images.splits(recipe), Checkpoints(tmp_path, 0)
    fit(build_network(recipe, data), data, recipe, CPU, Recorder(), checkpoints=checkpoints)
    recorder, auto = Recorder(), recipe.model_copy(update={"precision": Precision.AUTO, "epochs": 3})
    resumed = fit(build_network(auto, data), data, auto, CPU, recorder, checkpoints=checkpoints)
    assert resumed.precision is precision
    assert not any(note.startswith("Precision") for note in recorder.notes)
