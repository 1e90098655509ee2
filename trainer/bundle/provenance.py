"""Records the origin of a model: its recipe, data, machine and code."""

import importlib.metadata
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from schemas.manifest import DataProvenance, Duplicates, Provenance, Suspects
from trainer.data.duplicates import count_known
from trainer.data.split import Splits
from trainer.data.suspects import Kind, Suspect
from trainer.models.summary import parameter_count
from trainer.recipe import Recipe
from trainer.training.device import describe
from trainer.training.loop import Fitted


def provenance(
    recipe: Recipe, data: Splits, suspects: Sequence[Suspect], fitted: Fitted, device: torch.device
) -> Provenance:
    duplicates = data.duplicates
    if fitted.held is not None:  # the last layer learnt from the validation split, too
        duplicates = Duplicates(
            validation=duplicates.validation, test=count_known(data.test, data.train, data.validation)
        )
    return Provenance(
        recipe=recipe.model_dump(mode="json"),
        data=_data(data, duplicates, _counted(suspects, unlike=fitted.unlike is not None)),
        seed=recipe.seed,
        epochs=len(fitted.history),
        best_epoch=fitted.best_epoch,
        parameters=parameter_count(fitted.network),
        device=describe(device),
        processes=fitted.processes,
        duration_seconds=round(fitted.seconds, 3),
        steps=fitted.steps,
        **_time_and_code(),
    )


def provenance_of_import(origin: dict[str, JsonValue], parameters: int, data: Splits) -> Provenance:
    """Returns the provenance of a model that was trained elsewhere; origin describes its file."""
    return Provenance(
        recipe={"imported": origin},
        data=_data(data, data.duplicates),
        seed=0,
        epochs=0,
        best_epoch=0,
        parameters=parameters,
        device="cpu",
        duration_seconds=0,
        **_time_and_code(),
    )


def _data(data: Splits, duplicates: Duplicates, suspects: Suspects | None = None) -> DataProvenance:
    return DataProvenance(
        name=data.name,
        content_hash=data.content_hash,
        train=len(data.train),
        validation=len(data.validation),
        test=len(data.test),
        duplicates=duplicates,
        suspects=suspects,
    )


def _time_and_code() -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "git_commit": _git_commit(),
        "libraries": _libraries(),
    }


def _counted(suspects: Sequence[Suspect], *, unlike: bool) -> Suspects:
    counts = Counter(suspect.kind for suspect in suspects)
    return Suspects(
        equal=counts[Kind.EQUAL], uniform=counts[Kind.UNIFORM], unlike=counts[Kind.UNLIKE] if unlike else None
    )


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in (
        "numpy",
        "onnx",
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxscript",
        "pillow",
        "pillow-heif",
        "simplejpeg",
        "timm",
        "torch",
        "torchvision",
    ):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """Returns the commit of this code, with + if files differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")
