import subprocess

from tests.support.service_process import REPOSITORY
from trainer.recipes.registry import RECIPES, claim


def test_help_lists_the_recipes_and_the_limit_of_the_training_time() -> None:
    """It runs before anything is installed, so it reads the files."""
    listed = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in RECIPES:
        first_line = claim(name).splitlines()[0]
        assert f"\n{name:<12}{first_line}\n" in listed
    assert "--max-seconds" in listed
    assert "registry" not in listed
