"""Explains predictions by class activation maps, in a session of their own: predictions without maps run as ever."""

import asyncio
import base64
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.bundle import FloatArray
from schemas.errors import BundleError
from schemas.heat_map import overlay
from schemas.image import Pixels, encode_png
from schemas.manifest import InputSpec, ModelManifest
from service.backends.base import Session
from service.errors import InferenceError, InvalidRequestError
from service.inference.inputs import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActivationMap:
    """pixels uint8 [height, width, channels], as the model sees the image; values float32 [h, w]."""

    pixels: Pixels
    values: FloatArray

    def to_dict(self, label: str, index: int) -> dict[str, Any]:
        """The fields of schemas.prediction.MapExplanation."""
        height, width = self.values.shape
        png = base64.b64encode(encode_png(overlay(self.pixels, self.values))).decode()
        return {
            "label": label,
            "index": index,
            "height": height,
            "width": width,
            "map": self.values.tolist(),
            "overlay_png": png,
        }


@dataclass(eq=False)
class ExplainedImage:
    """An image of a request for maps. The batch that runs it sets map, unless the image cannot be decoded."""

    image: Image
    map: ActivationMap | None = None
    decode_cost = sys.maxsize  # not on the event loop: its time budget was measured without maps

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        return self.image.decode(spec, max_pixels)


class Explainer:
    """Opens the session with maps at the first request for one. Use prepare on one event loop."""

    def __init__(self, manifest: ModelManifest, open_session: Callable[[], Session], max_images: int) -> None:
        """open_session raises BundleError or InferenceError. max_images of one request are explained."""
        self._manifest = manifest
        self._open_session = open_session
        self._max_images = max_images
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    async def prepare(self, images: Sequence[Image]) -> list[ExplainedImage]:
        """Returns the images as ones to explain.

        Raises InvalidRequestError if the model has no maps or the images are too many, and InferenceError.
        """
        manifest = self._manifest
        if manifest.map_shape is None:
            found = manifest.explanation
            reason = found.reason if found and found.reason else "It was trained by an earlier release; train it again."
            raise InvalidRequestError(
                f"{manifest.name} version {manifest.version} has no class activation maps, so remove explain. {reason}"
            )
        if len(images) > self._max_images:
            raise InvalidRequestError(
                f"The request has {len(images):,} images; with explain, the limit is {self._max_images:,} "
                "(CONVOY_MAX_EXPLAINED)."
            )
        async with self._opening:
            if self._session is None:
                self._session = await asyncio.to_thread(self._open)
        return [ExplainedImage(image) for image in images]

    def run(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
        """Returns probabilities and maps, after prepare. Raises InferenceError."""
        assert self._session is not None  # noqa: S101 - an image to explain comes from prepare
        probabilities, maps = self._session.explain(images)
        shape = (len(images), *(self._manifest.map_shape or ()))
        if maps.shape != shape or not np.isfinite(maps).all():
            raise InferenceError(
                f"The model returned class activation maps of shape {list(maps.shape)}, or with values that are not "
                f"finite, in place of finite values of shape {list(shape)}."
            )
        return probabilities, maps

    def _open(self) -> Session:
        try:
            return self._open_session()
        except BundleError as error:
            logger.error("%s cannot explain: %s", self._manifest.name, error)  # noqa: TRY400 - the whole cause
            raise InferenceError(
                f"The class activation maps of {self._manifest.name} cannot be opened: {error}"
            ) from error
