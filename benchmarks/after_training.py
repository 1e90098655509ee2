"""Computes the columns of docs/results.md for calibration and variants: means over the runs of a row."""

from collections.abc import Sequence

import numpy as np

from schemas.base import Frozen
from schemas.manifest import BatchSpeed, CalibrationErrors, DroppedVariant, ModelManifest, VariantName


class VariantResult(Frozen):
    """A variant that was kept: its accuracy on the test split, and its throughput relative to fp32."""

    name: VariantName
    accuracy: float
    speed: tuple[BatchSpeed, ...]


def variant_results(manifest: ModelManifest) -> tuple[VariantResult, ...]:
    """Returns the results of all variants except fp32."""
    return tuple(
        VariantResult(name=variant.name, accuracy=variant.metrics.accuracy, speed=variant.speed)
        for variant in manifest.variants
        if variant.name is not VariantName.FP32
    )


def calibration_cell(errors: Sequence[CalibrationErrors]) -> str:
    """Returns the mean errors before and after calibration, as "before -> after"; empty without errors."""
    if not errors:
        return ""
    before, after = (np.mean([getattr(error, when) for error in errors]) for when in ("before", "after"))
    return f"{before:.4f} -> {after:.4f}"


def variant_cell(kept: Sequence[VariantResult], dropped: Sequence[DroppedVariant]) -> str:
    """Returns the means over the runs that kept a variant; if all dropped it, the reason of the last run."""
    if not kept:
        return f"dropped: {dropped[-1].reason}" if dropped else ""
    ratios: dict[int, list[float]] = {}
    for variant in kept:
        for entry in variant.speed:
            ratios.setdefault(entry.batch, []).append(entry.ratio)
    speed = ", ".join(f"{np.mean(values):.2f}x at batch {batch}" for batch, values in sorted(ratios.items()))
    share = f" (kept by {len(kept)} of {len(kept) + len(dropped)})" if dropped else ""
    return f"{np.mean([variant.accuracy for variant in kept]):.2%}, {speed}{share}"
