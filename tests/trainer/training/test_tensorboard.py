from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support import colour_images
from tests.support.recorder import Recorder
from tests.support.training import train_bundle
from trainer.run import Runs


def test_every_epoch_is_written_beside_the_checkpoints(tmp_path: Path) -> None:
    recorder = Recorder()
    runs = Runs(tmp_path / "runs", tensorboard=True)
    train_bundle(colour_images.recipe(epochs=2), tmp_path, reporter=recorder, runs=runs)
    events = EventAccumulator(str(tmp_path / "runs" / "colours-1" / "tensorboard"))
    events.Reload()
    found = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found.keys() == {
        "loss/train",
        "loss/validation",
        "accuracy/train",
        "accuracy/validation",
        "learning_rate",
        "seconds",
        "images_per_second",
    }
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]
    assert [round(value, 4) for value in found["accuracy/validation"]] == [
        round(epoch.validation_accuracy, 4) for epoch in recorder.epochs
    ]
