"""Decodes the images of one batch and runs them through the session."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from schemas.bundle import FloatArray, Infer
from schemas.errors import ImageError, ImageTooLargeError
from schemas.image import Pixels
from schemas.manifest import ModelManifest
from service.backends.base import Session
from service.errors import InferenceError
from service.inference.batcher import InThread
from service.inference.execution import Execution, Mode
from service.inference.explanation import ActivationMap, ExplainedImage, Explainer
from service.inference.inputs import Image
from service.telemetry.timings import Timings

# What the event loop decodes: a few milliseconds at most (docs/decisions/0015-inference-on-the-event-loop.md).
LOOP_DECODE_COST = 96 * 1024  # of a batch
LOOP_PIXELS = 256 * 256  # of an image

_ROUNDING = 1e-5  # a float32 softmax may exceed 1 by a little


@dataclass(frozen=True)
class Answers:
    """probabilities float32 [images, classes]; errors by the position of the image, whose row is zero."""

    probabilities: FloatArray
    errors: Mapping[int, ImageError]
    timings: Timings


class Pipeline:
    """run is called on the event loop. It raises InferenceError or DeviceMemoryError, there or in the thread."""

    def __init__(
        self,
        manifest: ModelManifest,
        session: Session,
        explainer: Explainer,
        execution: Execution,
        max_pixels: int,
        decode_threads: int = 0,
        wide_session: Session | None = None,
    ) -> None:
        """decode_threads decode each batch together, ahead of its turn; with 0, the worker thread decodes.

        wide_session uses more cores than session; it runs an image while nothing else waits.
        """
        self._spec = manifest.input
        self._classes = len(manifest.labels)
        self._session = session
        self._wide_session = wide_session or session
        self._explainer = explainer
        self._on_loop = execution.mode is Mode.EVENT_LOOP
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(decode_threads, f"decode-{manifest.name}") if decode_threads else None

    def run(self, images: Sequence[Image], alone: bool) -> Answers | InThread[Answers]:
        infer = self._wide_session.run if alone else self._session.run
        if self._on_loop and sum(image.decode_cost for image in images) <= LOOP_DECODE_COST:
            started = time.monotonic()
            decoded = [self._decode(image, min(LOOP_PIXELS, self._max_pixels)) for image in images]
            if ImageTooLargeError not in map(type, decoded):
                return self._infer(infer, decoded, started)
        if any(isinstance(image, ExplainedImage) for image in images):
            return InThread(partial(self._explain, images))
        if self._decoders:
            decoding = [self._decoders.submit(self._decode, image, self._max_pixels) for image in images]
            return InThread(lambda: self._infer(infer, (one.result() for one in decoding), time.monotonic()))
        return InThread(
            lambda: self._infer(infer, (self._decode(image, self._max_pixels) for image in images), time.monotonic())
        )

    def close(self) -> None:
        if self._decoders:
            self._decoders.shutdown(wait=False)

    def _decode(self, image: Image, max_pixels: int) -> Pixels | ImageError:
        try:
            return image.decode(self._spec, max_pixels)
        except ImageError as error:
            return error

    def _explain(self, images: Sequence[Image]) -> Answers:
        """Runs a batch of which some images need a map."""
        started = time.monotonic()
        decoded = [self._decode(image, self._max_pixels) for image in images]
        maps: list[FloatArray] = []

        def infer(pixels: Pixels) -> FloatArray:
            probabilities, found = self._explainer.run(pixels)
            maps.extend(found)
            return probabilities

        answers = self._infer(infer, decoded, started)
        readable = [(image, one) for image, one in zip(images, decoded, strict=True) if not isinstance(one, ImageError)]
        for (image, pixels), values in zip(readable, maps, strict=True):
            if isinstance(image, ExplainedImage):
                image.map = ActivationMap(pixels, values)
        return answers

    def _infer(self, infer: Infer, decoding: Iterable[Pixels | ImageError], started: float) -> Answers:
        decoded = list(decoding)
        decoded_at = time.monotonic()
        errors = {i: one for i, one in enumerate(decoded) if isinstance(one, ImageError)}
        good = [one for i, one in enumerate(decoded) if i not in errors] if errors else decoded
        nothing = np.zeros((0, self._classes), np.float32)
        probabilities = checked_run(infer, np.array(good), self._classes) if good else nothing
        ran_at = time.monotonic()
        if errors:
            found, probabilities = probabilities, np.zeros((len(decoded), self._classes), np.float32)
            probabilities[[i for i in range(len(decoded)) if i not in errors]] = found
        output = time.monotonic() - ran_at
        return Answers(probabilities, errors, Timings(decoded_at - started, 0.0, ran_at - decoded_at, output))


def checked_run(infer: Infer, images: Pixels, classes: int) -> FloatArray:
    """Returns the session's probabilities float32 [len(images), classes].

    Raises InferenceError if they have another shape or are not probabilities, and names the first such number.
    """
    probabilities = infer(images)
    if probabilities.shape != (len(images), classes):
        raise InferenceError(
            f"The model returned an array of shape {list(probabilities.shape)} instead of {[len(images), classes]}."
        )
    lowest, highest = np.minimum.reduce(probabilities, axis=None), np.maximum.reduce(probabilities, axis=None)
    if not (lowest >= 0 and highest <= 1 + _ROUNDING):  # NaN compares as false
        row, column = np.argwhere(~((probabilities >= 0) & (probabilities <= 1 + _ROUNDING)))[0]
        raise InferenceError(
            f"The model returned {probabilities[row, column]} for class {column} of image {row} of its batch; a "
            "probability lies between 0 and 1."
        )
    return probabilities if highest <= 1 else np.minimum(probabilities, np.float32(1))
