"""promoted.json records which version of a model serves, and why. Trainer and service write it; the service reads it.

The file is in artifacts/<model>/, beside the versions. A model without it serves its latest version.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from schemas.base import Frozen
from schemas.errors import PromotionError
from schemas.files import atomic_write, read_regular_file
from schemas.model_comparison import Comparison

PROMOTION_FILE = "promoted.json"

VersionNumber = Annotated[int, Field(ge=1)]


class PromotedBy(StrEnum):
    TRAIN = "train"  # automatically, after a comparison
    CLI = "cli"
    API = "api"


class Promotion(Frozen):
    version: Annotated[VersionNumber, Field(description="the version that serves")]
    previous: Annotated[VersionNumber | None, Field(description="the version that served before")] = None
    when: Annotated[str, Field(description="UTC, ISO 8601")]
    by: PromotedBy
    comparison: Annotated[
        Comparison | None, Field(description="A is the previous version, B this one; null if they were not compared")
    ] = None
    reason: Annotated[str, Field(description="one sentence")]


class PromoteRequest(Frozen):
    version: Annotated[
        VersionNumber, Field(strict=True, description="the version to serve; an older version is a rollback")
    ]


def serving_order(versions: Iterable[int], promotion: Promotion | None) -> list[int]:
    """Returns the versions in order of preference: if one is refused, the next one serves.

    Without a promotion, the latest version comes first. A promoted version is followed by the one that served before
    it, then by older ones, and never by a newer version that was not promoted, unless none of these are left.
    """
    falling = sorted(versions, reverse=True)
    if promotion is None:
        return falling
    order = [number for number in (promotion.version, promotion.previous) if number in falling]
    order += [number for number in falling if number < promotion.version and number not in order]
    return order or falling


def promote(
    model: Path,
    version: int,
    *,
    by: PromotedBy,
    reason: str,
    comparison: Comparison | None = None,
    serving: int | None = None,
) -> Promotion:
    """Records that the version in the folder model serves from now on, and returns the record.

    serving is the version that serves now: it becomes `previous` if there is no usable record. Raises OSError.
    """
    try:
        before = read_promotion(model)
    except PromotionError:  # a promotion replaces a damaged record
        before = None
    previous = serving if before is None else before.previous if before.version == version else before.version
    promotion = Promotion(
        version=version,
        previous=None if previous == version else previous,
        when=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        by=by,
        comparison=comparison,
        reason=reason,
    )
    atomic_write(model / PROMOTION_FILE, (promotion.model_dump_json(indent=2) + "\n").encode())
    return promotion


def read_promotion(model: Path) -> Promotion | None:
    """Returns the record in the folder model, or None if it has none. Raises PromotionError if it is invalid."""
    try:
        data = read_regular_file(model / PROMOTION_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PromotionError(f"{PROMOTION_FILE} cannot be read: {error.strerror}.") from error
    try:
        return Promotion.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise PromotionError(f"{PROMOTION_FILE}: {field + ': ' if field else ''}{first['msg']}.") from error
