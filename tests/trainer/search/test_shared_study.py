"""Several processes that share a study in a database."""

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.support.postgresql import programs, server
from tests.support.service_process import REPOSITORY
from trainer.cli.main import main

TRIALS = 8


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
def test_two_processes_share_the_trials_of_one_study_in_postgresql(tmp_path: Path) -> None:
    folder = programs()
    assert folder
    with server(folder) as url:
        command = [sys.executable, "-m", "trainer", "tune", "digits", "--epochs", "2", "--trials", str(TRIALS)]
        processes = [
            subprocess.Popen(
                [*command, "--study", url, "--out", str(tmp_path / f"{i}.json")],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        logs = [process.communicate(timeout=280)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(logs)
        storage = optuna.storages.RDBStorage(url)
        trials = optuna.load_study(study_name="digits", storage=storage).get_trials()
        storage.remove_session()
        storage.engine.dispose()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert TRIALS <= len(trials) <= TRIALS + 1  # each process finishes the trial that it has begun
    counts = [sum(line.startswith("trial ") for line in log.splitlines()) for log in logs]
    assert sum(counts) == len(trials)
    assert min(counts) >= 1
    drawn = [json.dumps(trial.params) for trial in trials if not trial.user_attrs.get("own")]
    assert len(drawn) == len(set(drawn))
    assert len(trials) - len(drawn) in {1, 2}  # two processes that start at the same moment may both add it
    for i in range(2):
        assert json.loads((tmp_path / f"{i}.json").read_text())["name"] == "digits-tuned"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nosuch://me:secret@host/x", "nosuch://me:***@host/x cannot be read or written as a study. Check the URL"),
        ("sqlite:////nosuch/folder/x.db", "sqlite:////nosuch/folder/x.db cannot be read or written as a study."),
        ("://", "The URL of the study cannot be read or written as a study."),
    ],
)
def test_says_what_is_wrong_with_the_url_of_a_study_and_not_its_password(
    url: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trials", "1", "--epochs", "1", "--out", str(tmp_path / "x.json")]
    assert main(["tune", "digits", *options, "--study", url]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "secret" not in error
