from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from trainer.errors import WriteError
from trainer.models.build import build_network
from trainer.network_config import FastConfig
from trainer.recipe import AugmentConfig, Flip, OptimizerConfig, OptimizerName, Recipe
from trainer.training.checkpoint import Checkpoints, TrainingState
from trainer.training.loop import Fitted, fit


class KilledError(Exception):
    pass


class KillAt(Recorder):
    def __init__(self, step: int) -> None:
        super().__init__()
        self._at = step

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:
        if step >= self._at:
            raise KilledError


def run(recipe: Recipe, recorder: Recorder, folder: Path | None = None) -> Fitted:
    data = colour_images.splits(recipe)
    torch.manual_seed(recipe.seed)
    checkpoints = None if folder is None else Checkpoints(folder, 0)
    return fit(build_network(recipe, data), data, recipe, CPU, recorder, checkpoints=checkpoints)


def everything(optimizer: OptimizerName) -> Recipe:
    """Everything that draws random numbers or keeps a state, at once."""
    return colour_images.recipe(
        epochs=4,
        network=FastConfig(widths=(4, 4), whitening_stride=1, dropout=0.2),
        augment=AugmentConfig(flip=Flip.ALTERNATING, translate=1, colour=0.2, mixup=0.3, cutmix=0.5, cutout=2),
        optimizer=OptimizerConfig(name=optimizer, learning_rate=0.02, weight_decay=0.01, muon_rate=0.05),
        ema_decay=0.9,
        class_weights="balanced",
        label_smoothing=0.1,
    )


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("optimizer", OptimizerName)
@pytest.mark.parametrize("step", [3, 9, 16])  # after a step, an epoch of four steps, and before the last
def test_a_resumed_run_ends_with_the_same_weights(optimizer: OptimizerName, step: int, tmp_path: Path) -> None:
    recipe = everything(optimizer)
    alone, again = run(recipe, Recorder()), Recorder()
    with pytest.raises(KilledError):
        run(recipe, KillAt(step), tmp_path)
    resumed = run(recipe, again, tmp_path)
    assert again.notes[0].startswith(f"Resuming after step {step - 1} from")
    assert_equal(resumed.network.state_dict(), alone.network.state_dict())
    assert resumed.best_epoch == alone.best_epoch
    figures = [(epoch.train_loss, epoch.validation_loss, epoch.learning_rate) for epoch in resumed.history]
    assert figures == [(epoch.train_loss, epoch.validation_loss, epoch.learning_rate) for epoch in alone.history]


def test_the_seconds_before_a_resume_count(tmp_path: Path) -> None:
    recipe = colour_images.recipe(epochs=3)
    run(recipe, Recorder(), tmp_path)
    checkpoints = Checkpoints(tmp_path, 0)
    state, _ = checkpoints.latest()
    assert state is not None
    spent = state.facts["elapsed"]
    assert isinstance(spent, float)
    assert run(recipe, Recorder(), tmp_path).seconds == pytest.approx(spent)


def state(step: int) -> TrainingState:
    return TrainingState(step, {"a": torch.arange(4.0) + step}, {"b": torch.ones(2)}, {"elapsed": 0.1 * step})


def test_the_newest_two_checkpoints_are_kept_and_read_as_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 0)
    for step in (8, 9, 10):
        checkpoints.save(state(step))
    found, notes = checkpoints.latest()
    assert notes == []
    assert found is not None
    assert (found.step, found.facts) == (10, state(10).facts)
    assert_equal(found.tensors, state(10).tensors)
    assert_equal(found.best, state(10).best)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["10", "9"]


@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["lost", "short", "changed"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(name: str, damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 0)
    for step in (1, 2):
        checkpoints.save(state(step))
    file = tmp_path / "2" / name
    content = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "short" else content[:-1] + bytes([content[-1] ^ 0x55]))
    found, notes = checkpoints.latest()
    assert found is not None
    assert found.step == 1
    assert len(notes) == 1
    assert notes[0].startswith(f"Removed the damaged checkpoint {tmp_path / '2'} ({name}")
    assert notes[0].endswith(". Using the previous one.")
    checkpoints.save(state(2))  # its folder is free again
    found, notes = checkpoints.latest()
    assert (found and found.step, notes) == (2, [])


def test_a_changed_number_is_damage(tmp_path: Path) -> None:
    Checkpoints(tmp_path, 0).save(state(1))
    file = tmp_path / "1" / "state.json"
    file.write_text(file.read_text().replace('"elapsed": 0.1', '"elapsed": 0.2'))
    _, notes = Checkpoints(tmp_path, 0).latest()
    assert "state.json was changed after it was written" in notes[0]


@pytest.mark.parametrize(
    "written",
    [
        "{}",
        "[1]",
        '{"step": null, "sha256": {}, "facts": {}}',
        '{"step": 1, "sha256": [], "facts": {}}',
        "\0",
        "[" * 100_000,
    ],
)
def test_the_run_starts_over_if_all_checkpoints_are_damaged(tmp_path: Path, written: str) -> None:
    checkpoints = Checkpoints(tmp_path, 0)
    for step in (1, 2):
        checkpoints.save(state(step))
        (tmp_path / str(step) / "state.json").write_text(written)
    found, notes = checkpoints.latest()
    assert found is None
    why = "(state.json was changed after it was written)"
    assert notes == [
        f"Removed the damaged checkpoint {tmp_path / '2'} {why}. Using the previous one.",
        f"Removed the damaged checkpoint {tmp_path / '1'} {why}. Starting over.",
    ]


def test_an_unfinished_checkpoint_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".new-1").mkdir()
    assert Checkpoints(tmp_path, 0).latest() == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_raises_one_message(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"No checkpoint could be written to .*--resume"):
        Checkpoints(tmp_path / "gone", 0).save(state(1))


def test_memory_layouts_and_types_are_kept(tmp_path: Path) -> None:
    filters = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    counts = torch.from_numpy(np.array([3], dtype=np.int64))
    Checkpoints(tmp_path, 0).save(TrainingState(1, {"filters": filters, "same": filters, "counts": counts}, {}, {}))
    found, _ = Checkpoints(tmp_path, 0).latest()
    assert found is not None
    assert_equal(found.tensors, {"filters": filters, "same": filters, "counts": counts})
    assert found.tensors["counts"].dtype == torch.int64
