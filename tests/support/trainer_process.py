"""The trainer as a real program, in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.support.service_process import REPOSITORY


def train(*arguments: str | Path, artifacts: Path) -> subprocess.CompletedProcess[str]:
    return run_trainer("train", *arguments, "--artifacts", artifacts, "--runs", artifacts.parent / "runs")


def run_trainer(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=env)
    assert ended.returncode == 0, ended.stderr
    return ended
