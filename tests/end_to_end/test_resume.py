"""A run that is killed goes on to the same weights, to the bit, as one that was left alone."""

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
    """The last checkpoint's, -1 before the first."""
    steps = [int(entry.name) for entry in folder.glob("runs/digits-1/*") if entry.name.isdigit()]
    return max(steps, default=-1)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run(command(folder), check=True, capture_output=True)
    return folder


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(left_alone: Path, tmp_path: Path) -> None:
    chance = np.random.default_rng()  # other points each time the test runs
    points = sorted(chance.choice(np.arange(1, STEPS), KILLS, replace=False).tolist())
    for point in points:
        run = subprocess.Popen(command(tmp_path, "--resume"), stderr=subprocess.DEVNULL)
        while last_step(tmp_path) < point:
            assert run.poll() is None, f"ended by itself before step {point}"
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)  # between checkpoints, or in one
        run.kill()
        run.wait()
        assert run.returncode == -signal.SIGKILL
    ended = subprocess.run(command(tmp_path, "--resume"), check=True, capture_output=True, text=True)
    assert "Resuming after step" in ended.stderr
    assert weights(tmp_path) == weights(left_alone), f"killed after steps {points}"
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["digits-1"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(left_alone: Path, tmp_path: Path) -> None:
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
    assert f"The checkpoint {damaged} is damaged (state.safetensors was changed after it was written)" in ended.stderr
    assert f"Resuming after step {int(damaged.name) - 1}" in ended.stderr
    assert weights(tmp_path) == weights(left_alone)


def test_without_a_run_to_go_on_with_it_says_why_and_starts_from_the_beginning(
    left_alone: Path, tmp_path: Path
) -> None:
    runs = ["--runs", str(left_alone / "runs")]
    ended = subprocess.run(
        [*command(tmp_path, "--resume"), *runs, "--seed", "5"], check=True, capture_output=True, text=True
    )
    assert "digits-1 is another run, recipe.seed was 0 and is 5." in ended.stderr
    assert weights(tmp_path) != weights(left_alone)


def test_a_run_that_is_killed_between_its_last_checkpoint_and_its_bundle_writes_the_bundle_later(
    left_alone: Path, tmp_path: Path
) -> None:
    run = subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL)
    while last_step(tmp_path) < STEPS:
        assert run.poll() is None
        time.sleep(0.001)
    run.kill()
    run.wait()
    assert not (tmp_path / "artifacts" / "digits" / "1").exists()
    subprocess.run(command(tmp_path, "--resume"), check=True, capture_output=True)
    assert weights(tmp_path) == weights(left_alone)


def test_a_finished_run_says_so_and_where_its_bundle_is_and_writes_nothing(left_alone: Path) -> None:
    before = everything_below(left_alone)
    ended = subprocess.run(command(left_alone, "--resume"), check=True, capture_output=True, text=True)
    assert f"{left_alone / 'runs' / 'digits-1'} is finished" in ended.stderr
    assert ended.stdout.startswith(f"{left_alone / 'artifacts' / 'digits' / '1'}: test accuracy")
    assert everything_below(left_alone) == before


def everything_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
