"""Convoy beside the service of a tutorial and other servers: throughput, latency, CPU, overload, start and memory.

    python -m benchmarks.serving --small artifacts/cifar10/1 [--large artifacts/resnet18/1] [--rounds 5] [--peers]

Writes docs/benchmarks.json and docs/benchmarks.md. Needs wrk, and nothing else running on the machine.
"""

import argparse
import os
import platform
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.serving.measure import Bench, Results
from benchmarks.serving.report import render

RESULT, PAGE = ROOT / "docs" / "benchmarks.json", ROOT / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, required=True, help="a bundle with a small network")
    parser.add_argument("--large", type=Path, help="a bundle with a large network, such as ResNet-18 at 224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--peers", action="store_true", help="also LitServe, BentoML and Ray Serve, in the first round")
    options = parser.parse_args()
    bench = Bench(options.small.resolve(), options.large and options.large.resolve(), options.seconds)
    for number in range(1, options.rounds + 1):
        bench.round(peers=options.peers and number == 1)
        results = Results(
            small=options.small.parent.name,
            large=options.large and options.large.parent.name,
            machine=f"{os.cpu_count()} cores, {platform.system()}",
            seconds=options.seconds,
            measured=tuple(bench.measured),
            overloads=tuple(bench.overloads),
            probes=tuple(bench.probes),
            starts=tuple(bench.starts),
        )
        RESULT.write_text(results.model_dump_json(indent=1) + "\n")
        PAGE.write_text(render(results))


if __name__ == "__main__":
    main()
