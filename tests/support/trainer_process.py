"""The trainer as a real program, in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.support.service_process import REPOSITORY


def train(*arguments: str | Path, artifacts: Path) -> str:
    """Runs the trainer; its standard output."""
    where = ["--artifacts", str(artifacts), "--runs", str(artifacts.parent / "runs")]
    command = [sys.executable, "-m", "trainer", "train", *map(str, arguments), *where]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
