"""When a run that is taken up again is finished: not before its bundle is there, nor after it is gone."""

import shutil
from pathlib import Path

import pytest
import torch

from schemas.bundle import MANIFEST_FILE
from tests.support.bundles import write_bundle
from tests.trainer import colours
from tests.trainer.test_loop import Recorder
from trainer.run import Runs, train
from trainer.training.run_dir import note_bundle, published_bundle


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "colours-1"
    folder.mkdir(parents=True)
    return folder


def test_a_run_knows_the_bundle_that_it_ended_with(run: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    assert published_bundle(run) is None
    note_bundle(run, bundle, Recorder())
    found = published_bundle(run)
    assert found is not None
    assert found.path == bundle
    assert found.manifest.name == "colours"


@pytest.mark.parametrize("what", ["gone", "damaged", "replaced", "forgotten"])
def test_a_bundle_that_is_not_there_any_more_is_owed_again(run: Path, tmp_path: Path, what: str) -> None:
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


def test_a_run_folder_that_takes_no_more_is_said_and_no_error(run: Path, tmp_path: Path) -> None:
    bundle, recorder = write_bundle(tmp_path), Recorder()
    shutil.rmtree(run)
    note_bundle(run, bundle, recorder)
    (note,) = recorder.notes
    assert f"{run} could not be marked as finished" in note


def test_only_a_run_that_goes_on_is_finished_already(tmp_path: Path) -> None:
    def trained(*, resume: bool) -> Path:
        runs = Runs(tmp_path / "runs", resume=resume)
        cpu, artifacts = torch.device("cpu"), tmp_path / "artifacts"
        return train(colours.recipe(epochs=1), colours.source(), cpu, artifacts, Recorder(), runs=runs).path

    first = trained(resume=False)
    assert trained(resume=True) == first.resolve()
    assert trained(resume=False) == first.with_name("2")
    shutil.rmtree(first.with_name("2"))
    assert trained(resume=True) == first.with_name("2")
