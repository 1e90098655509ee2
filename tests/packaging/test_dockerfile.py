"""Checks the Dockerfile without building the image."""

import re
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
FINAL_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]


def copied() -> set[str]:
    """Returns the paths that the build copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {path.rstrip("/") for line in lines for path in line.split()}


def test_installs_a_lock_file_that_is_there_for_each_device() -> None:
    locks = dict(re.findall(r"(\w+)\) lock=([\w-]+)", DOCKERFILE))
    assert locks == {"cpu": "service-cpu", "cuda": "cuda"}
    assert {f"requirements/{lock}.txt" for lock in locks.values()} <= copied()
    assert "--require-hashes" in DOCKERFILE


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    allowed = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    for path in copied():
        assert (ROOT / path).exists(), path
        assert path.partition("/")[0] in allowed, path


def test_contains_the_licence_and_the_notices() -> None:
    assert {"LICENSE", "NOTICE"} <= copied()


def test_runs_as_a_user_without_rights() -> None:
    # By number: Kubernetes cannot tell whether a name is root's.
    (user,) = re.findall(r"^USER (\d+)$", FINAL_STAGE, re.MULTILINE)
    assert int(user) > 0


def test_the_modules_that_it_runs_exist() -> None:
    modules = re.findall(r'"-m", "([\w.]+)"', FINAL_STAGE)
    assert sorted(modules) == ["service", "service.healthcheck"]
    assert all(map(find_spec, modules))
