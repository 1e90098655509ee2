"""The two bundles of the benchmark, trained if they are missing."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.serving.bodies import write_photos

FOLDER = ROOT / "build" / "benchmark"
SMALL, LARGE = FOLDER / "small" / "cifar10-quick" / "1", FOLDER / "large" / "resnet18" / "1"

_LARGE = ("--preset", "scratch", "--network", "resnet18", "--name", "resnet18", "--epochs", "2")
# As the tutorial resizes.
_INPUT = ("height=224", "width=224", "resize=stretch", "interpolation=bicubic")


def make_bundles(cifar10: Path | None) -> None:
    """Trains the quick recipe of CIFAR-10, and ResNet-18 at 224 briefly, on colours that also int8 distinguishes."""
    if not SMALL.exists():
        _train(SMALL, "cifar10", "--preset", "quick", *(("--data", str(cifar10)) if cifar10 else ()))
    if not LARGE.exists():
        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "colours"
            write_photos(photos)
            _train(
                LARGE, "photos", *_LARGE, *(f"--set=data.input.{setting}" for setting in _INPUT), "--data", str(photos)
            )


def _train(bundle: Path, *arguments: str) -> None:
    options = ("--artifacts", str(bundle.parent.parent), "--runs", str(FOLDER / "runs"))
    subprocess.run([sys.executable, "-m", "trainer", "train", *arguments, *options], cwd=ROOT, check=True)  # noqa: S603
