"""The transport-free core: images in, labelled answers out. Who speaks HTTP (or anything else) stands before it."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.bundle import FloatArray
from schemas.errors import ImageError
from schemas.evaluation import EvaluationReport
from schemas.image import Pixels
from schemas.manifest import ModelManifest
from schemas.prediction import (
    DEFAULT_TOP_K,
    ClassProbability,
    FailedPrediction,
    ItemError,
    OnError,
    Prediction,
    PredictResponse,
)
from service.batcher import Batcher
from service.call import Call
from service.errors import DeadlineError, InferenceError, InvalidImagesError
from service.evaluation import Label, Scored, Scores, label_indices, report
from service.images import Image
from service.session import Session
from service.variants import Choice

# Below this many, a hop to another thread costs more than the work it takes off the event loop.
INLINE_IMAGES = 32
_WINDOW_BATCHES = 4  # enough that the worker does not run dry between two windows
_ROUNDING = 1e-5  # a softmax in float32 may pass 1 by a little


@dataclass(frozen=True)
class Refusal:
    """Stands in the place of an image's probabilities: why it has none."""

    reason: str


Answer = FloatArray | Refusal
"""Probabilities float32 [classes] of one image, or why there are none."""


class Model:
    """One model that answers. All methods may be used from the event loop: work is done in the batcher's thread."""

    def __init__(
        self, manifest: ModelManifest, choice: Choice, session: Session, *, max_batch: int, queue: int, max_pixels: int
    ) -> None:
        self.manifest = manifest
        self.choice = choice
        self.provider = session.provider
        self._session = session
        self._max_pixels = max_pixels
        self._window = max_batch * _WINDOW_BATCHES
        self._batcher: Batcher[Image, Answer] = Batcher(
            self._run, max_batch=max_batch, capacity=queue, name=manifest.name
        )

    async def predict(self, images: Sequence[Image], top_k: int | None, on_error: OnError | None) -> PredictResponse:
        """The most probable class of each image, in order.

        Raises InvalidImagesError unless on_error is item, OverloadedError before anything is decoded, InferenceError.
        """
        answers: list[Answer] = await asyncio.wrap_future(self._batcher.submit(images))
        _check(answers, on_error)
        if len(answers) <= INLINE_IMAGES:
            return self._label(answers, top_k)
        return await asyncio.to_thread(self._label, answers, top_k)

    async def infer(self, images: Sequence[Image], *, call: Call) -> list[Answer]:
        """Stand-in: nobody waits beyond the deadline, but the work goes on."""
        seconds = call.deadline - time.monotonic()
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                answers: list[Answer] = await asyncio.wrap_future(self._batcher.submit(images))
        except TimeoutError as error:
            raise DeadlineError("The time of this request was over before its images were done.") from error
        return answers

    async def evaluate(
        self, images: Sequence[Image], labels: Sequence[Label], on_error: OnError | None
    ) -> EvaluationReport:
        """The figures of this model on labelled images, one label an image.

        The images go through the queue a window at a time, so that other requests find places in it.
        Raises as predict, and InvalidRequestError where the labels do not fit the images or the model.
        """
        return await asyncio.to_thread(report, await self.score(images, labels, on_error))

    async def score(self, images: Sequence[Image], labels: Sequence[Label], on_error: OnError | None) -> Scores:
        """What evaluate measures: the probabilities of each image, beside its label. Raises as evaluate."""
        indices = label_indices(labels, images, self.manifest.labels)
        probabilities = np.zeros((len(images), len(self.manifest.labels)), np.float32)
        errors: list[ItemError] = []
        for start in range(0, len(images), self._window):
            window = images[start : start + self._window]
            answers: list[Answer] = await asyncio.wrap_future(self._batcher.submit(window, continued=start > 0))
            for i, answer in enumerate(answers, start):
                if isinstance(answer, Refusal):
                    errors.append(ItemError(index=i, reason=answer.reason))
                else:
                    probabilities[i] = answer
        # With nothing left to measure, leaving the bad ones out is no answer.
        if errors and (on_error is not OnError.ITEM or len(errors) == len(images)):
            raise InvalidImagesError(tuple(errors), len(images))
        model = Scored(self.manifest, self.choice.variant.name, self.provider)
        return Scores(model, images, indices, probabilities, tuple(errors))

    def close(self) -> None:
        self._batcher.close()
        del self._session  # the batcher and this know each other: its memory would wait for the garbage collector

    def _run(self, images: Sequence[Image]) -> list[Answer]:
        """Decode and infer, in the batcher's thread; at most one batch is decoded at any time."""
        spec = self.manifest.input
        answers: list[Answer | None] = [None] * len(images)
        decoded = []
        for i, image in enumerate(images):
            try:
                decoded.append(image.decode(spec, self._max_pixels))
            except ImageError as error:
                answers[i] = Refusal(str(error))
        rows = iter(checked_run(self._session, np.stack(decoded), len(self.manifest.labels)) if decoded else ())
        return [next(rows) if answer is None else answer for answer in answers]

    def _label(self, answers: Sequence[Answer], top_k: int | None) -> PredictResponse:
        count = min(top_k or DEFAULT_TOP_K, len(self.manifest.labels))
        return PredictResponse(
            model=self.manifest.name,
            version=self.manifest.version,
            predictions=tuple(
                FailedPrediction(error=ItemError(index=i, reason=answer.reason))
                if isinstance(answer, Refusal)
                else _prediction(answer, count, self.manifest.labels)
                for i, answer in enumerate(answers)
            ),
        )


def checked_run(session: Session, images: Pixels, classes: int) -> FloatArray:
    """The session's probabilities float32 [len(images), classes].

    Raises InferenceError where they have another shape or are not probabilities; the first such number is named.
    """
    probabilities = session.run(images)
    if probabilities.shape != (len(images), classes):
        raise InferenceError(
            f"The model answered with the shape {list(probabilities.shape)}, not {[len(images), classes]}."
        )
    wrong = ~((probabilities >= 0) & (probabilities <= 1 + _ROUNDING))  # written so that NaN is wrong
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InferenceError(
            f"The model answered {probabilities[row, column]} for class {column} of image {row} of its batch, "
            "which is no probability."
        )
    return np.minimum(probabilities, np.float32(1))


def _prediction(probabilities: FloatArray, count: int, labels: Sequence[str]) -> Prediction:
    # A stable sort of the negated values: among equals the lowest index comes first, as argmax has it.
    order = np.argsort(-probabilities, kind="stable")[:count].tolist()
    top = tuple(
        ClassProbability(label=labels[index], index=index, probability=float(probabilities[index])) for index in order
    )
    return Prediction(**dict(top[0]), top=top)


def _errors(answers: Sequence[Answer]) -> tuple[ItemError, ...]:
    return tuple(
        ItemError(index=i, reason=answer.reason) for i, answer in enumerate(answers) if isinstance(answer, Refusal)
    )


def _check(answers: Sequence[Answer], on_error: OnError | None) -> None:
    if on_error is OnError.ITEM:
        return
    errors = _errors(answers)
    if errors:
        raise InvalidImagesError(errors, len(answers))
