"""Chooses the variant of a bundle that runs, with the reason."""

from dataclasses import dataclass
from typing import Literal

from schemas.manifest import ModelManifest, Variant, VariantName

Policy = Literal["auto"] | VariantName


@dataclass(frozen=True)
class VariantChoice:
    """in_place_of is the preferred variant, if it cannot run."""

    variant: Variant
    reason: str
    in_place_of: VariantName | None = None


def choose(manifest: ModelManifest, *, gpu: bool, policy: Policy) -> VariantChoice:
    """Returns the variant to run. auto is int8 or fp16 if the bundle has it: the trainer keeps only faster variants."""
    if policy == "auto":
        device, wanted = ("a GPU", VariantName.FP16) if gpu else ("a CPU", VariantName.INT8)
        variant = manifest.variant(wanted)
        if variant is not None:
            return VariantChoice(variant, f"{wanted} is the fastest variant of this bundle on {device}")
        return VariantChoice(manifest.fp32, f"fp32 runs on {device}, because the bundle has no {wanted} variant")
    variant = manifest.variant(policy)
    if variant is not None:
        return VariantChoice(variant, f"CONVOY_VARIANT={policy}")
    return VariantChoice(manifest.fp32, f"CONVOY_VARIANT={policy}, but the bundle has no {policy}", policy)


def fall_back(manifest: ModelManifest, failed: VariantChoice, reason: str) -> VariantChoice | None:
    """Returns fp32 in place of a refused variant, or None if fp32 itself was refused."""
    if failed.variant.name is VariantName.FP32:
        return None
    return VariantChoice(manifest.fp32, f"{failed.variant.name} was refused: {reason}", failed.variant.name)
