"""A version that CONVOY_VERSIONS does not select. Nothing of it is loaded, but its manifest can be shown."""

from functools import lru_cache

from schemas.base import Frozen
from schemas.bundle import open_bundle
from schemas.errors import BundleError
from schemas.manifest import ModelManifest
from service.repository.plan import VersionRef


class Candidate(Frozen):
    ref: VersionRef
    manifest: ModelManifest | None = None
    reason: str = "CONVOY_VERSIONS does not select it; by default, only the promoted version serves."


@lru_cache(maxsize=128)  # a replaced bundle has another ref
def read_candidate(ref: VersionRef) -> Candidate:
    """Reads the manifest, from a thread that may block. If it is not valid, the reason says why."""
    try:
        return Candidate(ref=ref, manifest=open_bundle(ref.path).manifest)
    except BundleError as error:
        return Candidate(ref=ref, reason=str(error))
