"""python -m trainer compare: compares two bundles on the same labelled data."""

import argparse
from pathlib import Path

from schemas.manifest import VariantName
from schemas.model_comparison import Comparison, compare
from trainer.cli.data_options import add_data_options, in_words, location_of
from trainer.cli.output import say
from trainer.evaluation.scoring import (
    Part,
    check_same_labels,
    choose_data_config,
    open_model,
    score,
    select_images,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    for name in ("A", "B"):
        parser.add_argument(
            name.lower(), type=Path, metavar=name, help="bundle: artifacts/<model>/<version>, or artifacts/<model>"
        )
    add_data_options(parser)


def run(options: argparse.Namespace) -> int:
    models = [open_model(path, VariantName(options.variant)) for path in (options.a, options.b)]
    check_same_labels(*models)
    location = location_of(options)
    config = choose_data_config(location, [model.manifest for model in models])
    data = location.load(config, models[0].manifest)
    same_size = models[0].manifest.input == models[1].manifest.input
    other = data if same_size else location.load(config, models[1].manifest)
    pairs = list(zip(models, (data, other), strict=True))
    selection = select_images(pairs, config, Part(options.split) if options.split else None)
    say(*data.notes, *selection.notes)
    a, b = ((str(model), score(model, images, selection.positions).correct) for model, images in pairs)
    comparison = compare(a, b)
    if options.json:
        print(comparison.model_dump_json(indent=2))
    else:
        print(f"On {data.name}, {in_words(selection.part)}: {comparison.n:,} images")
        print(as_text(comparison))
    return 0


def as_text(comparison: Comparison) -> str:
    lines = []
    for letter, one in (("A", comparison.a), ("B", comparison.b)):
        lines.append(f"{letter}  {one.accuracy:.2%} (95% {one.accuracy_interval})  {one.model}")
    apart, points = comparison.difference_interval, 100 * comparison.difference
    lines += [
        f"B - A: {points:+.2f} points (95% {100 * apart.lower:+.2f} to {100 * apart.upper:+.2f}); "
        f"correct only by A: {comparison.only_a_right:,} images, only by B: {comparison.only_b_right:,}",
        comparison.verdict,
    ]
    return "\n".join(lines)
