from pathlib import Path

import pytest

from schemas.files import atomic_write
from tests.support.bundles import write_bundle
from trainer.errors import DataError
from trainer.files import open_newest_bundle


def test_atomic_write_replaces_a_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    atomic_write(path, "old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_atomic_write_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "folder", "a folder cannot be replaced")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_the_newest_bundle_is_that_of_the_highest_version(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        path = write_bundle(tmp_path, version=version)
    assert open_newest_bundle(path.parent).manifest.version == 10
    assert open_newest_bundle(path).manifest.version == 9
    with pytest.raises(DataError, match="is not a bundle"):
        open_newest_bundle(tmp_path)
