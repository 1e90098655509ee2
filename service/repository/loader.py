"""From a bundle's folder to a model that may answer: its hashes, graph and golden samples were seen to be right."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.bundle import Bundle, open_bundle
from schemas.errors import BundleError, ManifestError
from schemas.manifest import ModelManifest
from service.backends.base import CUDA, Runtime, Session
from service.backends.variants import VariantChoice, choose, fall_back
from service.errors import ServiceError
from service.inference.execution import choose_execution
from service.inference.model import Model
from service.inference.pipeline import checked_run
from service.repository.scanner import Found
from service.settings import Settings, usable_cores
from service.telemetry.observer import Observer

_UNFORESEEN = "It failed in a way that nobody foresaw; the service's log says how."

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Loaded:
    """leases are the requests that it still has to answer; a retired one gets no more of them."""

    found: Found
    bundle: Bundle
    model: Model
    leases: int = 0
    retired: bool = False


@dataclass(frozen=True)
class Refused:
    """reason is one sentence; manifest is there where it at least could be read."""

    found: Found
    reason: str
    manifest: ModelManifest | None


@dataclass(frozen=True)
class Unloaded:
    """It would serve, had a call not taken it away."""

    found: Found
    manifest: ModelManifest | None
    reason: str = "It was unloaded by a call; a load brings it back."


Entry = Loaded | Refused | Unloaded


class Loader:
    """load blocks: call it off the event loop."""

    def __init__(self, settings: Settings, runtime: Runtime, observer_of: Callable[[str], Observer]) -> None:
        """observer_of gives who counts what a model of this name does."""
        self._settings = settings
        self._runtime = runtime
        self._observer_of = observer_of

    def load(self, found: Found) -> Loaded | Refused:
        manifest = None
        try:
            bundle = open_bundle(found.path)
            manifest = bundle.manifest
            _check_place(found, manifest)
            choice, session = self._open_variant(bundle)
        except (BundleError, ServiceError) as error:
            logger.error("%s version %d is refused: %s", found.name, found.version, error)  # noqa: TRY400 - it is said
            return Refused(found, str(error), manifest)
        except Exception:
            logger.exception("%s version %d is refused", found.name, found.version)
            return Refused(found, _UNFORESEEN, manifest)
        settings = self._settings
        model = Model(
            manifest,
            choice,
            session,
            choose_execution(session, manifest.input, settings.max_batch),
            queue=settings.queue_images,
            max_pixels=settings.max_pixels,
            max_wait=settings.max_wait_ms / 1000,
            decode_threads=usable_cores() if session.provider == CUDA else 0,
            observer=self._observer_of(found.name),
        )
        return Loaded(found, bundle, model)

    def _open_variant(self, bundle: Bundle) -> tuple[VariantChoice, Session]:
        """The variant of choice, or fp32 in its place. Raises BundleError or ServiceError where fp32 fails."""
        gpu = self._runtime.provider == CUDA
        choice = choose(bundle.manifest, gpu=gpu, policy=self._settings.variant)
        try:
            session = self._open(bundle, choice)
        except (BundleError, ServiceError) as error:
            instead = fall_back(bundle.manifest, choice, str(error))
            if instead is None:
                raise
            choice, session = instead, self._open(bundle, instead)
        if choice.in_place_of:
            said = (bundle.manifest.name, bundle.manifest.version, choice.variant.name, choice.reason)
            logger.warning("%s version %d runs as %s: %s", *said)
        return choice, session

    def _open(self, bundle: Bundle, choice: VariantChoice) -> Session:
        """From the very bytes that were hashed to a session that has answered the golden samples."""
        session = self._runtime.open(bundle.read(choice.variant))
        bundle.check_signature(session.inputs, session.outputs)
        spec, classes = bundle.manifest.input, len(bundle.manifest.labels)
        for batch in session.warm_batches:
            checked_run(session, np.zeros((batch, *spec.shape), np.uint8), classes)
        bundle.check_golden(choice.variant, lambda images: checked_run(session, images, classes))
        return session


def _check_place(found: Found, manifest: ModelManifest) -> None:
    """Raises ManifestError for a link under another name: it must not answer as what it leads to."""
    if (manifest.name, manifest.version) != (found.name, found.version):
        raise ManifestError(f"It is a link to {manifest.name} version {manifest.version}; copy that instead.")


def read_manifest(path: Path) -> ModelManifest | None:
    """None where it cannot be read."""
    try:
        return open_bundle(path).manifest
    except BundleError:
        return None
