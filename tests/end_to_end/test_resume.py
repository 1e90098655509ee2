"""A killed run that is resumed ends with exactly the weights of an uninterrupted run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

KILLS = 3
STEPS = 3 * 20  # epochs of 1,257 training images in batches of 64


def command(folder: Path, *more: str) -> list[str]:
    where = ["--artifacts", str(folder / "artifacts"), "--runs", str(folder / "runs"), "--checkpoint-seconds", "0"]
    return [sys.executable, "-m", "trainer", "train", "digits", "--epochs", "3", "--batch-size", "64", *where, *more]


def weights(folder: Path, version: int = 1) -> bytes:
    return (folder / "artifacts" / "digits" / str(version) / "weights.safetensors").read_bytes()


def last_step(folder: Path) -> int:
    """Returns the step of the last checkpoint, or -1 before the first."""
    steps = [int(entry.name) for entry in folder.glob("runs/digits-1/*") if entry.name.isdigit()]
    return max(steps, default=-1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run(command(folder), check=True, capture_output=True)
    return folder


def test_a_run_that_is_killed_several_times_ends_with_the_same_weights(uninterrupted: Path, tmp_path: Path) -> None:
    chance = np.random.default_rng()  # different points in each test run
    points = sorted(chance.choice(np.arange(1, STEPS), KILLS, replace=False).tolist())
    for point in points:
        run = subprocess.Popen(command(tmp_path, "--resume"), stderr=subprocess.DEVNULL)
        while last_step(tmp_path) < point:
            assert run.poll() is None, f"ended by itself before step {point}"
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)  # between checkpoints or during one
        run.kill()
        run.wait()
        assert run.returncode == -signal.SIGKILL
    ended = subprocess.run(command(tmp_path, "--resume"), check=True, capture_output=True, text=True)
    assert "Resuming after step" in ended.stderr
    assert weights(tmp_path) == weights(uninterrupted), f"killed after steps {points}"
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["digits-1"]


def test_resumes_from_the_previous_checkpoint_if_the_last_is_damaged(uninterrupted: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL)
    while last_step(tmp_path) < STEPS // 2:
        assert run.poll() is None
        time.sleep(0.001)
    run.kill()
    run.wait()
    damaged = tmp_path / "runs" / "digits-1" / str(last_step(tmp_path))
    content = bytearray((damaged / "state.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "state.safetensors").write_bytes(content)
    ended = subprocess.run(command(tmp_path, "--resume"), check=True, capture_output=True, text=True)
    assert (
        f"Removed the damaged checkpoint {damaged} (state.safetensors was changed after it was written)" in ended.stderr
    )
    assert f"Resuming after step {int(damaged.name) - 1}" in ended.stderr
    assert weights(tmp_path) == weights(uninterrupted)


def test_explains_and_starts_from_the_beginning_if_there_is_no_run_to_resume(
    uninterrupted: Path, tmp_path: Path
) -> None:
    runs = ["--runs", str(uninterrupted / "runs")]
    ended = subprocess.run(
        [*command(tmp_path, "--resume"), *runs, "--seed", "5"], check=True, capture_output=True, text=True
    )
    assert "digits-1 differs, recipe.seed was 0 and is now 5." in ended.stderr
    assert weights(tmp_path) != weights(uninterrupted)


def test_a_run_killed_before_its_bundle_is_written_writes_it_on_resume(uninterrupted: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL)
    while last_step(tmp_path) < STEPS:
        assert run.poll() is None
        time.sleep(0.001)
    run.kill()
    run.wait()
    assert not (tmp_path / "artifacts" / "digits" / "1").exists()
    subprocess.run(command(tmp_path, "--resume"), check=True, capture_output=True)
    assert weights(tmp_path) == weights(uninterrupted)


def test_resuming_a_finished_run_names_its_bundle_and_writes_nothing(uninterrupted: Path) -> None:
    before = everything_below(uninterrupted)
    ended = subprocess.run(command(uninterrupted, "--resume"), check=True, capture_output=True, text=True)
    assert f"{uninterrupted / 'runs' / 'digits-1'} has finished" in ended.stderr
    assert ended.stdout.startswith(f"{uninterrupted / 'artifacts' / 'digits' / '1'}: test accuracy")
    assert everything_below(uninterrupted) == before


def everything_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
