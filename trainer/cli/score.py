"""python -m trainer score: scores any number of images with a bundle, and writes Parquet."""

import argparse
import importlib.util
import time
from pathlib import Path

from schemas.manifest import VariantName
from trainer.cli.output import say
from trainer.data.progress_bar import tracked
from trainer.errors import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="artifacts/<model>/<version>, or artifacts/<model>")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder of image files, Parquet file, or folder of Parquet files: a path, or a URL such as s3://...",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the Parquet files of the results: a path or a URL")
    parser.add_argument(
        "--variant", choices=["fp32", "int8", "fp16"], default="fp32", help="variant to run (default: fp32)"
    )
    parser.add_argument("--ray", action="store_true", help="run on a Ray cluster (RAY_ADDRESS, else this machine)")


def run(options: argparse.Namespace) -> int:
    for package in ("pyarrow", "fsspec", *["ray"] * options.ray):
        if importlib.util.find_spec(package) is None:
            extra = "ray" if package == "ray" else "extras"
            raise UsageError(f"score needs {package}, which is not installed. Install it with: make .venv/.{extra}")
    # Imported here: pyarrow is optional.
    from trainer.batch_scoring.engines import score_here, score_on_ray  # noqa: PLC0415 - imports pyarrow
    from trainer.batch_scoring.job import Job  # noqa: PLC0415 - imports pyarrow
    from trainer.batch_scoring.source import absolute, list_parts  # noqa: PLC0415 - imports pyarrow

    job = Job(options.bundle.absolute(), VariantName(options.variant), absolute(options.source), absolute(options.out))
    parts = list_parts(job.source)
    unfinished = job.begin(parts)
    if len(unfinished) < len(parts):
        say(f"{len(parts) - len(unfinished):,} of {len(parts):,} parts are finished already.")
    started = time.monotonic()
    engine = score_on_ray if options.ray else score_here
    scored = list(tracked(engine(job, unfinished), "scoring", len(unfinished))) if unfinished else []
    seconds = time.monotonic() - started
    images, bad = sum(one.images for one in scored), sum(one.unreadable for one in scored)
    print(f"{options.out}: scored {images:,} images in {seconds:.1f} s ({images / max(seconds, 1e-9):,.0f} per second)")
    if bad:
        say(f"Unreadable images: {bad:,}. The column error has the reasons.")
    return 0
