import os
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import PromotionError
from schemas.model_comparison import compare
from schemas.promotion import PROMOTION_FILE, PromotedBy, Promotion, promote, read_promotion, serving_order


def test_a_model_without_the_file_has_no_promotion(tmp_path: Path) -> None:
    assert read_promotion(tmp_path) is None


def test_reads_what_it_wrote_and_leaves_no_other_file(tmp_path: Path) -> None:
    comparison = compare(("m/1", np.array([True, False])), ("m/2", np.array([True, True])))
    written = promote(tmp_path, 2, by=PromotedBy.TRAIN, reason=comparison.verdict, comparison=comparison, serving=1)
    assert read_promotion(tmp_path) == written
    assert (written.version, written.previous, written.comparison) == (2, 1, comparison)
    assert list(tmp_path.iterdir()) == [tmp_path / PROMOTION_FILE]


def test_previous_is_the_version_that_was_promoted_before(tmp_path: Path) -> None:
    def previous(version: int, serving: int | None = None) -> int | None:
        return promote(tmp_path, version, by=PromotedBy.CLI, reason="By hand.", serving=serving).previous

    assert previous(1) is None
    assert previous(3, serving=2) == 1  # the record takes precedence over `serving`
    assert previous(3) == 1
    assert previous(1) == 3


def test_a_promotion_replaces_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / PROMOTION_FILE).write_text("{")
    assert promote(tmp_path, 2, by=PromotedBy.API, reason="By hand.", serving=2).previous is None
    assert isinstance(read_promotion(tmp_path), Promotion)


@pytest.mark.parametrize(
    ("promoted", "previous", "order"),
    [
        (None, None, [4, 3, 2, 1]),
        (2, None, [2, 1]),
        (2, 3, [2, 3, 1]),
        (3, 1, [3, 1, 2]),
        (3, 9, [3, 2, 1]),
        (9, 2, [2, 4, 3, 1]),
    ],
)
def test_serves_the_promoted_version_then_the_previous_one_then_older_ones(
    promoted: int | None, previous: int | None, order: list[int]
) -> None:
    record = promoted and Promotion(version=promoted, previous=previous, when="", by=PromotedBy.API, reason="")
    assert serving_order([1, 2, 3, 4], record or None) == order


def test_a_newer_version_serves_in_place_of_a_deleted_one_only_if_no_older_one_is_left() -> None:
    record = Promotion(version=3, when="", by=PromotedBy.API, reason="")
    assert serving_order([1, 2, 4], record) == [2, 1]
    assert serving_order([4], record) == [4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "valid dictionary|object"),
        (b'{"version": 2}', "when: Field required"),
        (b'{"version": 0, "when": "", "by": "cli", "reason": ""}', "version: Input should be greater"),
        (b'{"version": "2", "when": "", "by": "cli", "reason": ""}', "version: Input should be a valid integer"),
        (b'{"version": 2, "when": "", "by": "me", "reason": ""}', "by: Input should be"),
        (b'{"version": 2, "when": "", "by": "cli", "reason": "", "x": 1}', "x: Extra inputs"),
        (b"\xff", "Invalid JSON"),
    ],
)
def test_names_the_first_invalid_field(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / PROMOTION_FILE).write_bytes(content)
    with pytest.raises(PromotionError, match=message):
        read_promotion(tmp_path)


def test_refuses_a_pipe_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / PROMOTION_FILE)
    with pytest.raises(PromotionError, match="not a regular file"):
        read_promotion(tmp_path)
