import re

from tests.support.service_process import REPOSITORY

ARCHITECTURE = (REPOSITORY / "docs/architecture.md").read_text()
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()


def test_every_file_on_the_data_paths_exists() -> None:
    files = re.findall(r"^\| \[([\w/.]+)\]\(\.\./([\w/.]+)\)", ARCHITECTURE, flags=re.MULTILINE)
    assert len(files) > 30
    for shown, target in files:
        assert shown == target
        assert (REPOSITORY / target).is_file(), target


def test_every_room_of_both_packages_is_listed() -> None:
    for package in ("service", "trainer"):
        table = ARCHITECTURE.partition(f"## The rooms of the {package}")[2].partition("\n## ")[0]
        listed = set(re.findall(r"\b(\w+)/", table))
        rooms = {folder.parent.name for folder in (REPOSITORY / package).glob("*/*.py")}
        assert listed == rooms


def test_every_place_that_contributing_names_exists() -> None:
    for place in re.findall(r"`((?:schemas|service|trainer|benchmarks|tests)/[\w/.]*)`", CONTRIBUTING):
        assert (REPOSITORY / place).exists(), place
