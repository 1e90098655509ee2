from collections.abc import Sequence

import pytest

from benchmarks.training.results import CASES, Comparison, ConvoyRun, Epoch, Results, render
from trainer.recipes.registry import find_recipe


def comparison(keras: Sequence[tuple[float, float]], convoy: Sequence[tuple[float, float, float]]) -> Comparison:
    """Takes (seconds, accuracy) of each epoch, and (limit, seconds, accuracy) of each of Convoy's runs."""
    return Comparison(
        keras=tuple(Epoch(epoch=i, seconds=s, accuracy=a) for i, (s, a) in enumerate(keras, start=1)),
        convoy=tuple(ConvoyRun(seed=i, limit=x, seconds=s, accuracy=a) for i, (x, s, a) in enumerate(convoy)),
    )


def first_sentences(**cases: Comparison) -> list[str]:
    return render(Results(machine="a machine", cases=cases)).splitlines()[2 : 2 + len(cases)]


def test_the_page_begins_with_the_ratio_of_each_data_set() -> None:
    found = comparison(
        keras=[(30, 0.5), (60, 0.69), (90, 0.71)],
        convoy=[(9, 9.1, 0.69), (9, 9.1, 0.68), (9, 9.1, 0.71), (10, 10, 0.71), (10, 10.2, 0.70), (10, 9.9, 0.69)],
    )
    assert first_sentences(cifar10=found, mnist=comparison([(50, 0.991)], [(10, 10, 0.992)])) == [
        "Convoy reaches 70% on CIFAR-10 in 10.0 s and the Keras tutorial's network in 90.0 s: "
        "9.0 times as fast (target 8, met).",
        "Convoy reaches 99% on MNIST in 10.0 s and the Keras tutorial's network in 50.0 s: "
        "5.0 times as fast (target 8, missed).",
    ]


@pytest.mark.parametrize(("seconds", "judged", "verdict"), [(240, ", met", "met"), (60, "", "")])
def test_a_tutorial_that_does_not_reach_the_accuracy_gives_a_lower_bound(
    seconds: float, judged: str, verdict: str
) -> None:
    found = comparison([(seconds / 2, 0.6), (seconds, 0.69)], [(20, 20, 0.71)])
    assert first_sentences(cifar10=found) == [
        f"Convoy reaches 70% on CIFAR-10 in 20.0 s. The Keras tutorial's network did not reach it in {seconds:.1f} s, "
        f"so Convoy is more than {seconds / 20:.1f} times as fast (target 8{judged})."
    ]
    page = render(Results(machine="a machine", cases={"cifar10": found}))
    assert f"| not reached in {seconds:.1f} s | 20.0 s | more than {seconds / 20:.1f} x | 8 x | {verdict} |" in page


@pytest.mark.parametrize("keras", [0.69, 0.71])
def test_the_page_says_that_convoy_did_not_reach_the_accuracy(keras: float) -> None:
    found = comparison([(240, keras)], [(60, 60, 0.69)])
    assert first_sentences(cifar10=found) == ["Within its limit, Convoy did not reach 70% on CIFAR-10."]
    assert "| not reached |  | 8 x |  |" in render(Results(machine="a machine", cases={"cifar10": found}))


def test_every_preset_that_is_compared_exists() -> None:
    assert all(find_recipe(case.name, case.preset).max_seconds for case in CASES.values())
