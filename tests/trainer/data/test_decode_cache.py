import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import InputSpec
from tests.support.bundles import COLOURS, solid, write_solid
from trainer.data.dataset import SourceData
from trainer.data.decode_cache import _TICK, ENTRY_FILE, FOLDER_NAME, _wait_for_the_clock
from trainer.data.folder import FolderSource
from trainer.errors import DataError

ROOT = Path(__file__).parent.parent.parent.parent
SPEC = InputSpec(height=6, width=6, channels=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos for each of three classes."""
    for colour in COLOURS:
        for name in ("a", "b"):
            write_solid(tmp_path / "photos" / colour / f"{name}.png", colour, (10, 7))
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


def load(photos: Path, **changes: object) -> SourceData:
    return FolderSource(photos, **{"input": SPEC, **changes}).load()  # type: ignore[arg-type]


def decoded_now(data: SourceData) -> bool:
    before = any(note.startswith("decoded before") for note in data.notes)
    assert before != any(note.startswith("decoded in ") for note in data.notes)
    return not before


def entries(photos: Path) -> list[Path]:
    return sorted((photos / FOLDER_NAME).iterdir())


def test_the_second_run_takes_what_the_first_one_decoded(photos: Path) -> None:
    first, second = load(photos), load(photos)
    assert decoded_now(first)
    assert not decoded_now(second)
    assert np.array_equal(first.train.images, second.train.images)
    assert first.train.labels.tolist() == second.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert first.content_hash() == second.content_hash()
    assert second.train.name(5) == "red/b.png"


def change_content(photos: Path) -> None:
    (photos / "red" / "a.png").write_bytes(solid("blue", (10, 7)))


def change_content_with_size_and_time_kept(photos: Path) -> None:
    path = photos / "red" / "a.png"
    status, other = path.stat(), (photos / "green" / "a.png").read_bytes()
    assert len(other) == status.st_size
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def add_a_photo(photos: Path) -> None:
    (photos / "red" / "c.png").write_bytes(solid("red", (10, 7)))


def remove_a_photo(photos: Path) -> None:
    (photos / "red" / "b.png").unlink()


def rename_a_class(photos: Path) -> None:
    (photos / "red").rename(photos / "aaa")


def add_a_class(photos: Path) -> None:
    """Shifts the indices of the other classes."""
    write_solid(photos / "aaa" / "a.png", "blue", (10, 7))


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        change_content_with_size_and_time_kept,
        add_a_photo,
        remove_a_photo,
        rename_a_class,
        add_a_class,
    ],
)
def test_changed_files_are_decoded_again(photos: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    load(photos)
    change(photos)
    changed, anew = load(photos), load(photos, cache=tmp_path / "elsewhere")
    assert decoded_now(changed)
    assert decoded_now(anew)
    assert np.array_equal(changed.train.images, anew.train.images)
    assert changed.train.labels.tolist() == anew.train.labels.tolist()
    assert changed.content_hash() == anew.content_hash()


def test_decoding_waits_until_a_change_would_show(tmp_path: Path) -> None:
    """A change within the same tick of the file system's clock would leave the times in the key as they are."""
    file = tmp_path / "photo"
    file.touch()
    _wait_for_the_clock([file])
    assert time.time() - file.stat().st_ctime >= _TICK


def test_another_size_is_another_entry_and_another_version_replaces_the_older(photos: Path) -> None:
    load(photos)
    load(photos, input=InputSpec(height=5, width=5, channels=3))
    both = entries(photos)
    assert len(both) == 2
    add_a_photo(photos)
    load(photos)
    assert len(entries(photos)) == 2
    assert len(set(entries(photos)) & set(both)) == 1


def cut_the_images(entry: Path) -> None:
    images = entry / "train-images.npy"
    images.write_bytes(images.read_bytes()[:-50])


def change_a_pixel(entry: Path) -> None:
    images = entry / "train-images.npy"
    content = bytearray(images.read_bytes())
    content[-1] ^= 255
    images.write_bytes(content)


def lose_the_labels(entry: Path) -> None:
    (entry / "train-labels.npy").unlink()


def empty_the_description(entry: Path) -> None:
    (entry / ENTRY_FILE).write_text("")


def garble_the_description(entry: Path) -> None:
    (entry / ENTRY_FILE).write_text('{"format": 2, "parts": 7}')


@pytest.mark.parametrize(
    "damage", [cut_the_images, change_a_pixel, lose_the_labels, empty_the_description, garble_the_description]
)
def test_a_damaged_entry_is_made_anew(photos: Path, damage: Callable[[Path], None]) -> None:
    first = load(photos)
    held, digest = np.array(first.train.images), first.content_hash()
    (entry,) = entries(photos)
    damage(entry)
    again = load(photos)
    assert decoded_now(again)
    assert np.array_equal(again.train.images, held)
    assert again.content_hash() == digest
    assert not decoded_now(load(photos))


def test_never_reads_an_unfinished_entry_and_removes_it_after_a_day(photos: Path) -> None:
    old, recent = photos / FOLDER_NAME / ".new-old", photos / FOLDER_NAME / ".new-recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
        (folder / "train-images.npy").write_bytes(b"half")
    for path in (old / "train-images.npy", old):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    assert decoded_now(load(photos))
    assert not old.exists()
    assert recent.exists()


def test_a_killed_run_leaves_an_entry_that_is_never_read(photos: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from schemas.manifest import InputSpec; "
        "from trainer.data import decode_cache, folder; "
        "decode_cache.write_entry = lambda *_: os._exit(9); "
        f"folder.FolderSource(Path({str(photos)!r}), InputSpec(height=6, width=6, channels=3)).load()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 9
    assert [entry.name[:5] for entry in entries(photos)] == [".new-"]
    assert decoded_now(load(photos))


def test_runs_at_once_give_one_whole_entry(photos: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda _: load(photos), range(8)))
    assert len({data.content_hash() for data in loaded}) == 1
    assert all(np.array_equal(data.train.images, loaded[0].train.images) for data in loaded)
    assert len(entries(photos)) == 1


def test_images_stay_readable_while_another_run_replaces_their_entry(photos: Path) -> None:
    first = load(photos)
    held = np.array(first.train.images)
    change_content(photos)
    assert decoded_now(load(photos))
    assert len(entries(photos)) == 1
    assert np.array_equal(first.train.images, held)


def test_where_the_data_cannot_be_written_the_users_cache_is_used(photos: Path, user_cache: Path) -> None:
    (photos / FOLDER_NAME).write_text("in the way")  # root writes through a folder's permissions
    first = load(photos)
    assert decoded_now(first)
    assert str(user_cache) in first.notes[-1]
    assert not decoded_now(load(photos))


def test_refuses_to_run_if_no_cache_folder_can_be_written(photos: Path, user_cache: Path) -> None:
    (photos / FOLDER_NAME).write_text("in the way")
    user_cache.write_text("in the way")
    with pytest.raises(DataError, match=r"could not be written to .*\.convoy-cache.* or .*--cache"):
        load(photos)


def test_writes_the_cache_to_the_configured_folder(photos: Path, tmp_path: Path) -> None:
    first = load(photos, cache=tmp_path / "here")
    assert str(tmp_path / "here") in first.notes[-1]
    assert not (photos / FOLDER_NAME).exists()
    assert not decoded_now(load(photos, cache=tmp_path / "here"))


def test_unreadable_files_are_named_again_by_the_second_run(photos: Path) -> None:
    (photos / "red" / "page.gif").write_text("image not found")
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 7 files .*--skip-bad: red/page\.gif: .*not an image"):
            load(photos)
    data = load(photos, skip_bad=True)
    assert not decoded_now(data)
    assert len(data.train) == 6
    assert "left out 1 unreadable files: red/page.gif" in data.notes[1]
