import pytest
import sklearn.metrics as sklearn
import torch

from trainer.recipe import Monitor
from trainer.training.monitor import ClassCounts, score


@pytest.fixture(scope="module")
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and predictions of 300 images; class 3 has no images, and class 2 is never predicted."""
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 4]).repeat_interleave(75)
    guessed = torch.randint(2, (300,), generator=random)
    return labels, torch.where(torch.rand(300, generator=random) < 0.7, labels, guessed).masked_fill(labels == 2, 1)


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        (Monitor.ACCURACY, sklearn.accuracy_score),
        (Monitor.BALANCED_ACCURACY, sklearn.balanced_accuracy_score),
        (Monitor.MACRO_F1, lambda labels, predicted: sklearn.f1_score(labels, predicted, average="macro")),
    ],
)
def test_figures_of_classes_agree_with_scikit_learn(answers, monitor, expected) -> None:  # type: ignore[no-untyped-def]
    labels, predicted = answers
    counts = ClassCounts(5)
    for part in (slice(0, 120), slice(120, 300)):
        counts.add(predicted[part], labels[part])
    assert score(monitor, counts.tensor, loss=0.3) == pytest.approx(expected(labels, predicted))


def test_of_log_loss_lower_is_better() -> None:
    assert score(Monitor.LOG_LOSS, torch.ones(3, 2), loss=0.3) == -0.3
