"""python -m trainer clean: lists images with doubtful labels, copies, and unreadable files."""

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

from trainer.cli.argument_types import folder, output_folder
from trainer.cli.output import say
from trainer.cli.recipe_options import ANY_SIZE
from trainer.data.detect import open_source, recipe_for_path, recipe_for_source
from trainer.errors import UsageError
from trainer.recipe import InputConfig, Source
from trainer.training.nvidia_driver import check_device

_PUBLISHED_INPUT = InputConfig(height=128, width=128, channels=3)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="folder or file of labelled images (kind is detected)")
    parser.add_argument(
        "--out",
        type=output_folder,
        default=Path("clean"),
        metavar="DIR",
        help="folder for the page and the list (clean)",
    )
    parser.add_argument("--cache", type=folder, metavar="DIR", help="folder for decoded images (beside the data)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(options: argparse.Namespace) -> int:
    photos, data = recipe_for_source(Source.FOLDER), recipe_for_path(options.data).data
    size = _PUBLISHED_INPUT if data.source in {Source.MNIST, Source.CIFAR10} else InputConfig()
    recipe = photos.model_copy(update={"data": data.model_copy(update={"input": size})})
    if importlib.util.find_spec("cleanlab") is None:
        raise UsageError("clean needs cleanlab, which is not installed. Install it with: make .venv/.extras")
    check_device(options.device)
    open_source(recipe.data.with_input(size.spec or ANY_SIZE), options.data)  # a wrong path is reported without PyTorch
    from trainer.cleaning.clean import find_mistakes  # noqa: PLC0415 - imports PyTorch
    from trainer.cleaning.page import LIST, PAGE, write_findings  # noqa: PLC0415 - its neighbour
    from trainer.models.input_size import with_size  # noqa: PLC0415 - imports PyTorch
    from trainer.training.device import choose_device  # noqa: PLC0415 - imports PyTorch
    from trainer.training.progress import reporter_for  # noqa: PLC0415 - its neighbour

    config, reasons = with_size(recipe, options.data)
    say(*reasons)
    source = open_source(config, options.data, skip_bad=True, cache=options.cache)
    with reporter_for() as reporter:
        found, images, findings = find_mistakes(
            recipe, source, choose_device(options.device), reporter, options.out / "features"
        )
    write_findings(options.out, found.name, images, findings)
    counts = Counter(one.kind for one in findings)
    print(f"{found.name}: {', '.join(f'{count:,} {kind}' for kind, count in counts.items()) or 'nothing found'}.")
    say(
        f"Look at {options.out / PAGE}. In {options.out / LIST}, delete the rows of images that you want to keep. Then "
        f"train with --exclude {options.out / LIST}."
    )
    return 0
