"""python -m trainer recipes: what there is to train, and every setting of it."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    from trainer.cli.settings_help import claims, recipe_table, settings_table  # noqa: PLC0415

    print(recipe_table(), claims(), "Each of them takes each of these by --set KEY=VALUE:", sep="\n\n", end="\n\n")
    print(settings_table())
    return 0
