"""Two real processes, started by torchrun, on CPUs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.bundle import open_bundle
from tests.support.two_processes import prepared, stepped

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def digits(folder: Path, *more: str) -> list[str | Path]:
    where: list[str | Path] = ["--artifacts", folder / "artifacts", "--runs", folder / "runs"]
    return ["-m", "trainer", "train", "digits", *where, *more]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    run = start("-m", "tests.support.two_processes", folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


def test_parameters_are_equal_in_every_process(ranks: list[dict[str, torch.Tensor]]) -> None:
    first, second = ranks
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_gradients_are_those_of_one_process_with_the_whole_batch(ranks: list[dict[str, torch.Tensor]]) -> None:
    alone = stepped(prepared())
    assert any(name.startswith("gradient.") for name in alone)
    for name, value in alone.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=1e-6)


def test_validation_counts_each_image_of_an_odd_split_once(ranks: list[dict[str, torch.Tensor]]) -> None:
    run = prepared()
    assert len(run.validation) % 2 == 1
    right = ranks[0]["said"][1].item() * len(run.validation)
    assert right == pytest.approx(round(right), abs=1e-6)
    assert right == pytest.approx(stepped(run)["said"][1].item() * len(run.validation))


def test_two_processes_write_one_bundle_and_speak_with_one_voice(tmp_path: Path) -> None:
    run = start(*digits(tmp_path, "--epochs", "6", "--checkpoint-seconds", "0"))
    out, errors = run.communicate()
    assert run.returncode == 0, errors
    assert len(re.findall(r"^Training digits on cpu .*, in 2 processes\.$", errors, re.MULTILINE)) == 1
    assert len(re.findall(r"^epoch 6/6 ", errors, re.MULTILINE)) == 1
    assert out.count("test accuracy") == 1
    assert [entry.name for entry in (tmp_path / "artifacts" / "digits").iterdir()] == ["1"]
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["digits-1"]
    bundle = open_bundle(tmp_path / "artifacts" / "digits" / "1")
    assert bundle.manifest.metrics.test.accuracy > 0.8
    assert bundle.manifest.provenance.processes == 2
    assert ", in 2 processes; seed 0." in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_a_dead_process_ends_the_run_with_a_clear_word_and_the_run_goes_on_later(tmp_path: Path) -> None:
    endless = digits(tmp_path, "--epochs", "12", "--checkpoint-seconds", "0", "--batch-size", "32")
    run = start(*endless)
    while not any(entry.name.isdigit() for entry in tmp_path.glob("runs/digits-1/*")):
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(second_of(run.pid), signal.SIGKILL)
    _, errors = run.communicate()
    assert run.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, errors
    assert "nother process of the run" in said[0] or "nother process of this run" in said[0]
    assert "--resume" in said[0]
    again = start(*endless, "--resume")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "going on after step" in errors


def second_of(torchrun: int) -> int:
    """The process id of rank 1."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            environment = (status.parent / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue  # it ended meanwhile
        if parent == torchrun and b"RANK=1" in environment:
            return int(status.parent.name)
    raise AssertionError("rank 1 is not there")
