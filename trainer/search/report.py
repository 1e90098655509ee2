"""The files of a search beside its best recipe: a table of the trials, and a plot of the importance of each setting."""

import csv
import warnings
from pathlib import Path

import optuna
from matplotlib import pyplot as plt
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_param_importances

from trainer.errors import WriteError
from trainer.search.tune import Search

# fANOVA's forest of regression trees needs at least this many.
LEAST_TRIALS = 4


def write_trials(path: Path, search: Search) -> None:
    """Writes trials.csv with one row per trial, in order. Raises WriteError."""
    settings = list(search.trials[0].params)
    try:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "state", "validation_accuracy", "epochs", "seconds", *settings, "reason"])
            for number, trial in enumerate(search.trials, start=1):
                facts = trial.user_attrs
                values = [trial.params.get(key, "") for key in settings]
                figures = [trial.value, facts.get("epochs"), facts.get("seconds")]
                writer.writerow([number, trial.state.name.lower(), *figures, *values, facts.get("reason", "")])
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror}).") from error


def write_importance(path: Path, search: Search) -> str | None:
    """Plots each setting's share of the variance of validation accuracy, by fANOVA (Hutter et al., 2014).

    Returns why there is no plot, if too few trials were completed or all ended alike. Raises WriteError.
    """
    complete = [trial for trial in search.trials if trial.state is TrialState.COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return f"No plot of importance: {len(complete)} trials were completed, and it takes {LEAST_TRIALS}."
    if len({trial.value for trial in complete}) == 1:
        return "No plot of importance: all trials ended with the same accuracy."
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = FanovaImportanceEvaluator(seed=search.recipe.seed)
        plot_param_importances(study, evaluator, target_name="validation accuracy")
    try:
        plt.savefig(path, dpi=110, bbox_inches="tight")
    except OSError as error:
        raise WriteError(f"{path} could not be written ({error.strerror}).") from error
    finally:
        plt.close()
    return None
