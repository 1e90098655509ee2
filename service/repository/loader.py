"""Loads a version: verifies its hashes, graph and golden samples, and warms it up."""

import logging
from dataclasses import dataclass
from functools import partial

import numpy as np

from schemas.bundle import Bundle, open_bundle
from schemas.errors import BundleError, ManifestError
from schemas.manifest import ModelManifest, Variant
from service.backends.base import CUDA, Runtime, Session
from service.backends.variants import VariantChoice, choose, fall_back
from service.errors import ServiceError
from service.inference.execution import Mode, choose_execution
from service.inference.explanation import Explainer
from service.inference.model import Model
from service.inference.pipeline import checked_run
from service.repository.candidate import Candidate
from service.repository.plan import Refused, Unloaded, VersionRef
from service.settings import Settings, usable_cores
from service.telemetry.metrics import Telemetry

_UNEXPECTED = "Loading it failed unexpectedly; the service's log has the details."

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Loaded:
    """leases counts the requests that still use the model; a retired one gets no new leases."""

    ref: VersionRef
    manifest: ModelManifest
    model: Model
    leases: int = 0
    retired: bool = False


Entry = Loaded | Refused | Unloaded | Candidate


class Loader:
    def __init__(self, settings: Settings, runtime: Runtime, telemetry: Telemetry) -> None:
        self._settings = settings
        self._runtime = runtime
        self._telemetry = telemetry

    def load(self, ref: VersionRef) -> Loaded | Refused:
        """Opens, verifies, warms and checks a version. Blocks for as long as reading the files takes."""
        manifest = None
        try:
            bundle = open_bundle(ref.path)
            manifest = bundle.manifest
            _check_place(ref, manifest)
            choice, session = self._open_variant(bundle)
            execution = choose_execution(session, manifest.input, self._settings.max_batch)
            wide = self._runtime.wide if execution.mode is Mode.THREAD else None
            wide_session = self._open(wide, bundle, choice) if wide else None
        except (BundleError, ServiceError) as error:
            logger.error("%s is refused: %s", ref, error)  # noqa: TRY400 - the message is the whole cause
            return Refused(ref=ref, reason=str(error), manifest=manifest)
        except Exception:
            logger.exception("%s is refused", ref)
            return Refused(ref=ref, reason=_UNEXPECTED, manifest=manifest)
        settings = self._settings
        open_with_map = partial(self._open_with_map, bundle, choice.variant)
        model = Model(
            manifest,
            choice,
            session,
            execution,
            queue=settings.queue_images,
            max_pixels=settings.max_pixels,
            max_wait=settings.max_wait_ms / 1000,
            decode_threads=usable_cores() if session.provider == CUDA else 0,
            wide_session=wide_session,
            metrics=self._telemetry.model(ref.name, ref.version),
            explainer=Explainer(manifest, open_with_map, settings.max_explained),
        )
        return Loaded(ref, manifest, model)

    def _open_variant(self, bundle: Bundle) -> tuple[VariantChoice, Session]:
        """Returns the chosen variant, or fp32 if that fails. Raises BundleError or ServiceError if fp32 fails too."""
        gpu = self._runtime.provider == CUDA
        choice = choose(bundle.manifest, gpu=gpu, policy=self._settings.variant)
        try:
            session = self._open(self._runtime, bundle, choice)
        except (BundleError, ServiceError) as error:
            instead = fall_back(bundle.manifest, choice, str(error))
            if instead is None:
                raise
            choice, session = instead, self._open(self._runtime, bundle, instead)
        if choice.in_place_of:
            name, version = bundle.manifest.name, bundle.manifest.version
            logger.warning("%s version %d runs as %s: %s", name, version, choice.variant.name, choice.reason)
        return choice, session

    def _open(self, runtime: Runtime, bundle: Bundle, choice: VariantChoice) -> Session:
        """Opens the bytes that were hashed, warms the session up and checks its golden samples."""
        session = runtime.open(bundle.read(choice.variant))
        bundle.check_signature(session.inputs, session.outputs)
        spec, classes = bundle.manifest.input, len(bundle.manifest.labels)
        for batch in session.warm_batches:
            checked_run(session.run, np.zeros((batch, *spec.shape), np.uint8), classes)
        bundle.check_golden(choice.variant, lambda images: checked_run(session.run, images, classes))
        if choice.variant.explanation and runtime is self._runtime:
            # In a session for this check only: it doubles the memory, and few need maps.
            bundle.check_golden_maps(choice.variant, self._open_with_map(bundle, choice.variant).explain)
        return session

    def _open_with_map(self, bundle: Bundle, variant: Variant) -> Session:
        session = self._runtime.open(bundle.read_with_map(variant))
        bundle.check_signature(session.inputs, session.outputs, with_map=True)
        return session


def _check_place(ref: VersionRef, manifest: ModelManifest) -> None:
    """Raises ManifestError for a link to a bundle of another name or version: it must not answer under this one."""
    if (manifest.name, manifest.version) != (ref.name, ref.version):
        raise ManifestError(
            f"{ref.path} is a link to {manifest.name} version {manifest.version}; copy that bundle instead."
        )
