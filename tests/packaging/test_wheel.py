"""The wheel, built from a copy of the sources and installed in fresh virtual environments."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "service", "trainer")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

PIP = (sys.executable, "-m", "pip")
OFFLINE = ("--no-index", "--no-deps", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def output(*command: str | Path, cwd: Path) -> str:
    ended = run(*command, cwd=cwd)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # setuptools writes build folders beside the sources, and packs what an older build left in them.
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, source)
    output(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Makes a virtual environment that contains the wheel and nothing else. Returns its folder of commands."""
    venv.create(folder, symlinks=os.name != "nt")
    output(*PIP, "--python", folder, "install", *OFFLINE, wheel, cwd=folder)
    return folder / ("Scripts" if os.name == "nt" else "bin")


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    found = install(wheel, folder)
    (site_packages,) = folder.rglob("site-packages")
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


@pytest.fixture(scope="module")
def commands_without_libraries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("environment"))


def test_contains_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    files = {
        str(path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(file.endswith("static/index.html") for file in files)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files


def test_states_and_contains_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    metadata: Message = Parser().parsestr(text["METADATA"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert text["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert text["NOTICE"] == (ROOT / "NOTICE").read_text()


def test_convoy_serve_shows_its_version_and_its_settings_from_any_folder(commands: Path, tmp_path: Path) -> None:
    assert output(commands / "convoy-serve", "--version", cwd=tmp_path) == f"convoy {VERSION}\n"
    text = output(commands / "convoy-serve", "--help", cwd=tmp_path)
    assert text.startswith("usage: convoy-serve ")
    assert "CONVOY_PORT=8000\n" in text


def test_convoy_serve_refuses_arguments_that_it_does_not_know(commands: Path, tmp_path: Path) -> None:
    ended = run(commands / "convoy-serve", "--port", "80", cwd=tmp_path)
    assert ended.returncode == 2
    assert "unrecognized arguments: --port 80" in ended.stderr


def test_convoy_train_lists_its_commands_from_any_folder(commands: Path, tmp_path: Path) -> None:
    text = output(commands / "convoy-train", "--help", cwd=tmp_path)
    assert text.startswith("usage: convoy-train ")
    assert "write its bundle" in text


def test_convoy_train_reads_its_recipes_from_the_wheel(commands: Path, tmp_path: Path) -> None:
    assert "digits" in output(commands / "convoy-train", "recipes", cwd=tmp_path)


@pytest.mark.parametrize(
    ("command", "argument", "extra"), [("convoy-serve", "--help", "service"), ("convoy-train", "recipes", "trainer")]
)
def test_a_command_without_its_libraries_names_the_extra(
    commands_without_libraries: Path, tmp_path: Path, command: str, argument: str, extra: str
) -> None:
    ended = run(commands_without_libraries / command, argument, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.endswith(f" is not installed; install the extra [{extra}].\n")
    assert ended.stderr.count("\n") == 1
