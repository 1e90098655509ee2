import shutil
from pathlib import Path

import pytest

from schemas.bundle import MANIFEST_FILE
from tests.support import colour_images
from tests.support.bundles import write_bundle
from tests.support.recorder import Recorder
from tests.support.training import train_bundle
from trainer.errors import RunsError
from trainer.run import CheckpointOptions
from trainer.training.run_dir import Facts, note_bundle, published_bundle, run_folder

FACTS: Facts = {"recipe": {"epochs": 3, "network": {"name": "fast"}}, "data": "0" * 64}


def a_run(runs: Path, facts: Facts = FACTS, *, resume: bool = False, recorder: Recorder | None = None) -> Path:
    with run_folder(runs, "digits", facts, recorder or Recorder(), resume=resume) as folder:
        (folder / "7").mkdir(exist_ok=True)
    return folder


def test_each_run_has_its_own_folder(tmp_path: Path) -> None:
    assert [a_run(tmp_path).name for _ in range(3)] == ["digits-1", "digits-2", "digits-3"]


def test_the_newest_run_with_the_same_facts_is_resumed(tmp_path: Path) -> None:
    a_run(tmp_path)
    second = a_run(tmp_path)
    a_run(tmp_path, FACTS | {"data": "1" * 64})
    assert a_run(tmp_path, resume=True) == second


def test_without_a_run_to_resume_the_note_names_the_difference(tmp_path: Path) -> None:
    recorder = Recorder()
    a_run(tmp_path)
    other: Facts = FACTS | {"recipe": {"epochs": 3, "network": {"name": "plain"}}}
    assert a_run(tmp_path, other, resume=True, recorder=recorder).name == "digits-2"
    (note,) = recorder.notes
    assert 'digits-1 differs, recipe.network.name was "fast" and is now "plain"' in note


@pytest.mark.parametrize("written", ["", "{", "[]", "null", "\0\xff", "[" * 100_000])
def test_a_damaged_run_json_is_reported_with_what_to_do(tmp_path: Path, written: str) -> None:
    recorder = Recorder()
    (a_run(tmp_path) / "run.json").write_text(written)
    assert a_run(tmp_path, resume=True, recorder=recorder).name == "digits-2"
    (note,) = recorder.notes
    assert f"{tmp_path / 'digits-1' / 'run.json'} is damaged" in note
    assert f"Restore that file, or remove {tmp_path / 'digits-1'}" in note
    assert note.endswith("Starting a new run.")
    assert "network" not in note
    assert a_run(tmp_path, resume=True).name == "digits-2"


def test_a_long_difference_is_shortened(tmp_path: Path) -> None:
    recorder = Recorder()
    a_run(tmp_path, FACTS | {"recipe": "x" * 1000})
    a_run(tmp_path, FACTS | {"recipe": {str(i): i for i in range(1000)}}, resume=True, recorder=recorder)
    (note,) = recorder.notes
    assert len(note) < len(str(tmp_path)) * 2 + 400


def test_a_run_that_another_process_trains_is_not_resumed(tmp_path: Path) -> None:
    with run_folder(tmp_path, "digits", FACTS, Recorder(), resume=False) as folder:
        (folder / "7").mkdir()
        with pytest.raises(RunsError, match=r"Another process is training .*digits-1"):
            a_run(tmp_path, resume=True)


def test_a_run_without_a_checkpoint_leaves_no_folder(tmp_path: Path) -> None:
    with run_folder(tmp_path, "digits", FACTS, Recorder(), resume=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_raises_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunsError, match="Choose another folder with --runs"):
        a_run(tmp_path / "file")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "colours-1"
    folder.mkdir(parents=True)
    return folder


def test_a_finished_run_finds_its_bundle(run: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    assert published_bundle(run) is None
    note_bundle(run, bundle, Recorder())
    found = published_bundle(run)
    assert found is not None
    assert found.path == bundle
    assert found.manifest.name == "colours"


@pytest.mark.parametrize("what", ["gone", "damaged", "replaced", "forgotten"])
def test_a_run_whose_bundle_is_lost_counts_as_unfinished(run: Path, tmp_path: Path, what: str) -> None:
    bundle = write_bundle(tmp_path)
    note_bundle(run, bundle, Recorder())
    if what == "gone":
        shutil.rmtree(bundle)
    elif what == "damaged":
        (bundle / "model.onnx").write_bytes(b"")
    elif what == "replaced":
        manifest = bundle / MANIFEST_FILE
        manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    else:
        (run / "bundle.json").write_text("{")
    assert published_bundle(run) is None


def test_a_run_that_cannot_be_marked_as_finished_is_reported_without_an_error(run: Path, tmp_path: Path) -> None:
    bundle, recorder = write_bundle(tmp_path), Recorder()
    shutil.rmtree(run)
    note_bundle(run, bundle, recorder)
    (note,) = recorder.notes
    assert f"{run} could not be marked as finished" in note


def test_only_a_resumed_run_reuses_its_bundle(tmp_path: Path) -> None:
    def trained(*, resume: bool) -> Path:
        runs = CheckpointOptions(tmp_path / "runs", resume=resume)
        return train_bundle(colour_images.recipe(epochs=1), tmp_path / "artifacts", runs=runs).path

    first = trained(resume=False)
    assert trained(resume=True) == first.resolve()
    assert trained(resume=False) == first.with_name("2")
    shutil.rmtree(first.with_name("2"))
    assert trained(resume=True) == first.with_name("2")
