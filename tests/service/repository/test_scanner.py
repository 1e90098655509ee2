import os
import shutil
from pathlib import Path

import pytest

from service.errors import StartError
from service.repository.plan import VersionRef
from service.repository.scanner import fingerprint, scan
from tests.support.bundles import write_bundle


def versions(artifacts: Path) -> dict[str, list[int]]:
    return {name: [ref.version for ref in refs] for name, refs in scan(artifacts).models.items()}


def test_finds_all_versions_of_each_model_in_rising_order(tmp_path: Path) -> None:
    for folder in ("b/2", "b/10", "b/9", "a/1"):
        (tmp_path / folder).mkdir(parents=True)
    assert versions(tmp_path) == {"a": [1], "b": [2, 9, 10]}
    assert scan(tmp_path).models["a"] == (VersionRef(name="a", version=1, path=tmp_path / "a/1"),)


def test_ignores_folders_with_a_wrong_name_case_or_depth_and_says_why(tmp_path: Path) -> None:
    wrong = {
        "a/latest": "name version folders 1, 2, 3 ...",
        "a/v3": "name version folders 1, 2, 3 ...",
        "a/007": "name version folders 1, 2, 3 ...",
        "a/0": "name version folders 1, 2, 3 ...",
        "a/-4": "name version folders 1, 2, 3 ...",
        "a/\N{ARABIC-INDIC DIGIT FIVE}": "name version folders 1, 2, 3 ...",
        "team/digits": "name version folders 1, 2, 3 ... directly below their model",
        "Upper": "rename it to upper",
        "with space": "a model's name has lower-case letters",
        os.fsdecode(b"\xff\xfe"): "a model's name has lower-case letters",
    }
    for folder in ("a/1", "a/.new-2", ".b/1", "__MACOSX/1", "lost+found", "empty", *wrong):
        (tmp_path / folder / "1").mkdir(parents=True)
    for manifest in ("manifest.json", "b/manifest.json"):
        (tmp_path / manifest).parent.joinpath("report").mkdir(parents=True)
        (tmp_path / manifest).write_text("{}")
        wrong[manifest] = "move the bundle to <artifacts>/<model>/<version>/"
    (tmp_path / "a/9").write_text("a file")
    (tmp_path / "README.md").write_text("a file")
    (tmp_path / "empty" / "1").rmdir()
    seen = scan(tmp_path)
    assert versions(tmp_path) == {"a": [1]}
    assert set(seen.ignored) == {tmp_path / path for path in wrong}
    for path, reason in wrong.items():
        assert reason in seen.ignored[tmp_path / path]


def test_an_unreadable_folder_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="does not exist; train a model"):
        scan(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="is not a folder; set CONVOY_ARTIFACTS"):
        scan(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StartError, match=r"cannot be read: .*; grant read access"):
        scan(tmp_path / "loop")


def test_an_unreadable_model_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "good" / "1").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert versions(tmp_path) == {"good": [1]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reports_a_folder_without_read_permission(tmp_path: Path) -> None:
    (tmp_path / "closed" / "1").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    try:
        seen = scan(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert (dict(seen.models), dict(seen.unreadable)) == ({}, {"closed": "Permission denied"})


def test_a_replaced_bundle_has_another_stamp(tmp_path: Path) -> None:
    def stamp() -> str:
        return scan(tmp_path).models["colours"][0].stamp

    bundle = write_bundle(tmp_path)
    first = stamp()
    assert first == stamp()
    shutil.rmtree(bundle)
    write_bundle(tmp_path, scale=1.0)
    assert stamp() != first


def test_a_fingerprint_changes_with_every_file(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    seen = [fingerprint(bundle)]
    (bundle / "golden" / "0.png").unlink()
    seen.append(fingerprint(bundle))
    (bundle / "model.onnx").write_bytes(b"half")
    seen.append(fingerprint(bundle))
    shutil.rmtree(bundle)
    seen.append(fingerprint(bundle))
    assert len(set(seen)) == 4
    assert seen[-1] == frozenset()
