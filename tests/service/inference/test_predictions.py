import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.bundle import FloatArray
from schemas.errors import ImageError, UnreadableImageError
from schemas.manifest import ModelManifest
from schemas.prediction import (
    ClassProbability,
    FailedPrediction,
    ItemError,
    MapExplanation,
    Prediction,
    PredictResponse,
    RejectedPrediction,
)
from service.inference.explanation import ActivationMap
from service.inference.predictions import Predictions
from tests.support.altered_bundles import manifest_with

PROBABILITIES = st.one_of(
    st.floats(0, 1, width=32),
    st.floats(0, 2**-10, width=32),  # whose shortest form has an exponent
    st.sampled_from([0.0, 0.5, 1.0]),  # which come up more than once in a row
)
LABELS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=6, unique=True)


def documented(predictions: Predictions) -> PredictResponse:
    """The same answers as the objects that the API documents, made one by one."""
    manifest = predictions.manifest
    items: list[Prediction | RejectedPrediction | FailedPrediction] = []
    for i, row in enumerate(predictions.probabilities):
        ranked = sorted(range(len(row)), key=lambda index: (-row[index], index))[: predictions.top_k]
        top = tuple(
            ClassProbability(label=manifest.labels[index], index=index, probability=float(row[index]))
            for index in ranked
        )
        first = top[0].probability
        map_ = predictions.maps[i] if predictions.maps else None
        explanation = MapExplanation.model_validate(map_.to_dict(top[0].label, top[0].index)) if map_ else None
        if i in predictions.errors:
            items.append(FailedPrediction(error=ItemError(index=i, reason=str(predictions.errors[i]))))
        elif predictions.threshold is not None and first < predictions.threshold:
            reason = f"The highest probability is {first:.6g}, below the threshold of {predictions.threshold:.6g}."
            items.append(RejectedPrediction(probability=first, reason=reason, top=top, explanation=explanation))
        else:
            items.append(Prediction(**dict(top[0]), top=top, explanation=explanation))
    return PredictResponse(model=manifest.name, version=manifest.version, predictions=tuple(items))


MAP = ActivationMap(np.full((8, 8, 3), 9, np.uint8), np.array([[0.5, -1.25], [3, 1e-7]], np.float32))


@st.composite
def any_predictions(draw: st.DrawFn, manifest: ModelManifest) -> Predictions:
    labels, images = draw(LABELS), draw(st.integers(1, 5))
    probabilities: FloatArray = draw(arrays(np.float32, (images, len(labels)), elements=PROBABILITIES))
    bad: dict[int, ImageError] = draw(
        st.dictionaries(st.integers(0, images - 1), st.builds(UnreadableImageError, st.text()))
    )
    return Predictions(
        manifest.model_copy(update={"labels": tuple(labels)}),
        probabilities,
        bad,
        top_k=draw(st.integers(1, len(labels))),
        threshold=draw(st.none() | st.floats(0, 1)),
        maps=draw(st.sampled_from([[], [None if i in bad else MAP for i in range(images)]])),
    )


@given(data=st.data())
def test_the_json_of_predictions_equals_the_dump_of_the_documented_model(data: st.DataObject) -> None:
    predictions = data.draw(any_predictions(manifest_with(["fp32"])))
    assert predictions.to_json().decode() == documented(predictions).model_dump_json()
