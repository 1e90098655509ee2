"""Which variant of a bundle runs, and why. Pure: manifest, device and policy in, a choice out."""

from dataclasses import dataclass
from typing import Literal

from schemas.manifest import ModelManifest, Variant, VariantName

Policy = Literal["auto"] | VariantName


@dataclass(frozen=True)
class Choice:
    """in_place_of is the variant that should have run and cannot."""

    variant: Variant
    reason: str
    in_place_of: VariantName | None = None


def choose(manifest: ModelManifest, *, gpu: bool, policy: Policy) -> Choice:
    """auto takes the device's own variant where the bundle has it: a trainer writes one only if it is faster there."""
    if policy == "auto":
        device, wanted = ("a GPU", VariantName.FP16) if gpu else ("a CPU", VariantName.INT8)
        variant = manifest.variant(wanted)
        if variant is not None:
            return Choice(variant, f"{wanted} is the fastest variant of this bundle on {device}")
        return Choice(manifest.fp32, f"the bundle has no {wanted}, the fast variant on {device}")
    variant = manifest.variant(policy)
    if variant is not None:
        return Choice(variant, f"CONVOY_VARIANT={policy}")
    return Choice(manifest.fp32, f"CONVOY_VARIANT={policy}, but the bundle has no {policy}", policy)


def fall_back(manifest: ModelManifest, failed: Choice, reason: str) -> Choice | None:
    """fp32 instead of a variant that was refused; None where it is fp32 that failed: then there is nothing to trust."""
    if failed.variant.name is VariantName.FP32:
        return None
    return Choice(manifest.fp32, f"{failed.variant.name} was refused: {reason}", failed.variant.name)
