import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from tests.support import colour_images
from trainer.cli.main import main
from trainer.recipe import read_recipe


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """Runs a search over the digits recipe, with little data and few epochs."""
    data = colour_images.colours(60).train
    np.savez(tmp_path / "mine.npz", images=data.images[:], labels=data.labels)
    source = ["--data", str(tmp_path / "mine.npz"), "--set", "data.source=npz", "--set", "data.test=0.2"]
    network = ["--set", "network.widths=4", "--set", "network.dense=8", "--batch-size", "16", "--epochs", "1"]
    return [
        "tune",
        "digits",
        *source,
        *network,
        "--out",
        str(tmp_path / "best.json"),
        "--study",
        str(tmp_path / "s.db"),
    ]


def test_the_best_of_a_search_is_trained_and_shown_by_its_file(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked, "--trials", "5", "--seed", "2"]) == 0
    output = capsys.readouterr()
    assert len([line for line in output.err.splitlines() if line.startswith("trial ")]) == 5
    assert "trial 1/5: " in output.err
    assert "(default settings)" in output.err
    assert f"{tmp_path / 'best.json'}: best validation accuracy " in output.out
    assert re.search(r"\(default settings: [\d.]+%\) after 5 trials: ", output.out)
    assert len((tmp_path / "best-trials.csv").read_text().splitlines()) == 6
    best = read_recipe(tmp_path / "best.json")
    assert (best.name, best.seed, best.epochs) == ("mine-tuned", 2, 1)
    data = ["--data", str(tmp_path / "mine.npz")]
    where = ["--artifacts", str(tmp_path / "artifacts"), "--runs", str(tmp_path / "runs")]
    assert main(["train", str(tmp_path / "best.json"), *data, *where]) == 0
    manifest = open_bundle(tmp_path / "artifacts" / "mine-tuned" / "1").manifest
    assert manifest.provenance.recipe == best.model_dump(mode="json")
    picture = ["--out", str(tmp_path / "show.png"), "--count", "4"]
    assert main(["show", str(tmp_path / "best.json"), *data, *picture]) == 0
    assert "4 of 36 training images of mine" in capsys.readouterr().out


def test_the_same_command_goes_on_and_another_search_is_refused(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    space = ["--space", "optimizer.learning_rate=0.001:0.1:log"]
    assert main([*asked, "--trials", "1", *space]) == 0
    assert "it takes 4" in capsys.readouterr().err
    assert main([*asked, "--trials", "2", *space]) == 0
    output = capsys.readouterr()
    assert "trial 2/2: " in output.err
    assert "trial 1/2: " not in output.err
    assert main([*asked, "--trials", "2"]) == 2
    assert "has another space. Choose another file with --study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--space", "seed=0:9"], "A search cannot vary 'seed'"),
        (["--space", "optimizer.learning_rate=1:2"], "does not contain the recipe's value"),
        (["--set", "epochs"], "KEY=VALUE"),
        (["--preset", "best"], "Its presets: default"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    asked: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main([*asked, "--trials", "2", *arguments]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert named in last


def test_without_optuna_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['optuna'] = None; from trainer.cli.main import main; "
        "sys.exit(main(['tune', 'digits', '--trials', '1']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: tune needs Optuna, which is not installed. Install it with: make .venv/.extras\n"
