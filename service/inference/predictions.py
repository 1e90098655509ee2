"""The answers of one /predict request, and their JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from schemas.bundle import FloatArray
from schemas.errors import ImageError
from schemas.manifest import ModelManifest
from service.inference.explanation import ActivationMap


@dataclass(frozen=True)
class Predictions:
    """probabilities float32 [images, classes]; errors by the position of the image, whose row means nothing.

    top_k is the number of classes to name. Below threshold, a prediction names no label.
    """

    manifest: ModelManifest
    probabilities: FloatArray
    errors: Mapping[int, ImageError]
    top_k: int
    threshold: float | None = None
    maps: Sequence[ActivationMap | None] = ()  # of each image, or empty

    def to_json(self) -> bytes:
        """The JSON of schemas.prediction.PredictResponse, made without its objects: they take most of the time."""
        return to_json({"model": self.manifest.name, "version": self.manifest.version, "predictions": self.to_list()})

    def to_list(self) -> list[dict[str, Any]]:
        """One prediction per image, with the fields of PredictResponse.predictions."""
        # A stable sort of the negated values puts the lowest index first among equals, like argmax.
        indices = (-self.probabilities).argsort(axis=1, kind="stable")[:, : self.top_k]
        rows = zip(indices.tolist(), self.probabilities.tolist(), strict=True)
        predictions: list[dict[str, Any]] = [
            {"error": {"index": i, "reason": str(self.errors[i])}} if i in self.errors else self._prediction(*row)
            for i, row in enumerate(rows)
        ]
        for prediction, map_ in zip(predictions, self.maps, strict=False):
            if map_:
                top = prediction["top"][0]
                prediction["explanation"] = map_.to_dict(top["label"], top["index"])
        return predictions

    def _prediction(self, indices: list[int], probabilities: list[float]) -> dict[str, Any]:
        """indices are those of the most probable classes; probabilities are those of all classes."""
        labels = self.manifest.labels
        top = [{"label": labels[index], "index": index, "probability": probabilities[index]} for index in indices]
        highest = probabilities[indices[0]]
        if self.threshold is None or highest >= self.threshold:
            return top[0] | {"top": top}
        reason = f"The highest probability is {highest:.6g}, below the threshold of {self.threshold:.6g}."
        return {"label": None, "index": None, "probability": highest, "reason": reason, "top": top}
