"""Decides whether a new version serves: docs/decisions/0016-when-training-promotes.md."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from schemas.bundle import Bundle, open_bundle
from schemas.default_model import DEFAULT_FILE, is_quick_start, write_default
from schemas.errors import BundleError, PromotionError
from schemas.manifest import VariantName
from schemas.metrics import learnt_something
from schemas.model_comparison import Comparison, Right, compare
from schemas.promotion import PROMOTION_FILE, PromotedBy, Promotion, promote, read_promotion, serving_order
from trainer.data.dataset import DataSource
from trainer.data.split import divide
from trainer.errors import ArtifactsError, WriteError, one_line
from trainer.evaluation.scoring import open_model, overlap_note, own_data_config, score
from trainer.files import open_newest_bundle, version_folders
from trainer.recipe import DataConfig

_SHOWN_LABELS = 10


class Promote(StrEnum):
    IF_NOT_WORSE = "if-not-worse"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class SharedTest:
    """The test split of a run, at any input size. right tells which images the new version classifies correctly."""

    source: DataSource
    config: DataConfig
    right: Right

    def right_answers(self, bundle: Bundle) -> tuple[Right, str | None]:
        """Returns which images another version classifies correctly, and a note if it may have been trained on them.

        Raises what open_model, load and score raise.
        """
        model = open_model(bundle.path, VariantName.FP32)
        data = self.source.resized(model.manifest.input).load()
        positions = divide(data, self.config).test
        note = overlap_note(model, data, positions)
        if own_data_config(model, data) is None:
            note = f"{_name(bundle)} was trained on other data, which may include these images."
        return score(model, data, positions).correct, note


def serving_bundle(folder: Path, besides: int | None = None) -> Bundle | None:
    """Returns the version of a model that a service with CONVOY_VERSIONS=promoted serves.

    None if there is none, or if promoted.json is damaged: it is unknown then, except for an only version.
    """
    versions = {number: path for number, path in version_folders(folder).items() if number != besides}
    if len(versions) > 1 and damage_of(folder):
        return None
    for number in serving_order(versions, record_of(folder)):
        try:
            return open_bundle(versions[number])
        except BundleError:  # the service refuses it too
            continue
    return None


def record_of(folder: Path) -> Promotion | None:
    """Returns the model's promotion; None if there is none, or if it is damaged."""
    return None if damage_of(folder) else read_promotion(folder)


def damage_of(folder: Path) -> str | None:
    """Returns why promoted.json cannot be used."""
    try:
        read_promotion(folder)
    except PromotionError as error:
        return str(error)
    return None


def check_labels(folder: Path, labels: tuple[str, ...]) -> None:
    """Raises ArtifactsError if neither the version that serves nor the newest one has these labels, in this order."""
    serving = serving_bundle(folder)
    if serving is None or serving.manifest.labels == labels:
        return
    try:
        confirmed = open_newest_bundle(folder).manifest.labels
    except BundleError:  # the service refuses it too
        confirmed = serving.manifest.labels
    if confirmed != labels:
        raise ArtifactsError(
            f"The data has the labels {_shown(labels)}, but {serving.path} has {_shown(serving.manifest.labels)}. "
            f"Clients of '{folder.name}' would get other labels. Give the new model a name of its own with "
            "--name, or confirm with --relabel."
        )


def keep_serving(folder: Path) -> None:
    """Records which version of the model serves now: without a record, a new version would serve as the latest one.

    Raises OSError.
    """
    serving = None if record_of(folder) is not None else serving_bundle(folder)
    if serving is not None:
        version = serving.manifest.version
        promote(folder, version, by=PromotedBy.TRAIN, reason=f"Version {version} served, because it was the latest.")


def promote_new(new: Bundle, test: SharedTest, wanted: Promote) -> str:
    """Promotes a new version, or leaves it a candidate; returns the sentence for the user. Raises WriteError."""
    serving = serving_bundle(new.path.parent, besides=new.manifest.version)
    objection = _objection(new, serving, wanted)
    if objection is not None:
        return _candidate(new, serving, objection)
    if serving is None:
        return _promoted(new, "It is the first version.")
    if wanted is Promote.ALWAYS:
        return _promoted(new, "It was trained with --promote always.")
    try:
        right, note = test.right_answers(serving)
    except Exception as error:  # whatever the old version or its runtime did, the new bundle is complete
        return _candidate(new, serving, f"the two could not be compared: {one_line(error)}")
    comparison = compare((_name(serving), right), (_name(new), test.right))
    a, b = comparison.a, comparison.b
    figures = (
        f"Accuracy on the same {comparison.n:,} test images: {a.model} {a.accuracy:.2%}, {b.model} {b.accuracy:.2%}. "
        f"{' '.join(filter(None, [comparison.verdict, note]))}"
    )
    if comparison.b_is_worse:
        return _candidate(new, serving, f"it is worse. {figures}")
    return _promoted(new, comparison.verdict, comparison, figures)


def _objection(new: Bundle, serving: Bundle | None, wanted: Promote) -> str | None:
    """Returns the reason not to promote a version, whatever its accuracy; None if there is none."""
    damage = damage_of(new.path.parent)
    if damage and len(version_folders(new.path.parent)) > 1:
        return f"{damage.rstrip('.')}, so it is unknown which version serves"
    if not learnt_something(new.manifest.metrics.test):
        return "it is no better than guessing"
    if wanted is Promote.NEVER:
        return "of --promote never"
    if serving is not None and serving.manifest.labels != new.manifest.labels:
        return "its labels differ"
    return None


def _promoted(new: Bundle, reason: str, comparison: Comparison | None = None, figures: str = "") -> str:
    folder, version = new.path.parent, new.manifest.version
    try:
        promote(folder, version, by=PromotedBy.TRAIN, reason=reason, comparison=comparison)
    except OSError as error:
        raise WriteError(
            f"{folder / PROMOTION_FILE} could not be written ({error.strerror}), so version {version} is not promoted. "
            f"Make the folder writable, then run: python -m trainer promote {folder.name} {version}"
        ) from error
    _keep_default(new)
    return f"{_name(new)} is promoted. {figures or reason}"


def _keep_default(new: Bundle) -> None:
    """Records the first model of the user's own as the default, which other models then do not change."""
    artifacts = new.path.parents[1]
    others = [path for path in artifacts.iterdir() if path != new.path.parent and version_folders(path)]
    if (artifacts / DEFAULT_FILE).exists() or is_quick_start(new.manifest) or not all(map(_is_quick_start, others)):
        return
    with suppress(OSError):  # the service then takes the model that was trained first
        write_default(artifacts, new.manifest.name)


def _is_quick_start(folder: Path) -> bool:
    try:
        return is_quick_start(open_newest_bundle(folder).manifest)
    except BundleError:
        return False


def _candidate(new: Bundle, serving: Bundle | None, reason: str) -> str:
    if damage_of(new.path.parent):
        command = f"python -m trainer promote {new.manifest.name} VERSION"
        return f"{_name(new)} stays a candidate, because {reason}. Choose a version with: {command}"
    if serving is None:
        return f"{_name(new)} is not promoted, because {reason}. It serves until another version is promoted."
    return f"{_name(new)} stays a candidate, and {_name(serving)} serves, because {reason.rstrip('.')}."


def _name(bundle: Bundle) -> str:
    return f"{bundle.manifest.name}/{bundle.manifest.version}"


def _shown(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:_SHOWN_LABELS]) + (f", ... ({len(labels)})" if len(labels) > _SHOWN_LABELS else "")
