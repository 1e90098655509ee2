"""The commands of `bash` blocks parse. The tests do not run them: they install, download or need the reader's data."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.support.pages import PAGES, code_blocks, name_of
from tests.support.service_process import REPOSITORY
from trainer.cli.main import parse
from trainer.cli.recipe_options import settings_of
from trainer.recipe import is_recipe_file, with_settings
from trainer.recipes.registry import RECIPES, find_recipe

TARGETS = set(re.findall(r"^([\w./%-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for language in ("bash", "sh"):
            for block in code_blocks(page, language):
                for line in block.replace("\\\n", " ").splitlines():
                    words = shlex.split(line, comments=True) if language == "bash" else line.split()
                    if words:
                        yield name_of(page), words


TRAINER = [(page, words[words.index("trainer") + 1 :]) for page, words in commands() if "trainer" in words]
MAKE = [(page, words[1:]) for page, words in commands() if words[0] == "make"]


def options_of(arguments: list[str]) -> argparse.Namespace | None:
    """None for --help."""
    return None if "--help" in arguments else parse(arguments)


@pytest.mark.parametrize(("page", "arguments"), TRAINER)
def test_a_trainer_command_parses_and_its_settings_exist(page: str, arguments: list[str]) -> None:
    options = options_of(arguments)
    recipe = getattr(options, "recipe", None)
    assert recipe in RECIPES or arguments[0] != "train" or recipe is None or is_recipe_file(recipe)
    if options is not None and recipe in RECIPES:
        with_settings(find_recipe(recipe, options.preset), settings_of(options))


@pytest.mark.parametrize(("page", "words"), MAKE)
def test_a_make_target_exists_and_trains_a_recipe_that_exists(page: str, words: list[str]) -> None:
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    for target in (word for word in words if "=" not in word):
        assert target in TARGETS or (target.startswith(".venv/") and ".venv/.%" in TARGETS), target
    if "RECIPE" in variables:
        options = parse(["train", variables["RECIPE"], *shlex.split(variables.get("ARGS", ""))])
        with_settings(find_recipe(options.recipe, options.preset), settings_of(options))
