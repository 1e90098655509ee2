import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import colour_images, probe_runs
from tests.support.recorder import Recorder
from tests.support.training import train_bundle
from trainer.errors import UsageError
from trainer.run import CheckpointOptions
from trainer.training.trackers import TrackerName

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SADeprecationWarning")
FIGURES = {
    "loss/train",
    "loss/validation",
    "accuracy/train",
    "accuracy/validation",
    "learning_rate",
    "score",
    "seconds",
    "images_per_second",
}


def tracked(folder: Path, tracker: TrackerName) -> Recorder:
    recorder = Recorder()
    runs = CheckpointOptions(folder / "runs", trackers=[tracker])
    train_bundle(colour_images.recipe(epochs=2), folder / "artifacts", reporter=recorder, runs=runs)
    return recorder


def accuracies(recorder: Recorder) -> list[float]:
    return [round(epoch.validation_accuracy, 4) for epoch in recorder.epochs]


def test_tensorboard_files_are_written_beside_the_checkpoints(tmp_path: Path) -> None:
    recorder = tracked(tmp_path, TrackerName.TENSORBOARD)
    events = EventAccumulator(str(tmp_path / "runs" / "colours-1" / "tensorboard"))
    events.Reload()
    found = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found.keys() == FIGURES
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]
    assert [round(value, 4) for value in found["accuracy/validation"]] == accuracies(recorder)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    yield uri
    if run := mlflow.active_run():  # of the test that deletes it
        mlflow.MlflowClient(uri).restore_run(run.info.run_id)
        mlflow.end_run()


def test_mlflow_gets_the_settings_and_every_epoch(tmp_path: Path, database: str) -> None:
    recorder = tracked(tmp_path, TrackerName.MLFLOW)
    client = mlflow.MlflowClient(database)
    experiment = client.get_experiment_by_name("colours")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("colours-1", "FINISHED")
    assert run.data.params["optimizer.learning_rate"] == "0.02"
    assert run.data.metrics.keys() == FIGURES
    history = client.get_metric_history(run.info.run_id, "accuracy/validation")
    assert [(each.step, round(each.value, 4)) for each in history] == list(enumerate(accuracies(recorder), start=1))


def test_wandb_gets_every_epoch_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    recorder = tracked(tmp_path, TrackerName.WANDB)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()  # the names, and the values as JSON
    assert all(name.encode() in content for name in FIGURES)
    assert all(json.dumps(epoch.validation_loss).encode() in content for epoch in recorder.epochs)


def test_a_tracker_gets_the_linear_probe_as_the_first_epoch(tmp_path: Path) -> None:
    recorder, runs = Recorder(), CheckpointOptions(tmp_path / "runs", trackers=[TrackerName.TENSORBOARD])
    recipe = probe_runs.recipe(tmp_path, fine_tune=0.2)
    bundle = train_bundle(recipe, tmp_path, probe_runs.source(60), reporter=recorder, runs=runs)
    events = EventAccumulator(str(tmp_path / "runs" / "colours-1" / "tensorboard"))
    events.Reload()
    epochs = [event.step for event in events.Scalars("accuracy/validation")]
    assert epochs == list(range(1, bundle.manifest.provenance.epochs + 1))
    assert epochs[1:] == [epoch.epoch for epoch in recorder.epochs]


def test_mlflow_does_not_wait_long_for_a_server_that_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # accepts no connection
        mlflow.set_tracking_uri(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UsageError, match=r"--mlflow could not start: .*Max retries exceeded"):
            tracked(tmp_path, TrackerName.MLFLOW)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def test_a_tracker_that_fails_costs_nothing_but_its_epochs(tmp_path: Path, database: str) -> None:
    class Deleting(Recorder):
        """Deletes MLflow's run, so that MLflow accepts no more metrics."""

        def epoch(self, *arguments: Any) -> None:
            super().epoch(*arguments)
            run = mlflow.active_run()
            assert run is not None
            mlflow.MlflowClient(database).delete_run(run.info.run_id)

    recorder = Deleting()
    runs = CheckpointOptions(tmp_path / "runs", trackers=[TrackerName.MLFLOW])
    bundle = train_bundle(colour_images.recipe(epochs=2), tmp_path / "artifacts", reporter=recorder, runs=runs)
    assert bundle.manifest.provenance.epochs == 2
    assert sum(note.startswith("warning: mlflow failed and gets no more epochs") for note in recorder.notes) == 1


def test_a_tracker_that_cannot_start_is_reported_before_training(tmp_path: Path) -> None:
    mlflow.set_tracking_uri("nonsense://nowhere")
    with pytest.raises(UsageError, match="--mlflow could not start: "):
        tracked(tmp_path, TrackerName.MLFLOW)
