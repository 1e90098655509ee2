"""The trainer as a real program, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.service_process import REPOSITORY


def train(*arguments: str | Path, artifacts: Path) -> str:
    """Runs the trainer; its standard output."""
    where = ["--artifacts", str(artifacts), "--runs", str(artifacts.parent / "runs")]
    command = [sys.executable, "-m", "trainer", "train", *map(str, arguments), *where]
    # Tests compute with one thread; a user's training does not, and other threads sum in another order.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
