"""Compares the seconds to an accuracy with those of the Keras tutorials' networks.

    python -m benchmarks.training --data data [--only mnist] [--keras .venv-keras/bin/python]

Writes docs/benchmarks-training.json and docs/benchmarks-training.md. Needs an otherwise idle machine.
"""

import argparse
import os
import platform
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RESULT, PAGE = ROOT / "docs" / "benchmarks-training.json", ROOT / "docs" / "benchmarks-training.md"


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as python -m trainer does, before PyTorch is imported
    from benchmarks.training.compare import CPU, compare  # noqa: PLC0415
    from benchmarks.training.results import CASES, Results, render  # noqa: PLC0415
    from trainer.training.device import describe  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10 and MNIST")
    parser.add_argument("--only", choices=CASES, help="one data set (both)")
    parser.add_argument("--keras", type=Path, default=Path(".venv-keras/bin/python"), help="Python with TensorFlow")
    options = parser.parse_args()
    found = Results.model_validate_json(RESULT.read_bytes()).cases if RESULT.exists() else {}
    for name in [options.only] if options.only else CASES:
        found = {**found, name: compare(CASES[name], options.data.resolve(), options.keras)}
        results = Results(machine=f"{describe(CPU)}, {platform.system()}", cases=found)
        RESULT.write_text(results.model_dump_json(indent=1) + "\n")
        PAGE.write_text(render(results))


if __name__ == "__main__":
    main()
