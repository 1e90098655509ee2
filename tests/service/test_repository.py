import os
from pathlib import Path

import pytest

from service.errors import StartError
from service.repository import Found, newest_versions


def test_the_newest_version_of_each_model_is_found(tmp_path: Path) -> None:
    for folder in ("b/2", "b/10", "b/9", "a/1"):
        (tmp_path / folder).mkdir(parents=True)
    assert newest_versions(tmp_path) == [Found("a", 1, tmp_path / "a/1"), Found("b", 10, tmp_path / "b/10")]


def test_what_is_no_bundle_is_passed_over(tmp_path: Path) -> None:
    for folder in (
        "a/1",
        "a/.new-2",
        "a/latest",
        "a/v3",
        "a/007",
        "a/0",
        "a/-4",
        "a/\N{ARABIC-INDIC DIGIT FIVE}",
        ".b/1",
        "c",
        "Upper/1",
        "with space/1",
        os.fsdecode(b"\xff\xfe/1"),
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a/9").write_text("a file")
    (tmp_path / "README.md").write_text("a file")
    assert [(found.name, found.version) for found in newest_versions(tmp_path)] == [("a", 1)]


def test_a_missing_folder_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="is not there; train a model"):
        newest_versions(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be read"):
        newest_versions(tmp_path / "file")


def test_a_model_that_cannot_be_looked_into_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "good" / "1").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert [found.name for found in newest_versions(tmp_path)] == ["good"]
