"""One loaded model: images in, answers out, whatever protocol the request came by."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from schemas.bundle import FloatArray
from schemas.errors import ImageError
from schemas.evaluation import EvaluationReport
from schemas.manifest import ModelManifest
from schemas.prediction import DEFAULT_TOP_K, OnError, item_errors
from service.backends.base import Session
from service.backends.variants import VariantChoice
from service.errors import InvalidImagesError, InvalidRequestError, OverloadedError
from service.inference.batcher import Batcher
from service.inference.evaluation import Label, Scores, label_indices, reject_threshold, report
from service.inference.execution import Execution
from service.inference.explanation import Explainer
from service.inference.inputs import Image
from service.inference.pipeline import Answers, Pipeline
from service.inference.predictions import Predictions
from service.inference.request_context import Priority, RequestContext
from service.telemetry.counters import Counters
from service.telemetry.metrics import ModelMetrics

_WINDOW_BATCHES = 4  # enough to keep the model busy between two windows of an evaluation


class Model:
    """Use it on one event loop.

    Its requests raise OverloadedError before anything is decoded; DeadlineError at the deadline, even if the session
    never returns; InferenceError; NotReadyError if the model is closed before it answers.
    """

    def __init__(
        self,
        manifest: ModelManifest,
        choice: VariantChoice,
        session: Session,
        execution: Execution,
        *,
        queue: int,
        max_pixels: int,
        max_wait: float = 0.0,
        decode_threads: int = 0,
        wide_session: Session | None = None,
        metrics: ModelMetrics | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        """queue is the number of images that may wait. max_wait is how many seconds an idle model lets a batch fill.

        With decode_threads, which suit a GPU, a batch is decoded while the one before it runs. wide_session uses more
        cores than session, and runs an image while nothing else waits.
        """
        self.manifest = manifest
        self.choice = choice
        self.execution = execution
        self.provider = session.provider
        self._window = execution.max_batch * _WINDOW_BATCHES
        self._metrics = metrics or ModelMetrics(Counters(), manifest.name, manifest.version)
        self._explainer = explainer or Explainer(manifest, lambda: session, max_images=queue)
        self._pipeline = Pipeline(
            manifest, session, self._explainer, execution, max_pixels, decode_threads, wide_session
        )
        self._batcher = Batcher(
            self._pipeline.run,
            name=manifest.name,
            max_batch=execution.max_batch,
            capacity=queue,
            ahead=1 if decode_threads else 0,
            max_wait=max_wait,
            report=partial(_report, self._metrics),  # holds no reference to the model: a cycle would delay its memory
            count_waiting=self._metrics.waiting,
        )

    def check_room(self, context: RequestContext) -> None:
        """Raises OverloadedError if the queue has no room for a single image."""
        try:
            self._batcher.check_room(1, context)
        except OverloadedError:
            self._metrics.failed(0.0, overloaded=True)
            raise

    async def infer(self, images: Sequence[Image], context: RequestContext | None = None) -> FloatArray:
        """Returns probabilities float32 [images, classes]. Raises InvalidRequestError for the first bad image."""
        context = context or RequestContext()
        with self._metrics.request(context.timings):
            probabilities, errors = await self._answers(images, context)
            for i, error in errors.items():
                raise InvalidRequestError(f"Image {i} of {len(images)} (counted from 0) cannot be used: {error}")
            return probabilities

    async def infer_with_maps(
        self, images: Sequence[Image], context: RequestContext | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Like infer, and returns the class activation maps of the most probable classes, float32 [images, h, w]."""
        explained = await self._explainer.prepare(images)
        probabilities = await self.infer(explained, context)
        return probabilities, np.array([image.map.values for image in explained if image.map])

    async def predict(
        self,
        images: Sequence[Image],
        top_k: int | None = None,
        on_error: OnError | None = None,
        *,
        reject: bool = False,
        explain: bool = False,
        context: RequestContext | None = None,
    ) -> Predictions:
        """Returns the most probable classes of each image; with reject, only above the reject threshold.

        Raises InvalidImagesError unless on_error is item; InvalidRequestError if the model has no threshold, or with
        explain if it has no maps.
        """
        context = context or RequestContext()
        with self._metrics.request(context.timings):
            threshold = reject_threshold(self.manifest) if reject else None
            explained = await self._explainer.prepare(images) if explain else []
            images = explained or images
            probabilities, errors = await self._answers(images, context)
            if errors and on_error is not OnError.ITEM:
                raise InvalidImagesError(item_errors(errors), len(images))
            count = min(top_k or DEFAULT_TOP_K, len(self.manifest.labels))
            maps = [image.map for image in explained]
            return Predictions(self.manifest, probabilities, errors, count, threshold, maps)

    async def evaluate(
        self,
        images: Sequence[Image],
        labels: Sequence[Label],
        on_error: OnError | None = None,
        *,
        reject: bool = False,
        context: RequestContext | None = None,
    ) -> EvaluationReport:
        """Returns the metrics on labelled images, one label per image; with reject, also the effect of the threshold.

        Raises as predict, and InvalidRequestError if the labels do not fit the images or the model.
        """
        threshold = reject_threshold(self.manifest) if reject else None
        return await asyncio.to_thread(report, await self.score(images, labels, on_error, context=context), threshold)

    async def score(
        self,
        images: Sequence[Image],
        labels: Sequence[Label],
        on_error: OnError | None = None,
        *,
        context: RequestContext | None = None,
    ) -> Scores:
        """Returns the data for evaluate. Images enter the queue one window at a time, behind all predictions."""
        context = replace(context or RequestContext(), priority=Priority.EVALUATE)
        with self._metrics.request(context.timings):
            indices = label_indices(labels, images, self.manifest.labels)
            probabilities = np.zeros((len(images), len(self.manifest.labels)), np.float32)
            errors: dict[int, ImageError] = {}
            for start in range(0, len(images), self._window):
                window = images[start : start + self._window]
                answers, window_errors = await self._answers(window, context, continued=start > 0)
                probabilities[start : start + len(window)] = answers
                errors |= {start + i: error for i, error in window_errors.items()}
        # Leaving every image out would leave nothing to measure.
        if errors and (on_error is not OnError.ITEM or len(errors) == len(images)):
            raise InvalidImagesError(item_errors(errors), len(images))
        variant = self.choice.variant.name
        return Scores(self.manifest, variant, self.provider, images, indices, probabilities, errors)

    def close(self) -> None:
        """Fails waiting requests. Does not block."""
        self._batcher.close()
        self._pipeline.close()

    async def wait_closed(self) -> None:
        """After close: waits a bounded time for the running batch, then fails its requests too."""
        await self._batcher.wait_closed()

    async def _answers(
        self, images: Sequence[Image], context: RequestContext, *, continued: bool = False
    ) -> tuple[FloatArray, Mapping[int, ImageError]]:
        """Returns probabilities [images, classes], and the errors by position."""
        parts = await self._batcher.submit(images, context, continued=continued)
        errors: dict[int, ImageError] = {}
        position = 0
        for part in parts:
            context.timings.add(part.output.timings)
            for i, error in part.output.errors.items():
                if part.start <= i < part.stop:
                    errors[position + i - part.start] = error
            position += part.stop - part.start
        rows = [part.output.probabilities[part.start : part.stop] for part in parts]
        return rows[0] if len(rows) == 1 else np.concatenate(rows), errors


def _report(metrics: ModelMetrics, answers: Answers) -> None:
    metrics.batch(len(answers.probabilities) - len(answers.errors), answers.timings)
