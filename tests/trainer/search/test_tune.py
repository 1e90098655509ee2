"""Searches with the real Optuna, on a data set that a network learns within seconds."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from filelock import FileLock
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from PIL import Image

from tests.support import colour_images
from trainer.data.dataset import FakeSource, Images, LabelledImages, Rows, SourceData
from trainer.errors import RecipeError, StudyError
from trainer.recipe import OptimizerConfig, OptimizerName, Recipe, read_recipe, write_recipe
from trainer.search.report import write_importance, write_trials
from trainer.search.search_space import Space
from trainer.search.tune import Search, search, value_of

CPU = torch.device("cpu")
SPACE: Space = {
    "optimizer.learning_rate": FloatDistribution(1e-4, 0.1, log=True),
    "batch_size": IntDistribution(8, 32),
    "augment.flip": CategoricalDistribution(("off", "random")),
}


class Unreadable(Images):
    """Images with known digests, whose pixels must not be read."""

    def __init__(self, images: Images) -> None:
        super().__init__(images[:], images.digests)

    def __getitem__(self, key: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        raise AssertionError("a pixel was read")

    def gather(self, positions: Rows, into: object) -> None:
        raise AssertionError("a pixel was read")

    def take(self, positions: Rows) -> Images:
        view = super().take(positions)
        view.__class__ = Unreadable
        return view


def recipe(**changes: object) -> Recipe:
    return colour_images.recipe(epochs=2, **changes)


def published() -> SourceData:
    """60 images to train on and 30 for the test."""
    whole = colour_images.colours(90)
    return replace(whole, train=whole.train.take(np.arange(60)), test=whole.train.take(np.arange(60, 90)))


def tuned(
    folder: Path, trials: int, *, space: Space = SPACE, of: Recipe | None = None, data: SourceData | None = None
) -> tuple[Search, list[str]]:
    messages: list[str] = []
    source = FakeSource(data or published())
    study = folder / "study.db"
    return search(of or recipe(), source, CPU, space=space, trials=trials, study=study, say=messages.append), messages


def tried(found: Search) -> list[tuple[object, ...]]:
    return [(trial.state, trial.value, trial.params, trial.intermediate_values) for trial in found.trials]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Search:
    return tuned(tmp_path_factory.mktemp("tune"), 8)[0]


def test_the_own_values_of_the_recipe_are_tried_first_and_the_best_trial_is_no_worse(found: Search) -> None:
    own = found.trials[0]
    assert own == found.own
    assert own.params == {"optimizer.learning_rate": 0.02, "batch_size": 16, "augment.flip": "off"}
    assert value_of(found.best) == max(value_of(trial) for trial in found.trials) >= value_of(own)
    assert found.best_recipe.name == "colours-tuned"
    assert found.best_recipe.batch_size == found.best.params["batch_size"]
    assert len({trial.params["optimizer.learning_rate"] for trial in found.trials}) == 8


def test_training_the_best_recipe_reproduces_the_value_of_its_trial(found: Search, tmp_path: Path) -> None:
    again, _ = tuned(tmp_path, 1, of=found.best_recipe)
    assert value_of(again.trials[0]) == value_of(found.best)


def test_a_continued_search_has_the_same_trials_as_an_uninterrupted_one(found: Search, tmp_path: Path) -> None:
    first, _ = tuned(tmp_path, 3)
    assert tried(first) == tried(found)[:3]
    second, messages = tuned(tmp_path, 8)
    assert tried(second) == tried(found)
    assert len([line for line in messages if line.startswith("trial ")]) == 5
    assert messages[-1].startswith("trial 8/8: ")


def test_a_killed_trial_is_repeated(found: Search, tmp_path: Path) -> None:
    """After kill -9 the study lists the trial as running."""
    for killed_after in (0, 3):
        folder = tmp_path / str(killed_after)
        tuned(folder, max(killed_after, 0))
        study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}")
        trial = study.ask()
        trial.suggest_int("batch_size", 8, 32)
        assert trial.number == killed_after
        assert tried(tuned(folder, 8)[0]) == tried(found)


def test_no_pixel_of_the_test_split_is_read(found: Search, tmp_path: Path) -> None:
    data = published()
    assert data.test is not None
    guarded = LabelledImages(Unreadable(data.test.images), data.test.labels)
    with pytest.raises(AssertionError):
        guarded.take(np.arange(3)).images[0]
    # With a known range of values, reading the data does not compare the splits' ranges either.
    known = recipe().data.model_copy(update={"value_range": (0, 255)})
    guarded_search, _ = tuned(tmp_path, 8, of=recipe(data=known), data=replace(data, test=guarded))
    assert tried(guarded_search) == tried(found)


def test_a_run_that_diverges_is_a_failed_trial(tmp_path: Path) -> None:
    wild = recipe(optimizer=OptimizerConfig(name=OptimizerName.SGD, learning_rate=0.05))
    space: Space = {"optimizer.learning_rate": CategoricalDistribution(("0.05", "1e30"))}
    found, messages = tuned(tmp_path, 6, space=space, of=wild)
    states = {trial.params["optimizer.learning_rate"]: trial.state for trial in found.trials}
    assert states == {"0.05": TrialState.COMPLETE, "1e30": TrialState.FAIL}
    assert any("failed: The training loss is" in line for line in messages)
    assert found.best.params["optimizer.learning_rate"] == "0.05"


def test_a_trial_that_is_behind_the_others_is_pruned(tmp_path: Path) -> None:
    space: Space = {"optimizer.learning_rate": CategoricalDistribution(("0.02", "1e-9"))}
    found, messages = tuned(tmp_path, 14, space=space, of=colour_images.recipe(epochs=4, ema_decay=0.0))
    stopped = [trial for trial in found.trials if trial.state is TrialState.PRUNED]
    assert stopped
    assert {trial.params["optimizer.learning_rate"] for trial in stopped} == {"1e-9"}
    assert {trial.user_attrs["epochs"] for trial in stopped} <= {1, 2, 3}
    assert any("stopped after epoch" in line for line in messages)


def test_with_a_time_budget_a_trial_that_is_behind_the_others_is_pruned_early(tmp_path: Path) -> None:
    space: Space = {"optimizer.learning_rate": CategoricalDistribution(("0.02", "1e-9"))}
    limited = colour_images.recipe(epochs=100_000, max_seconds=0.5, ema_decay=0.0)
    found, _ = tuned(tmp_path, 14, space=space, of=limited)
    pruned = [trial for trial in found.trials if trial.state is TrialState.PRUNED]
    assert "1e-9" in {trial.params["optimizer.learning_rate"] for trial in pruned}
    checks = [trial.last_step for trial in found.trials if trial.state is TrialState.COMPLETE]
    assert set(checks) == {20}
    assert all(trial.last_step is not None and 5 <= trial.last_step < 20 for trial in pruned)


def test_a_shift_by_the_whole_image_fails_its_trial(tmp_path: Path) -> None:
    space: Space = {"augment.translate": CategoricalDistribution(("1.0", "8.0"))}
    found, messages = tuned(tmp_path, 5, space=space)
    assert {trial.state for trial in found.trials if trial.params["augment.translate"] == "8.0"} == {TrialState.FAIL}
    assert any("augment.translate=8 shifts images of 8x8 pixels out of the picture" in line for line in messages)


def test_the_precision_is_measured_once_for_all_trials_of_a_study(tmp_path: Path) -> None:
    automatic = recipe(precision="auto")
    _, first = tuned(tmp_path, 2, of=automatic)
    found, second = tuned(tmp_path, 3, of=automatic)
    assert len([line for line in first if line.startswith("Precision")]) == 1
    assert not any(line.startswith("Precision") for line in second)
    assert found.best_recipe.precision == "auto"


@pytest.mark.parametrize("changed", ["recipe", "space", "data"])
def test_the_study_of_another_search_is_refused(tmp_path: Path, changed: str) -> None:
    tuned(tmp_path, 1)
    with pytest.raises(StudyError, match=f"has another {changed}. Choose another file with --study"):
        tuned(
            tmp_path,
            2,
            of=recipe(seed=7) if changed == "recipe" else None,
            space=SPACE | {"batch_size": IntDistribution(8, 64)} if changed == "space" else SPACE,
            data=colour_images.colours(120) if changed == "data" else None,
        )


def test_a_file_that_is_not_a_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("something else " * 100)
    with pytest.raises(StudyError, match="cannot be read or written as a study"):
        tuned(tmp_path, 1)


def test_the_report_has_a_row_per_trial_and_a_plot_of_importance(found: Search, tmp_path: Path) -> None:
    write_trials(tmp_path / "trials.csv", found)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_accuracy"] or 0) for row in rows] == [value_of(trial) for trial in found.trials]
    assert [row["batch_size"] for row in rows] == [str(trial.params["batch_size"]) for trial in found.trials]
    assert write_importance(tmp_path / "importance.png", found) is None
    with Image.open(tmp_path / "importance.png") as picture:
        assert len(picture.convert("L").getcolors() or range(256)) > 3


def test_too_few_trials_have_no_plot_of_importance(found: Search, tmp_path: Path) -> None:
    few = write_importance(tmp_path / "importance.png", replace(found, trials=found.trials[:2]))
    assert few == "No plot of importance: 2 trials were completed, and it takes 4."
    same = write_importance(tmp_path / "importance.png", replace(found, trials=found.trials[:1] * 5))
    assert same == "No plot of importance: all trials ended with the same accuracy."
    assert not (tmp_path / "importance.png").exists()


def test_the_best_recipe_is_read_from_its_file(found: Search, tmp_path: Path) -> None:
    write_recipe(tmp_path / "deep" / "best.json", found.best_recipe)
    assert read_recipe(tmp_path / "deep" / "best.json") == found.best_recipe


def test_only_an_own_value_that_does_not_fit_the_data_ends_the_search(
    tmp_path: Path,
) -> None:
    space: Space = {"sigmoid": CategoricalDistribution(("false", "true"))}
    found, messages = tuned(tmp_path / "a", 5, space=space)
    assert {trial.state for trial in found.trials if trial.params["sigmoid"] == "true"} == {TrialState.FAIL}
    assert any("sigmoid=true is for two classes" in line for line in messages)
    with pytest.raises(RecipeError, match="sigmoid=true is for two classes"):
        tuned(tmp_path / "b", 5, space=space, of=recipe(sigmoid=True))


def test_a_study_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "study.db.lock"), pytest.raises(StudyError, match="Another process is using the study"):
        tuned(tmp_path, 1)
    assert len(tuned(tmp_path, 1)[0].trials) == 1
