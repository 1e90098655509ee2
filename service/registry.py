"""What is live. A bundle answers only after its hashes, its graph and its golden samples were seen to be right."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.bundle import Bundle, open_bundle
from schemas.errors import BundleError
from schemas.manifest import ModelManifest
from service.errors import (
    InferenceError,
    ModelNotFoundError,
    ModelRefusedError,
    ModelRequiredError,
    NotReadyError,
)
from service.predictor import Model, checked_run
from service.repository import Found, newest_versions
from service.session import CUDA, Runtime, Session
from service.settings import Settings
from service.variants import Choice, choose, fall_back

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    found: Found
    bundle: Bundle
    model: Model


@dataclass(frozen=True)
class Refused:
    """reason is one sentence; manifest is there where it at least could be read."""

    found: Found
    reason: str
    manifest: ModelManifest | None


Entry = Loaded | Refused


class Registry:
    """The models by name; empty until load. load and close block: call them off the event loop."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._entries: dict[str, Entry] = {}

    def load(self) -> None:
        """Loads the newest version of each model; a bad one is refused with its reason and the others go on.

        Raises StartError where the artifacts folder cannot be read.
        """
        for found in newest_versions(self._settings.artifacts):
            self._entries[found.name] = self._load(found)
        default = self._settings.default_model
        if default and default not in self._entries:
            logger.warning("CONVOY_DEFAULT_MODEL=%s names no model that is there", default)
        if not self.loaded:
            logger.warning("no model serves from %s", self._settings.artifacts)

    def close(self) -> None:
        for entry in self.loaded:
            entry.model.close()

    @property
    def runtime(self) -> Runtime:
        """It says where models run, and why there."""
        return self._runtime

    @property
    def entries(self) -> Sequence[Entry]:
        return tuple(self._entries.values())

    @property
    def loaded(self) -> Sequence[Loaded]:
        return tuple(entry for entry in self.entries if isinstance(entry, Loaded))

    @property
    def refused(self) -> Sequence[Refused]:
        return tuple(entry for entry in self.entries if isinstance(entry, Refused))

    @property
    def default(self) -> str | None:
        """The model that answers where none is named: the one that is set, or the only one there is.

        A refused model counts as there: damage to one must not make another answer in its place.
        """
        if self._settings.default_model:
            return self._settings.default_model
        return next(iter(self._entries)) if len(self._entries) == 1 else None

    def entry(self, name: str) -> Entry:
        """Raises ModelNotFoundError."""
        if name not in self._entries:
            raise ModelNotFoundError(f"There is no model '{name}'; {self._there()}.")
        return self._entries[name]

    def model(self, name: str | None = None, version: int | None = None) -> Model:
        """The model to ask; without a name, the default one.

        Raises ModelRequiredError, ModelNotFoundError, ModelRefusedError, or NotReadyError where there are none.
        """
        if name is None:
            name = self.default
        if name is None and not self._entries:
            raise NotReadyError("There is no model yet; train one (make train) and start the service again.")
        if name is None:
            raise ModelRequiredError(
                f"Several models are here: name one as in /models/{next(iter(self._entries))}/predict, "
                f"or set CONVOY_DEFAULT_MODEL; {self._there()}."
            )
        entry = self.entry(name)
        if version not in {None, entry.found.version}:
            raise ModelNotFoundError(f"Version {version} of {name} is not served; version {entry.found.version} is.")
        if isinstance(entry, Refused):
            raise ModelRefusedError(
                f"{name} version {entry.found.version} was refused and cannot answer: {entry.reason}"
            )
        return entry.model

    def _there(self) -> str:
        return f"there are {', '.join(self._entries)}" if self._entries else "there are none"

    def _load(self, found: Found) -> Entry:
        manifest = None
        try:
            bundle = open_bundle(found.path)
            manifest = bundle.manifest
            choice, session = self._open_variant(bundle)
        except (BundleError, InferenceError) as error:
            logger.error("%s version %d is refused: %s", found.name, found.version, error)  # noqa: TRY400 - it is said
            return Refused(found, str(error), manifest)
        except Exception:
            logger.exception("%s version %d is refused", found.name, found.version)
            return Refused(found, "It failed in a way that nobody foresaw; the service's log says how.", manifest)
        logger.info(
            "%s version %d serves as %s on %s (%s)",
            *(found.name, found.version, choice.variant.name, session.provider, choice.reason),
        )
        settings = self._settings
        model = Model(
            manifest,
            choice,
            session,
            max_batch=settings.max_batch,
            queue=settings.queue_images,
            max_pixels=settings.max_pixels,
            max_wait=settings.max_wait_ms / 1000,
        )
        return Loaded(found, bundle, model)

    def _open_variant(self, bundle: Bundle) -> tuple[Choice, Session]:
        """The variant of choice, or fp32 in its place. Raises BundleError or InferenceError where fp32 fails."""
        gpu = self._runtime.provider == CUDA
        choice = choose(bundle.manifest, gpu=gpu, policy=self._settings.variant)
        try:
            return choice, self._open(bundle, choice)
        except (BundleError, InferenceError) as error:
            instead = fall_back(bundle.manifest, choice, str(error))
            if instead is None:
                raise
            logger.warning("%s: %s; fp32 in its place", bundle.manifest.name, instead.reason)
            return instead, self._open(bundle, instead)

    def _open(self, bundle: Bundle, choice: Choice) -> Session:
        """From the very bytes that were hashed to a session that has answered the golden samples."""
        session = self._runtime.open(bundle.read(choice.variant))
        bundle.check_signature(session.inputs, session.outputs)
        spec, classes = bundle.manifest.input, len(bundle.manifest.labels)
        for batch in dict.fromkeys(
            (1, self._settings.max_batch)
        ):  # memory is taken and kernels are chosen now, not at a request
            checked_run(session, np.zeros((batch, *spec.shape), np.uint8), classes)
        bundle.check_golden(choice.variant, lambda images: checked_run(session, images, classes))
        return session
