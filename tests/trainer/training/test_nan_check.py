import pytest
import torch
from torch import Tensor, nn

from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.errors import NonFiniteError
from trainer.training.loop import fit
from trainer.training.nan_check import largest_gradients


class RootOfNothing(nn.Module):
    """From the second step on, the loss is finite and the gradient infinite: the square root's slope at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.height = nn.Parameter(torch.ones(()))
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        height = self.height * (0.0 if self.steps >= 2 else 1.0)
        logits: Tensor = self.linear(images.mean(dim=(2, 3))) + height.sqrt()
        return logits


def test_an_infinite_gradient_stops_the_run_and_names_step_and_parameter() -> None:
    recipe = colour_images.recipe()
    sentence = r"^The gradient of height is not finite at step 2. Lower optimizer.learning_rate"
    with pytest.raises(NonFiniteError, match=sentence):
        fit(RootOfNothing(), colour_images.splits(recipe), recipe, CPU, Recorder())


@pytest.mark.parametrize("bad_value", [float("nan"), float("inf"), float("-inf")])
def test_the_largest_gradient_is_finite_only_if_all_values_are(bad_value: float) -> None:
    good, bad, none = (nn.Parameter(torch.zeros(2, 40)) for _ in range(3))
    good.grad = torch.full((2, 40), -1e30)  # finite, though its square is not
    bad.grad = torch.zeros(2, 40)
    bad.grad[1, 37] = bad_value
    found = largest_gradients([("good", good), ("bad", bad), ("none", none)])
    assert torch.isfinite(found).tolist() == [True, False, True]
    assert found[0] == pytest.approx(1e30)
