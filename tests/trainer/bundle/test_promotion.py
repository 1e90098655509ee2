import shutil
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import Bundle, open_bundle
from schemas.default_model import read_default
from schemas.promotion import PROMOTION_FILE, PromotedBy, read_promotion
from tests.support import colour_images
from tests.support.altered_bundles import change_manifest
from tests.support.bundles import write_bundle
from trainer.bundle.promotion import Promote, SharedTest, keep_serving, promote_new, serving_bundle
from trainer.errors import WriteError

CONFIG = colour_images.recipe().data
TEST_IMAGES = 18


def written(artifacts: Path, version: int, scale: float = 20.0) -> Bundle:
    """Writes a version that classifies all colours correctly or, with scale 0, no better than guessing."""
    return open_bundle(write_bundle(artifacts, version=version, scale=scale))


def consider(new: Bundle, right: int = TEST_IMAGES, wanted: Promote = Promote.IF_NOT_WORSE, side: int = 8) -> str:
    """right is the number of test images that the new version classifies correctly; side is the size of the images."""
    source = colour_images.source()
    source = source.resized(source.data.input.model_copy(update={"height": side, "width": side}))
    return promote_new(new, SharedTest(source, CONFIG, np.arange(TEST_IMAGES) < right), wanted)


def promoted(artifacts: Path) -> int | None:
    record = read_promotion(artifacts / "colours")
    return None if record is None else record.version


def test_the_first_version_is_promoted(tmp_path: Path) -> None:
    assert consider(written(tmp_path, 1)) == "colours/1 is promoted. It is the first version."
    record = read_promotion(tmp_path / "colours")
    assert record is not None
    assert (record.version, record.previous, record.by, record.comparison) == (1, None, PromotedBy.TRAIN, None)


def test_a_version_that_is_not_worse_is_promoted_and_the_comparison_recorded(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    sentence = consider(written(tmp_path, 2), right=TEST_IMAGES - 1)
    assert sentence.startswith(
        "colours/2 is promoted. Accuracy on the same 18 test images: colours/1 100.00%, colours/2 94.44%. "
        "The difference may be chance (p = 1)."
    )
    record = read_promotion(tmp_path / "colours")
    assert record is not None
    assert record.comparison is not None
    assert (record.version, record.previous, record.reason) == (2, 1, record.comparison.verdict)
    assert (record.comparison.n, record.comparison.only_a_right) == (TEST_IMAGES, 1)


def test_a_worse_version_stays_a_candidate(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    sentence = consider(written(tmp_path, 2), right=TEST_IMAGES // 2)
    assert sentence.startswith(
        "colours/2 stays a candidate, and colours/1 serves, because it is worse. Accuracy on the same 18"
    )
    assert "colours/1 is better than colours/2 by more than chance" in sentence
    assert promoted(tmp_path) == 1


def test_without_a_record_the_latest_version_keeps_serving(tmp_path: Path) -> None:
    """Training first records the version that serves; without a record, the new one would serve as the latest."""
    for version in (1, 2, 10):
        written(tmp_path, version)
    keep_serving(tmp_path / "colours")
    sentence = consider(written(tmp_path, 11), right=TEST_IMAGES // 2)
    assert sentence.startswith("colours/11 stays a candidate, and colours/10 serves")
    assert promoted(tmp_path) == 10


def test_a_record_is_kept_and_a_model_without_versions_gets_none(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    written(tmp_path, 2)
    for name in ("colours", "others"):
        keep_serving(tmp_path / name)
    assert (promoted(tmp_path), (tmp_path / "others").exists()) == (1, False)


def test_the_version_that_serves_is_the_promoted_one_not_the_newest(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    written(tmp_path, 2)
    serving = serving_bundle(tmp_path / "colours")
    assert serving is not None
    assert serving.manifest.version == 1
    (tmp_path / "colours" / PROMOTION_FILE).write_text("{")
    assert serving_bundle(tmp_path / "colours") is None
    shutil.rmtree(tmp_path / "colours" / "2")
    assert serving_bundle(tmp_path / "colours") == serving


@pytest.mark.parametrize("wanted", Promote)
def test_a_damaged_record_is_not_replaced_by_training(tmp_path: Path, wanted: Promote) -> None:
    for version in (1, 2):
        written(tmp_path, version)
    (tmp_path / "colours" / PROMOTION_FILE).write_text("{")
    keep_serving(tmp_path / "colours")
    sentence = consider(written(tmp_path, 3), wanted=wanted)
    assert sentence.startswith("colours/3 stays a candidate, because promoted.json")
    assert sentence.endswith("python -m trainer promote colours VERSION")
    assert (tmp_path / "colours" / PROMOTION_FILE).read_text() == "{"


def test_the_first_model_becomes_the_default(tmp_path: Path) -> None:
    quick_start = write_bundle(tmp_path, "digits")
    change_manifest(quick_start, lambda manifest: manifest["provenance"].update(recipe={"data": {"source": "digits"}}))
    consider(open_bundle(quick_start))
    assert read_default(tmp_path) is None
    consider(written(tmp_path, 1))
    assert read_default(tmp_path) == "colours"
    consider(open_bundle(write_bundle(tmp_path, "others")))
    assert read_default(tmp_path) == "colours"


def test_a_second_model_is_not_recorded_as_the_default(tmp_path: Path) -> None:
    """Models of an older release have no record: the service takes the one that was trained first."""
    write_bundle(tmp_path, "others")
    consider(written(tmp_path, 1))
    assert read_default(tmp_path) is None


@pytest.mark.parametrize("wanted", Promote)
def test_other_labels_are_never_promoted_by_training(tmp_path: Path, wanted: Promote) -> None:
    consider(written(tmp_path, 1))
    manifest = written(tmp_path, 2).path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"blue"', '"teal"'))
    assert "colours/2 stays a candidate" in consider(open_bundle(manifest.parent), wanted=wanted)
    assert promoted(tmp_path) == 1


@pytest.mark.parametrize("wanted", Promote)
def test_a_run_that_learnt_nothing_is_never_promoted(tmp_path: Path, wanted: Promote) -> None:
    sentence = consider(written(tmp_path, 1, scale=0.0), wanted=wanted)
    assert sentence.startswith("colours/1 is not promoted, because ")
    assert promoted(tmp_path) is None


def test_the_option_overrides_the_comparison(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    assert "--promote never" in consider(written(tmp_path, 2), wanted=Promote.NEVER)
    assert promoted(tmp_path) == 1
    assert "--promote always" in consider(written(tmp_path, 3), right=0, wanted=Promote.ALWAYS)
    assert promoted(tmp_path) == 3


def test_the_version_that_serves_gets_the_images_at_its_own_size(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    assert "colours/1 100.00%" in consider(written(tmp_path, 2), side=16)


def test_a_version_that_cannot_be_compared_with_is_not_replaced(tmp_path: Path) -> None:
    consider(written(tmp_path, 1))
    (tmp_path / "colours" / "1" / "model.onnx").write_bytes(b"no graph")
    assert "could not be compared: The SHA-256 of model.onnx differs" in consider(written(tmp_path, 2))
    assert promoted(tmp_path) == 1


def test_a_record_that_cannot_be_written_names_the_command_to_repeat(tmp_path: Path) -> None:
    new = written(tmp_path, 1)
    (tmp_path / "colours" / PROMOTION_FILE).mkdir()
    with pytest.raises(WriteError, match=r"promoted\.json could not be written .* trainer promote colours 1"):
        consider(new)
