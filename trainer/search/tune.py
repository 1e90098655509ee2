"""A search for better settings, by Optuna: each trial is a run, judged on validation; the test split is not there."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from trainer.data.dataset import DataSource
from trainer.data.split import Splits, split
from trainer.errors import NonFiniteError, RecipeError, RunError, StudyError
from trainer.models.build import build_network
from trainer.models.pretrained import StartingWeights, as_run, starting_weights
from trainer.recipe import Recipe, with_settings
from trainer.search.search_space import Range, Space, own_values
from trainer.training.loop import fit
from trainer.training.progress import Epoch, SilentReporter

# Trials that end before the median of the others is trusted to stop one early.
_TRIALS_BEFORE_PRUNING = 5
# Share of a run's epochs in which none is stopped: while the learning rate warms up, all are bad.
_WARM_UP = 0.25
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """What has been tried, killed trials left out; trials whose state is COMPLETE have a value: validation accuracy."""

    recipe: Recipe
    trials: tuple[FrozenTrial, ...]

    @property
    def own(self) -> FrozenTrial | None:
        """The trial of the recipe's own values, where it came to an end."""
        return next((each for each in self._complete if each.user_attrs.get("own")), None)

    @property
    def best(self) -> FrozenTrial:
        """The first of the best. Raises RunError where no trial came to an end."""
        if not self._complete:
            raise RunError("No trial came to an end with a figure; lower --space optimizer.learning_rate.")
        return max(self._complete, key=value_of)

    @property
    def best_recipe(self) -> Recipe:
        best = with_settings(self.recipe, self.best.params)
        return best.model_copy(update={"name": f"{self.recipe.name.removesuffix('-tuned')[:58]}-tuned"})

    @property
    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]


def value_of(trial: FrozenTrial) -> float:
    """Validation accuracy of the epoch that was kept."""
    return trial.value if trial.value is not None else 0.0


def search(
    recipe: Recipe, source: DataSource, device: torch.device, *, space: Space, trials: int, study: Path, say: Say
) -> Search:
    """Goes on in the study until it has so many trials; the recipe's own values are the first.

    The same seed gives the same trials, in one go or in several. A trial that was begun is taken for a killed one, and
    done again. Raises StudyError for a study that is of something else, or that another process is at.
    """
    start = starting_weights(recipe)
    recipe = as_run(recipe, start)
    own = own_values(space, recipe)
    data = without_test(split(source.load(), recipe.data))
    for sentence in data.told:
        say(sentence)
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "space": {key: dataclasses.asdict(tried) for key, tried in space.items()},
        "data": data.content_hash,
    }
    run = _Run(recipe, space, data, start, device)
    with _open(study, recipe, json.loads(json.dumps(facts))) as opened:
        _begin(opened, own)
        while (done := len(_finished(opened))) < trials:
            opened.sampler = optuna.samplers.TPESampler(seed=_seed(recipe.seed, done))
            trial = opened.ask()
            run(opened, trial)
            say(_line(opened.trials[trial.number], done + 1, trials))
        return Search(recipe, tuple(_finished(opened)))


def without_test(data: Splits) -> Splits:
    """It has been hashed with the rest of the data, to know it again; from here on nothing can read it."""
    return dataclasses.replace(data, test=data.test.take(np.empty(0, np.int64)))


@dataclass(frozen=True)
class _Run:
    """What all trials have in common; called with one, it trains with its settings and tells the study how it ended."""

    recipe: Recipe
    space: Space
    data: Splits
    start: StartingWeights | None
    device: torch.device

    def __call__(self, study: optuna.Study, trial: optuna.Trial) -> None:
        own = bool(trial.user_attrs.get("own"))
        settings = {key: _suggest(trial, key, tried) for key, tried in self.space.items()}
        try:
            recipe = with_settings(self.recipe, settings)
            torch.manual_seed(recipe.seed)
            network = build_network(recipe, self.data, self.start)
            fitted = fit(network, self.data, recipe, self.device, TrialReporter(trial, prunes=not own))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (NonFiniteError, RecipeError) as error:
            if own and isinstance(error, RecipeError):
                raise  # not the search is wrong, but what it starts from
            trial.set_user_attr("reason", str(error))
            study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("seconds", round(fitted.seconds, 3))
            study.tell(trial, fitted.history[fitted.best_epoch - 1].validation_accuracy)


class TrialReporter(SilentReporter):
    """Tells a trial each epoch's validation accuracy. Raises TrialPruned where others were better by then."""

    def __init__(self, trial: optuna.Trial, *, prunes: bool = True) -> None:
        self._trial, self._prunes = trial, prunes

    def epoch(self, epoch: Epoch, epochs: int) -> None:  # noqa: ARG002
        self._trial.report(epoch.validation_accuracy, epoch.epoch)
        if self._prunes and self._trial.should_prune():
            raise optuna.TrialPruned


@contextmanager
def _open(path: Path, recipe: Recipe, facts: dict[str, Any]) -> Iterator[optuna.Study]:
    """Raises StudyError for a file that is none, or holds a study of other facts."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, int(_WARM_UP * recipe.epochs))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        lock.acquire(blocking=False)
        storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
        study = optuna.create_study(
            storage=storage, study_name="tune", direction="maximize", pruner=pruner, load_if_exists=True
        )
    except Timeout as error:
        raise StudyError(f"{path} is being searched by another process; wait for it or stop it.") from error
    except (OSError, SQLAlchemyError, RuntimeError) as error:
        raise StudyError(f"{path} is no study that can be read or written; name another --study.") from error
    try:
        _check_facts(path, study, facts)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()
        lock.release()


def _check_facts(path: Path, study: optuna.Study, facts: dict[str, Any]) -> None:
    if not study.user_attrs:
        for name, value in facts.items():
            study.set_user_attr(name, value)
    other = [name for name, value in facts.items() if study.user_attrs.get(name) != value]
    if other:
        raise StudyError(
            f"The study {path} is of another {' and '.join(other)}; name another --study, or remove it to start anew."
        )


def _begin(study: optuna.Study, own: dict[str, Any]) -> None:
    """Of a trial that was killed nothing is kept: the same settings are drawn again. The own values are first."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    there = [*_finished(study), *study.get_trials(states=[TrialState.WAITING])]
    if not any(trial.user_attrs.get("own") for trial in there):
        study.enqueue_trial(own, user_attrs={"own": True})


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(states=_FINISHED) if _ended(trial)]


def _ended(trial: FrozenTrial) -> bool:
    """A trial that failed without a reason was killed."""
    return trial.state is not TrialState.FAIL or "reason" in trial.user_attrs


def _seed(seed: int, done: int) -> int:
    """Of the sampler, anew for each trial: a search that goes on draws what one in one go would have drawn."""
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0])


def _suggest(trial: optuna.Trial, key: str, tried: Any) -> Any:
    if not isinstance(tried, Range):
        return trial.suggest_categorical(key, tried.values)
    if tried.whole:
        return trial.suggest_int(key, int(tried.low), int(tried.high), log=tried.log)
    return trial.suggest_float(key, tried.low, tried.high, log=tried.log)


def _line(trial: FrozenTrial, number: int, trials: int) -> str:
    if trial.state is TrialState.COMPLETE:
        said = f"validation accuracy {value_of(trial):.2%} in {trial.user_attrs['seconds']:.1f} s"
    elif trial.state is TrialState.PRUNED:
        last = trial.last_step or 0
        said = f"stopped after epoch {last} at {trial.intermediate_values.get(last, 0):.2%}"
    else:
        said = f"failed: {trial.user_attrs['reason']}"
    kind = "the recipe's own values" if trial.user_attrs.get("own") else in_words(trial.params)
    return f"trial {number}/{trials}: {said} ({kind})"


def in_words(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
    )
