"""python -m trainer evaluate: measures a bundle on labelled data."""

import argparse
from pathlib import Path

from schemas.evaluation import Metrics
from schemas.manifest import VariantName
from trainer.cli.data_options import add_data_options, in_words, location_of
from trainer.cli.output import print_table, say
from trainer.evaluation.scoring import Part, choose_data_config, open_model, score, select_images


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>")
    add_data_options(parser)


def run(options: argparse.Namespace) -> int:
    model = open_model(options.bundle, VariantName(options.variant))
    location = location_of(options)
    config = choose_data_config(location, [model.manifest])
    data = location.load(config, model.manifest)
    selection = select_images([(model, data)], config, Part(options.split) if options.split else None)
    say(*data.notes, *selection.notes)
    metrics = score(model, data, selection.positions).metrics
    if options.json:
        print(metrics.model_dump_json(indent=2))
    else:
        print(f"{model} on {data.name}, {in_words(selection.part)}: {metrics.n:,} images")
        _print_metrics(metrics)
    return 0


def _print_metrics(metrics: Metrics) -> None:
    macro = metrics.macro
    print(f"accuracy     {metrics.accuracy:.2%} (95% {metrics.accuracy_interval})")
    for one in metrics.top_k:
        if one.k > 1:
            print(f"top {one.k}        {one.accuracy:.2%}")
    print(f"macro        precision {macro.precision:.4f}, recall {macro.recall:.4f}, F1 {macro.f1:.4f}")
    print(f"log loss     {metrics.log_loss:.4f} nats")
    print(f"calibration  expected error {metrics.calibration.expected_calibration_error:.4f}")
    if metrics.roc_auc is not None:
        print(f"ROC AUC      {metrics.roc_auc:.4f}")
    print()
    rows = [row for row in metrics.per_class if row.support]
    numbers = ("images", "precision", "recall", "F1")
    print_table(
        ("label", *numbers),
        [(row.label, f"{row.support:,}", f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}") for row in rows],
        right=numbers,
    )
    if metrics.absent_classes:
        print(f"\nNo images of {', '.join(metrics.absent_classes)}: the macro means exclude them.")
