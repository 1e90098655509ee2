"""docs/benchmarks-training.md from docs/benchmarks-training.json."""

from collections.abc import Mapping
from statistics import median
from typing import Annotated, NamedTuple

from pydantic import Field

from schemas.base import Frozen

TARGET = 8.0  # times as fast as the tutorial


class Case(NamedTuple):
    """A data set, the accuracy to reach, and Convoy's preset for it. The tutorial gets at most max_seconds."""

    name: str
    title: str
    accuracy: float
    preset: str
    max_seconds: float


CASES = {
    "cifar10": Case("cifar10", "CIFAR-10", 0.70, "sprint", 240),
    "mnist": Case("mnist", "MNIST", 0.99, "sprint", 240),
}


class Epoch(Frozen):
    epoch: int
    seconds: Annotated[float, Field(description="of training, from the start of the run")]
    accuracy: Annotated[float, Field(description="on the test split")]


class ConvoyRun(Frozen):
    seed: int
    limit: Annotated[float, Field(description="the seconds that the run was given")]
    seconds: float
    accuracy: Annotated[float, Field(description="on the test split")]


class Comparison(Frozen):
    keras: tuple[Epoch, ...]
    convoy: Annotated[tuple[ConvoyRun, ...], Field(description="the last ones have the limit that reaches the target")]

    def keras_seconds(self, accuracy: float) -> float | None:
        return next((epoch.seconds for epoch in self.keras if epoch.accuracy >= accuracy), None)

    @property
    def last(self) -> list[ConvoyRun]:
        return [run for run in self.convoy if run.limit == self.convoy[-1].limit]

    def convoy_seconds(self, accuracy: float) -> float | None:
        """Returns the median of the last runs; None if their median accuracy is lower."""
        reached = median(run.accuracy for run in self.last) >= accuracy
        return median(run.seconds for run in self.last) if reached else None


class Results(Frozen):
    machine: str
    cases: Mapping[str, Comparison]


def render(results: Results) -> str:
    sentences = [_sentence(CASES[name], found) for name, found in results.cases.items()]
    lines = [
        "# Training speed",
        "",
        *sentences,
        "",
        "`make bench-train` writes this page and the raw figures in",
        "[benchmarks-training.json](benchmarks-training.json).",
        "",
        f"Machine: {results.machine}.",
        "",
        "| data | to reach | Keras tutorial | Convoy | ratio | target | |",
        "|---|---|---|---|---|---|---|",
        *(_row(CASES[name], found) for name, found in results.cases.items()),
        "",
        "## How it is measured",
        "",
        "- Both train in the same session, one after the other, with all cores, on the same images.",
        "- The tutorials are TensorFlow's [CNN](https://www.tensorflow.org/tutorials/images/cnn) for CIFAR-10 and",
        "  Keras's [MNIST convnet](https://keras.io/examples/vision/mnist_convnet/), with their own optimizer settings",
        "  and batch sizes.",
        "- The tutorial's network is measured on the test split after each epoch, until it reaches the accuracy.",
        "- Convoy's schedule lowers the learning rate to zero at the end of its time limit, so it is measured on the",
        "  test split once, at its end. It gets a sixteenth of the tutorial's seconds, then a twelfth, and so on. The",
        "  first limit counts at which the median accuracy of three seeds reaches the target, so the test split",
        "  chooses the limit.",
        "- The seconds include preparing the network, measuring the precision, training and validation. They leave out",
        "  imports, reading the data and measuring the accuracy on the test split.",
        "",
        "## Runs",
        "",
    ]
    for name, found in results.cases.items():
        lines += [f"### {CASES[name].title}", "", "| run | seconds | test accuracy |", "|---|---|---|"]
        lines += [f"| Keras, epoch {e.epoch} | {e.seconds:.1f} | {e.accuracy:.2%} |" for e in found.keras]
        lines += [
            f"| Convoy, limit {run.limit:.1f} s, seed {run.seed} | {run.seconds:.1f} | {run.accuracy:.2%} |"
            for run in found.convoy
        ]
        lines.append("")
    return "\n".join(lines)


def _sentence(case: Case, found: Comparison) -> str:
    keras, convoy = found.keras_seconds(case.accuracy), found.convoy_seconds(case.accuracy)
    goal = f"{case.accuracy:.0%} on {case.title}"
    if convoy is None:
        return f"Within its limit, Convoy did not reach {goal}."
    ratio, verdict = _ratio(case, found)
    judged = f"(target {TARGET:g}{', ' if verdict else ''}{verdict})"
    if keras is None:
        return (
            f"Convoy reaches {goal} in {convoy:.1f} s. The Keras tutorial's network did not reach it in "
            f"{found.keras[-1].seconds:.1f} s, so Convoy is more than {ratio:.1f} times as fast {judged}."
        )
    return (
        f"Convoy reaches {goal} in {convoy:.1f} s and the Keras tutorial's network in {keras:.1f} s: "
        f"{ratio:.1f} times as fast {judged}."
    )


def _row(case: Case, found: Comparison) -> str:
    keras, convoy = found.keras_seconds(case.accuracy), found.convoy_seconds(case.accuracy)
    ratio, verdict = _ratio(case, found)
    cells = [
        case.title,
        f"{case.accuracy:.0%}",
        f"not reached in {found.keras[-1].seconds:.1f} s" if keras is None else f"{keras:.1f} s",
        "not reached" if convoy is None else f"{convoy:.1f} s",
        f"{'more than ' if ratio and keras is None else ''}{ratio:.1f} x" if ratio else "",
        f"{TARGET:g} x",
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(case: Case, found: Comparison) -> tuple[float, str]:
    """Returns how many times as fast Convoy is, at least, and whether that meets the target; 0 if it is unknown."""
    keras, convoy = found.keras_seconds(case.accuracy), found.convoy_seconds(case.accuracy)
    if convoy is None:
        return 0.0, ""
    ratio = (keras or found.keras[-1].seconds) / convoy
    if keras is None and ratio < TARGET:
        return ratio, ""
    return ratio, "met" if ratio >= TARGET else "missed"
