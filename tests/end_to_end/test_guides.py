"""Walks through each guide as a reader does: its commands, programs and services, in the order of the page."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.bundles import COLOURS
from tests.support.service_process import REPOSITORY, Service, environment
from tests.support.zip_files import zipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GUIDES = sorted((REPOSITORY / "docs/guides").glob("*.md"))
URL = "http://127.0.0.1:8000"
KERAS = REPOSITORY / "tests/trainer/export/made_elsewhere/keras.onnx"
BLOCK = re.compile(r"^```(bash|python|js)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SERVES = re.compile(r"^(?:(?P<settings>(?:[A-Z_]+=\S+ )+))?(?:make serve|\.venv/bin/python -m service)$", re.MULTILINE)
SHELL_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def photo(colour: str, seed: int) -> Image.Image:
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 30, (80, 100, 3))
    return Image.fromarray(np.clip(COLOURS[colour] + noise, 0, 255).astype(np.uint8))


def prepare(folder: Path) -> None:
    """Makes what the guides expect their reader to have."""
    for data, first, count in (("my-photos", 0, 20), ("new-photos", 100, 5), ("new-samples", 200, 5)):
        for label, colour in (("cat", "red"), ("dog", "blue")):
            (folder / data / label).mkdir(parents=True)
            for i in range(count):
                photo(colour, first + i).save(folder / data / label / f"{i + 1}.jpg")
    for label in ("cat", "dog"):
        files = sorted((folder / "my-photos" / label).iterdir())
        (folder / f"{label}-samples.zip").write_bytes(zipped({file.name: file.read_bytes() for file in files}))
    shutil.copy(KERAS, folder / "my-model.onnx")


class Reader:
    """A person in a folder, with a terminal and at most one running service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exported: dict[str, str] = {}
        self._service: Service | None = None

    def follow(self, language: str, block: str) -> None:
        if language == "bash":
            for part in self._without_services(block):
                self._run(["bash", "-euo", "pipefail", "-c", part])
        elif language == "python":
            self._run([sys.executable, "-W", "ignore", "-c", block])
        else:
            self._run(["node", "--input-type=module", "-e", block])

    def leave(self) -> None:
        if self._service:
            self._service.end()
            self._service.process.communicate()

    def _without_services(self, block: str) -> Iterator[str]:
        """Yields the commands up to one that serves, starts the service, and goes on."""
        for line, name in re.findall(r"^(export (\w+)=.*)$", block, re.MULTILINE):
            shown = ["bash", "-c", f'{line}; printf %s "${name}"']
            self._exported[name] = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        position = 0
        for command in SERVES.finditer(block):
            yield block[position : command.start()]
            self._serve(command["settings"] or "")
            position = command.end()
        yield block[position:]

    def _serve(self, settings: str) -> None:
        self.leave()
        chosen = dict(word.split("=", 1) for word in shlex.split(settings)) | self._exported
        variables = environment(port=0, device="cpu", workers=1, artifacts=self._folder / "artifacts") | chosen
        command = [sys.executable, "-m", "service"]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=variables, stderr=subprocess.PIPE, text=True)
        self._service = Service(process)
        self._service.wait_until_ready()

    def _run(self, command: list[str]) -> None:
        script = command[-1].replace(".venv/bin/python", sys.executable)
        script = script.replace("curl ", "curl --silent --show-error --fail-with-body ")
        script = re.sub(r"^make train RECIPE=(\S+) DATA=(\S+)(?: ARGS=\"(.*)\")?$", _train, script, flags=re.MULTILINE)
        script = re.sub(r"^make \.venv/.*$", "", script, flags=re.MULTILINE)
        variables = environment() | self._exported | {"PATH": SHELL_PATH}
        variables["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'clients/python'}"
        if self._service:
            script = script.replace(URL, self._service.url).replace(URL.removeprefix("http://"), self._service.url[7:])
            variables["CONVOY_PORT"] = str(self._service.port())
        ended = subprocess.run(
            [*command[:-1], script], cwd=self._folder, env=variables, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, script + ended.stdout + ended.stderr


def _train(command: re.Match[str]) -> str:
    return f"{sys.executable} -m trainer train {command[1]} --data {command[2]} {command[3] or ''}"


@contextmanager
def reader_in(folder: Path) -> Iterator[Reader]:
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.leave()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_works_from_its_first_step_to_its_last(guide: Path, artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    prepare(tmp_path)
    blocks = BLOCK.findall(guide.read_text())
    assert blocks
    languages = {language for language, _ in blocks}
    if "js" in languages and shutil.which("node") is None:
        pytest.skip("node is not installed")
    with reader_in(tmp_path) as reader:
        if guide.stem == "calling":  # it begins with a service that runs
            reader.follow("bash", "make serve\n")
        for language, block in blocks:
            reader.follow(language, block)
