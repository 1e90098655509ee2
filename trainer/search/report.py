"""What a search leaves behind beside its best recipe: every trial as a row, and which settings mattered."""

import csv
from pathlib import Path

import optuna
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from trainer.errors import WriteError
from trainer.search.tune import Search

# fANOVA's forest of regression trees says nothing from fewer.
LEAST_TRIALS = 4


def write_trials(path: Path, search: Search) -> None:
    """trials.csv: a row a trial, in order; value is the validation accuracy. Raises WriteError."""
    settings = list(search.trials[0].params)
    try:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "state", "validation_accuracy", "epochs", "seconds", *settings, "reason"])
            for number, trial in enumerate(search.trials, start=1):
                told = trial.user_attrs
                values = [trial.params.get(key, "") for key in settings]
                figures = [trial.value, trial.last_step, told.get("seconds")]
                writer.writerow([number, trial.state.name.lower(), *figures, *values, told.get("reason", "")])
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror}).") from error


def write_importance(path: Path, search: Search) -> str | None:
    """A bar a setting: its share of what made the validation accuracy differ, by fANOVA (Hutter et al., 2014).

    Returns why there is none where too few trials ended, or all ended alike. Raises WriteError.
    """
    complete = [trial for trial in search.trials if trial.state is TrialState.COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return f"No importance of settings from {len(complete)} whole trials: it takes {LEAST_TRIALS}."
    if len({trial.value for trial in complete}) == 1:
        return "No importance of settings: all trials ended with the same accuracy."
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.recipe.seed))
    try:
        _bars(shares, len(complete)).savefig(path, dpi=110)
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror}).") from error
    return None


def _bars(shares: dict[str, float], trials: int) -> Figure:
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names, values = list(shares)[::-1], list(shares.values())[::-1]
    bars = axes.barh(names, values)
    axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
    axes.set(xlim=(0, 1.1 * max(values)), xlabel="share of the differences in validation accuracy (fANOVA)")
    axes.set_title(f"Which settings mattered, over {trials} whole trials")
    axes.grid(alpha=0.3, axis="x")
    return figure
