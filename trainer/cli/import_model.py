"""python -m trainer import: makes a bundle of an ONNX classifier from elsewhere."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from schemas.manifest import InputSpec, Interpolation, Resize
from trainer.cli.argument_types import deviations, image_shape, model_name, numbers
from trainer.cli.bundle_options import add_bundle_options, describe_test, how_to_serve
from trainer.cli.data_options import SOURCES, add_decoding_options, location_of
from trainer.cli.output import say
from trainer.errors import DataError, ImportedModelError
from trainer.training.progress import reporter_for


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="an image classifier from any exporter")
    parser.add_argument("--name", type=model_name, required=True, help="model name")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="labels in the order of the outputs: one per line, or JSON",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="labelled images that the model was not trained on"
    )
    parser.add_argument(
        "--source",
        choices=SOURCES,
        help="kind of data, if --data contains several",
    )
    parser.add_argument(
        "--input", type=image_shape, metavar="H,W,C", help="size and channels of the images (default: from the graph)"
    )
    parser.add_argument(
        "--layout", choices=["nchw", "nhwc", "flat"], help="order of the axes (default: from the graph)"
    )
    parser.add_argument(
        "--mean", type=numbers, metavar="M[,M,M]", help="mean of pixels of 0..1 (default: chosen with --data)"
    )
    parser.add_argument("--std", type=deviations, metavar="S[,S,S]", help="standard deviation; needs --mean")
    parser.add_argument("--logits", action="store_true", help="the outputs are logits (default: detected)")
    parser.add_argument(
        "--resize",
        choices=list(Resize),
        default=Resize.CROP,
        help="treatment of images of another size (default: crop)",
    )
    parser.add_argument(
        "--interpolation", choices=list(Interpolation), default=Interpolation.BILINEAR, help="default: bilinear"
    )
    add_decoding_options(parser)
    add_bundle_options(parser)


def run(options: argparse.Namespace) -> int:
    labels = read_labels(options.labels)
    if (options.mean is None) != (options.std is None):
        raise ImportedModelError("--mean and --std go together; give both, or neither.")
    location = location_of(options)
    location.sources(labels)  # before PyTorch is imported
    from trainer.export.imported_model import ImportedModel, Layout, Normalisation, read_model  # noqa: PLC0415 - imports PyTorch
    from trainer.import_onnx import import_onnx, open_data  # noqa: PLC0415 - imports PyTorch

    layout = Layout(options.layout) if options.layout else None
    model = ImportedModel(read_model(options.model), layout, options.input, gives_logits=options.logits)
    if model.classes != len(labels):
        raise ImportedModelError(
            f"{options.model} has {model.outputs:,} outputs, but {options.labels} has {len(labels):,} labels."
        )
    height, width, channels = model.shape
    say(
        f"{options.model}: images of {height}x{width}x{channels}, {model.layout}, {len(labels):,} classes, "
        f"{'logits' if model.gives_logits else 'probabilities'}"
    )
    spec = InputSpec(
        height=height, width=width, channels=channels, resize=options.resize, interpolation=options.interpolation
    )
    data = open_data(location, spec, labels)
    normalisation = None if options.mean is None else Normalisation(options.mean, options.std)
    with reporter_for(sys.stderr) as reporter:
        bundle = import_onnx(
            model,
            options.model,
            options.name,
            data,
            normalisation,
            options.artifacts,
            reporter,
            relabel=options.relabel,
        )
    print(f"{describe_test(bundle)}.")
    say(how_to_serve(bundle, options.artifacts))
    return 0


def read_labels(file: Path) -> tuple[str, ...]:
    """Reads a label per line, or JSON: a list, or an object of index to label, as Hugging Face's id2label.

    Raises DataError.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The labels in {file} cannot be read ({error}).") from error
    labels = _labels_of(text, file) if text.lstrip()[:1] in {"[", "{"} else [line.strip() for line in text.splitlines()]
    while labels and not labels[-1]:
        labels.pop()
    if not all(labels) or len(set(labels)) != len(labels) or len(labels) < 2:
        raise DataError(f"{file} must have two or more labels, all different and none empty.")
    return tuple(labels)


def _labels_of(text: str, file: Path) -> list[str]:
    try:
        found: Any = json.loads(text)
        found = found.get("id2label", found) if isinstance(found, dict) else found
        if isinstance(found, dict):
            found = [found[str(index)] for index in range(len(found))]
        return [str(label).strip() for label in found]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is not a list of labels. Give a JSON list, or an object whose keys are the indices, from 0."
        ) from error
