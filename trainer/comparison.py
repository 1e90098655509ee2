"""Two bundles on the same images, by schemas.model_comparison."""

from schemas.model_comparison import Comparison
from schemas.model_comparison import compare as compare_answers
from trainer.errors import DataError
from trainer.evaluation.evaluate import Model, Score


def check_same_labels(a: Model, b: Model) -> None:
    """Raises DataError naming the labels that only one of them has; their order may differ."""
    for one, other in ((a, b), (b, a)):
        alone = [label for label in one.manifest.labels if label not in other.manifest.labels]
        if alone:
            raise DataError(
                f"Only bundles of the same labels can be compared: {one.path} has {', '.join(alone)}, which "
                f"{other.path} has not."
            )


def compare(a: tuple[str, Score], b: tuple[str, Score]) -> Comparison:
    """The names of two models and their scores on the same images, in the same order."""
    (name_a, right_a), (name_b, right_b) = (
        (name, score.probabilities.argmax(axis=1) == score.labels) for name, score in (a, b)
    )
    return compare_answers((name_a, right_a), (name_b, right_b))
