"""The transport-free core: images in, labelled answers out. Who speaks HTTP (or anything else) stands before it."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

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
    RejectedPrediction,
)
from service.backends.base import Session
from service.backends.variants import Choice
from service.errors import InferenceError, InvalidImagesError, InvalidRequestError
from service.inference.batcher import Batcher
from service.inference.evaluation import Label, Scored, Scores, label_indices, reject_threshold, report
from service.inference.inputs import Image
from service.inference.request_context import Call, Priority
from service.telemetry.observer import SILENT, Observer, Stage
from service.telemetry.statistics import Statistics, Tally
from service.telemetry.timings import Timings

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

_Work = tuple[Image, Timings]


class Model:
    """One model that answers. All methods may be used from the event loop: work is done in the batcher's thread.

    What is asked of it raises OverloadedError before anything is decoded; DeadlineError once the call's time is over,
    even where the session never returns; InferenceError; NotReadyError where the model is closed before the answer.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        choice: Choice,
        session: Session,
        *,
        max_batch: int,
        queue: int,
        max_pixels: int,
        max_wait: float = 0.0,
        decode_threads: int = 0,
        observer: Observer = SILENT,
    ) -> None:
        """max_wait is in seconds: how long an idle model lets a batch fill.

        decode_threads decode a batch together, where the session leaves the cores free; 0: the batcher's thread alone.
        """
        self.manifest = manifest
        self.choice = choice
        self.provider = session.provider
        self._session = session
        self._max_pixels = max_pixels
        self._window = max_batch * _WINDOW_BATCHES
        self._observer = observer
        self._tally = Tally(manifest.name, manifest.version)
        self._pool = ThreadPoolExecutor(decode_threads, f"decode-{manifest.name}") if decode_threads else None
        self._batcher: Batcher[_Work, Answer] = Batcher(
            self._run, max_batch=max_batch, capacity=queue, name=manifest.name, max_wait=max_wait, observer=observer
        )

    async def infer(self, images: Sequence[Image], *, call: Call | None = None) -> list[FloatArray]:
        """The probabilities float32 [classes] of each image, in order.

        Raises InvalidRequestError for the first bad image: who asks so has no answer for a part of a request.
        """
        call = call or Call()
        with self._tally.request(call.timings):
            answers = await self._ask(images, call)
            for i, answer in enumerate(answers):
                if isinstance(answer, Refusal):
                    raise InvalidRequestError(
                        f"Image {i} of {len(answers)} (counted from 0) cannot be used: {answer.reason}"
                    )
            return [answer for answer in answers if not isinstance(answer, Refusal)]

    async def predict(
        self,
        images: Sequence[Image],
        top_k: int | None,
        on_error: OnError | None,
        *,
        reject: bool = False,
        call: Call | None = None,
    ) -> PredictResponse:
        """The most probable class of each image, in order; with reject, of those that reach the reject threshold.

        Raises InvalidImagesError unless on_error is item, and InvalidRequestError where there is no threshold.
        """
        call = call or Call()
        with self._tally.request(call.timings):
            threshold = reject_threshold(self.manifest) if reject else None
            answers = await self._ask(images, call)
            _check(answers, on_error)
            started = time.monotonic()
            if len(answers) <= INLINE_IMAGES:
                response = self._label(answers, top_k, threshold)
            else:
                response = await asyncio.to_thread(self._label, answers, top_k, threshold)
            call.timings.output += time.monotonic() - started
            return response

    async def evaluate(
        self,
        images: Sequence[Image],
        labels: Sequence[Label],
        on_error: OnError | None,
        *,
        reject: bool = False,
        call: Call | None = None,
    ) -> EvaluationReport:
        """The figures of this model on labelled images, one label an image; with reject, those of rejecting too.

        The images go through the queue a window at a time and behind predictions, whatever the call's priority.
        Raises as predict, and InvalidRequestError where the labels do not fit the images or the model.
        """
        threshold = reject_threshold(self.manifest) if reject else None
        return await asyncio.to_thread(report, await self.score(images, labels, on_error, call=call), threshold)

    async def score(
        self, images: Sequence[Image], labels: Sequence[Label], on_error: OnError | None, *, call: Call | None = None
    ) -> Scores:
        """What evaluate measures: the probabilities of each image, beside its label. Raises as evaluate."""
        call = replace(call or Call(), priority=Priority.EVALUATE)
        with self._tally.request(call.timings):
            indices = label_indices(labels, images, self.manifest.labels)
            probabilities = np.zeros((len(images), len(self.manifest.labels)), np.float32)
            errors: list[ItemError] = []
            for start in range(0, len(images), self._window):
                answers = await self._ask(images[start : start + self._window], call, continued=start > 0)
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

    def statistics(self) -> Statistics:
        """Of this process alone."""
        return self._tally.statistics()

    def close(self) -> None:
        """Blocks until the running batch has ended, or for some seconds; what waits is told that it will not be run."""
        self._batcher.close()
        if self._pool:
            self._pool.shutdown(wait=False)
        with suppress(AttributeError):  # closed before
            del self._session  # the batcher and this know each other: its memory would wait for the garbage collector

    async def _ask(self, images: Sequence[Image], call: Call, *, continued: bool = False) -> list[Answer]:
        work = [(image, call.timings) for image in images]
        return await self._batcher.ask(work, call=call, continued=continued)

    def _run(self, work: Sequence[_Work]) -> list[Answer]:
        """Decode and infer, in the batcher's thread; at most one batch is decoded at any time."""
        started = time.monotonic()
        each = self._pool.map if self._pool else map
        decoded = list(each(self._decode, [image for image, _ in work]))
        decoded_at = time.monotonic()
        good = [pixels for pixels in decoded if not isinstance(pixels, Refusal)]
        rows = iter(checked_run(self._session, np.stack(good), len(self.manifest.labels)) if good else ())
        ran_at = time.monotonic()
        answers: list[Answer] = [pixels if isinstance(pixels, Refusal) else next(rows) for pixels in decoded]
        output = time.monotonic() - ran_at
        self._told(work, len(good), Timings(decode=decoded_at - started, inference=ran_at - decoded_at, output=output))
        return answers

    def _decode(self, image: Image) -> Pixels | Refusal:
        try:
            return image.decode(self.manifest.input, self._max_pixels)
        except ImageError as error:
            return Refusal(str(error))

    def _told(self, work: Sequence[_Work], images: int, spent: Timings) -> None:
        """Whoever had a part in this batch spent all of its time; a batch of bad images alone was never run."""
        for timings in {id(timings): timings for _, timings in work}.values():
            timings.add(spent)
        self._observer.stage(Stage.DECODE, spent.decode)
        if images:
            self._observer.stage(Stage.INFERENCE, spent.inference)
            self._observer.batch(images)
            self._observer.answered(images)
            self._tally.batch(images, spent)

    def _label(self, answers: Sequence[Answer], top_k: int | None, threshold: float | None) -> PredictResponse:
        count = min(top_k or DEFAULT_TOP_K, len(self.manifest.labels))
        return PredictResponse(
            model=self.manifest.name,
            version=self.manifest.version,
            predictions=tuple(
                FailedPrediction(error=ItemError(index=i, reason=answer.reason))
                if isinstance(answer, Refusal)
                else _prediction(answer, count, self.manifest.labels, threshold)
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


def _prediction(
    probabilities: FloatArray, count: int, labels: Sequence[str], threshold: float | None
) -> Prediction | RejectedPrediction:
    # A stable sort of the negated values: among equals the lowest index comes first, as argmax has it.
    order = np.argsort(-probabilities, kind="stable")[:count].tolist()
    top = tuple(
        ClassProbability(label=labels[index], index=index, probability=float(probabilities[index])) for index in order
    )
    if threshold is None or top[0].probability >= threshold:
        return Prediction(**dict(top[0]), top=top)
    reason = f"The most probable class has {top[0].probability:.6g}, which is below the threshold {threshold:.6g}."
    return RejectedPrediction(probability=top[0].probability, reason=reason, top=top)


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
