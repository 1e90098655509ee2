"""python -m trainer evaluate: a bundle's figures on labelled data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.data_options import add_data_options, in_words, place_of, say

if TYPE_CHECKING:
    from schemas.evaluation import Metrics


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>")
    add_data_options(parser)


def run(options: argparse.Namespace) -> int:
    from schemas.manifest import VariantName  # noqa: PLC0415
    from trainer.evaluation.evaluate import Part, choose, how_to_read, open_model, score  # noqa: PLC0415

    model = open_model(options.bundle, VariantName(options.variant))
    place = place_of(options)
    config = how_to_read(place, [model.manifest])
    data = place.load(config, model.manifest)
    chosen = choose([(model, data)], config, Part(options.split) if options.split else None)
    say([*data.told, *chosen.told])
    metrics = score(model, data, chosen.positions).metrics
    if options.json:
        print(metrics.model_dump_json(indent=2))
    else:
        print(f"{model.shown} on {data.name}, {in_words(chosen.part)}: {metrics.n:,} images")
        print(as_text(metrics))
    return 0


def as_text(metrics: "Metrics") -> str:
    interval, macro = metrics.accuracy_interval, metrics.macro
    lines = [
        f"accuracy     {metrics.accuracy:.2%} (95% {interval.lower:.2%} to {interval.upper:.2%})",
        *(f"top {one.k}        {one.accuracy:.2%}" for one in metrics.top_k if one.k > 1),
        f"macro        precision {macro.precision:.4f}, recall {macro.recall:.4f}, F1 {macro.f1:.4f}",
        f"log loss     {metrics.log_loss:.4f} nats",
        f"calibration  expected error {metrics.calibration.expected_calibration_error:.4f}",
        *([f"ROC AUC      {metrics.roc_auc:.4f}"] if metrics.roc_auc is not None else []),
        "",
    ]
    width = max(len("label"), *(len(row.label) for row in metrics.per_class))
    lines.append(f"{'label':<{width}}  {'images':>7}  precision  recall      F1")
    lines += [
        f"{row.label:<{width}}  {row.support:>7,}  {row.precision:>9.4f}  {row.recall:>6.4f}  {row.f1:>6.4f}"
        for row in metrics.per_class
        if row.support
    ]
    if metrics.absent_classes:
        lines += ["", f"No images of {', '.join(metrics.absent_classes)}: left out of the macro means."]
    return "\n".join(lines)
