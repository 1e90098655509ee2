"""A search for better settings with Optuna. Each trial is a run judged on validation; the test split is not read."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError, SQLAlchemyError

from trainer.data.dataset import DataSource
from trainer.data.split import Splits, split
from trainer.errors import NonFiniteError, RecipeError, RunError, StudyError, one_line
from trainer.models.build import build_network
from trainer.models.pretrained import StartingWeights, starting_weights, with_weights_hash
from trainer.recipe import Precision, Recipe, with_settings
from trainer.search.search_space import Space, own_values
from trainer.training.loop import fit
from trainer.training.precision import with_precision
from trainer.training.progress import Epoch, Reporter

# A trial is compared with the others, and perhaps pruned, at most this often: once in each twentieth of its run. Shares
# of the run compare trials whose epochs differ in length, or in number under a time budget.
_CHECKS = 20
# No trial is pruned in the first quarter of its run, while the learning rate warms up, or before five are complete.
_CHECKS_BEFORE_PRUNING = _CHECKS // 4
_TRIALS_BEFORE_PRUNING = 5
_OPENINGS = 10
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """The trials of a search, without killed ones. The value of a complete trial is its validation accuracy."""

    recipe: Recipe
    trials: tuple[FrozenTrial, ...]

    @property
    def own(self) -> FrozenTrial | None:
        """The trial of the recipe's own values, if it was completed."""
        return next((each for each in self._complete if each.user_attrs.get("own")), None)

    @property
    def best(self) -> FrozenTrial:
        """The first trial with the best value. Raises RunError if no trial was completed."""
        if not self._complete:
            raise RunError("No trial was completed. Lower the range of --space optimizer.learning_rate.")
        return max(self._complete, key=value_of)

    @property
    def best_recipe(self) -> Recipe:
        best = with_settings(self.recipe, self.best.params)
        return best.model_copy(update={"name": f"{self.recipe.name.removesuffix('-tuned')[:58]}-tuned"})

    @property
    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]


def value_of(trial: FrozenTrial) -> float:
    """Returns the validation accuracy of the trial's best epoch."""
    return trial.value if trial.value is not None else 0.0


def search(
    recipe: Recipe, source: DataSource, device: torch.device, *, space: Space, trials: int, study: Path | str, say: Say
) -> Search:
    """Continues the study until it has `trials` trials; the first one has the recipe's own values.

    study is a file, or the URL of a database, which several processes may share. In a file, the same seed gives the
    same trials, in one call or in several, and a trial that was started but not finished was killed and is repeated.
    In a database, it may be running, so it is only not counted, and each process finishes the trial that it has begun.
    Raises StudyError for a study of another search, or a file that another process uses.
    """
    shared = isinstance(study, str)
    start = starting_weights(recipe)
    recipe = with_weights_hash(recipe, start)
    own = own_values(space, recipe)
    data = without_test(split(source.load(), recipe.data))
    for sentence in data.notes:
        say(sentence)
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "space": {key: distribution_to_json(distribution) for key, distribution in space.items()},
        "data": data.content_hash,
    }
    with _open(study, recipe.name, facts) as opened:
        if "precision" not in opened.user_attrs:  # measured once, so that all trials compute alike
            torch.manual_seed(recipe.seed)
            measured = with_precision(recipe, build_network(recipe, data, start), data.train, device, say)
            opened.set_user_attr("precision", measured.precision)
        precise = recipe.model_copy(update={"precision": Precision(opened.user_attrs["precision"])})
        _begin(opened, own, shared=shared)
        while (done := len(_finished(opened))) < trials:
            # Processes that share a study must not draw the same settings.
            seed = None if shared else _seed(recipe.seed, done)
            opened.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=shared)
            trial = opened.ask(space)
            _run_trial(opened, trial, precise, data, start, device)
            say(_line(opened.trials[trial.number], done + 1, trials))
        return Search(recipe, tuple(_finished(opened)))


def without_test(data: Splits) -> Splits:
    """Returns the splits with an empty test split. The content hash still covers it."""
    return dataclasses.replace(data, test=data.test.take(np.empty(0, np.int64)))


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    recipe: Recipe,
    data: Splits,
    start: StartingWeights | None,
    device: torch.device,
) -> None:
    """Trains with the trial's settings and tells the study the outcome."""
    own = bool(trial.user_attrs.get("own"))
    try:
        recipe = with_settings(recipe, trial.params)
        torch.manual_seed(recipe.seed)
        network = build_network(recipe, data, start)
        fitted = fit(network, data, recipe, device, TrialReporter(trial, prunes=not own))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (NonFiniteError, RecipeError) as error:
        if own and isinstance(error, RecipeError):
            raise  # the recipe itself is wrong, not the search
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        trial.set_user_attr("seconds", round(fitted.seconds, 3))
        trial.set_user_attr("epochs", len(fitted.history))
        study.tell(trial, fitted.history[fitted.best_epoch - 1].validation_accuracy)


class TrialReporter(Reporter):
    """Reports validation accuracy to a trial. Raises TrialPruned if the trial is behind the others at that point."""

    def __init__(self, trial: optuna.Trial, *, prunes: bool = True) -> None:
        self._trial, self._prunes = trial, prunes
        self._checks = 0

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:  # noqa: ARG002
        checks = int(_CHECKS * progress)
        if checks == self._checks:
            return
        self._checks = checks
        self._trial.report(epoch.validation_accuracy, checks)
        if self._prunes and self._trial.should_prune():
            self._trial.set_user_attr("epochs", epoch.epoch)
            raise optuna.TrialPruned


@contextmanager
def _open(place: Path | str, name: str, facts: dict[str, Any]) -> Iterator[optuna.Study]:
    """Raises StudyError for a place that holds no study or that of another search. name is for a shared study."""
    with _lock(place) if isinstance(place, Path) else nullcontext():
        storage, study = _load(place, name)
        try:
            _check_facts(_shown(place), study, facts)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _load(place: Path | str, name: str) -> tuple[optuna.storages.RDBStorage, optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, _CHECKS_BEFORE_PRUNING)
    file = isinstance(place, Path)
    url = place if isinstance(place, str) else URL.create("sqlite", database=str(place)).render_as_string()
    try:
        storage = _storage(url)
        return storage, optuna.create_study(
            storage=storage,
            study_name="tune" if file else name,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except ImportError as error:
        raise StudyError(f"The driver for {_shown(place)} is not installed ({one_line(error)}).") from error
    except (OSError, SQLAlchemyError, RuntimeError, ValueError) as error:
        advice = "Choose another file with --study." if file else f"Check the URL and the server: {one_line(error)}"
        raise StudyError(f"{_shown(place)} cannot be read or written as a study. {advice}") from error


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Opens a database. Processes that open a new one together create its tables, step by step, at the same time."""
    for _ in range(_OPENINGS - 1):
        with suppress(IntegrityError, ProgrammingError):
            return optuna.storages.RDBStorage(url)
        time.sleep(0.2)
    return optuna.storages.RDBStorage(url)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"), blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StudyError(f"Another process is using the study {path}. Wait for it, or stop it.") from error
    except OSError as error:
        raise StudyError(f"{path} cannot be written ({error.strerror}). Choose another file with --study.") from error
    try:
        yield
    finally:
        lock.release()


def _shown(place: Path | str) -> str:
    """Returns the file, or the URL without its password."""
    try:
        return str(place) if isinstance(place, Path) else make_url(place).render_as_string()
    except ArgumentError:
        return "The URL of the study"


def _check_facts(place: str, study: optuna.Study, facts: dict[str, Any]) -> None:
    # Another process may be writing the facts of the same new study.
    for name in facts.keys() - study.user_attrs.keys():
        study.set_user_attr(name, facts[name])
    different = [name for name, value in facts.items() if study.user_attrs.get(name) != value]
    if different:
        raise StudyError(
            f"The study {place} has another {' and '.join(different)}. "
            "Choose another file with --study, or remove this one."
        )


def _begin(study: optuna.Study, own: dict[str, Any], *, shared: bool) -> None:
    """Makes the own values the first trial. Drops a killed trial, unless the study is shared: it may be running."""
    running = study.get_trials(states=[TrialState.RUNNING])
    if not shared:
        for trial in running:
            study.tell(trial.number, state=TrialState.FAIL)
    present = [*_finished(study), *study.get_trials(states=[TrialState.WAITING, TrialState.RUNNING])]
    if not any(trial.user_attrs.get("own") for trial in present):
        study.enqueue_trial(own, user_attrs={"own": True})


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that ended. A failed trial without a reason was killed."""
    trials = study.get_trials(states=_FINISHED)
    return [trial for trial in trials if trial.state is not TrialState.FAIL or "reason" in trial.user_attrs]


def _seed(seed: int, done: int) -> int:
    """Returns the sampler's seed for one trial, so that a continued search draws what an uninterrupted one draws."""
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0])


def _line(trial: FrozenTrial, number: int, trials: int) -> str:
    if trial.state is TrialState.COMPLETE:
        outcome = f"validation accuracy {value_of(trial):.2%} in {trial.user_attrs['seconds']:.1f} s"
    elif trial.state is TrialState.PRUNED:
        accuracy = trial.intermediate_values[trial.last_step or 0]
        outcome = f"stopped after epoch {trial.user_attrs['epochs']} at {accuracy:.2%}"
    else:
        outcome = f"failed: {trial.user_attrs['reason']}"
    settings = "default settings" if trial.user_attrs.get("own") else describe_settings(trial.params)
    return f"trial {number}/{trials}: {outcome} ({settings})"


def describe_settings(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
