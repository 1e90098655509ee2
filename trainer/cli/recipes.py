"""python -m trainer recipes: lists the recipes and all their settings."""

import argparse

from trainer.cli.output import print_table
from trainer.cli.settings_help import RECIPE_COLUMNS, SETTING_COLUMNS, claims, recipe_rows, setting_rows


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no options."""


def run(_: argparse.Namespace) -> int:
    print_table(RECIPE_COLUMNS, recipe_rows(), right=("batch",))
    print("", claims(), "", "Settings of every recipe, for --set KEY=VALUE:", "", sep="\n")
    print_table(SETTING_COLUMNS, setting_rows())
    return 0
