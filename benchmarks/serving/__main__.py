"""Compares Convoy with the service of a tutorial, other servers and a bare loop.

    python -m benchmarks.serving [--only small,overload] [--rounds 5] [--seconds 3] [--before CHECKOUT]

Writes docs/benchmarks.json and docs/benchmarks.md after each round. Needs wrk, h2load and an otherwise idle machine.
"""

import argparse
import os
import platform
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.serving.bundles import LARGE, SMALL, make_bundles
from benchmarks.serving.measure import Bench
from benchmarks.serving.report import render
from benchmarks.serving.results import Group, Results, Row, Stages

RESULT, PAGE = ROOT / "docs" / "benchmarks.json", ROOT / "docs" / "benchmarks.md"
_ONCE = {Group.PEERS, Group.STAGES}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(Group), help="groups to measure, separated by commas (all)")
    parser.add_argument("--rounds", type=int, default=5, help="of each group, except for peers and stages")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version, for the group stages")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, to train the small network")
    options = parser.parse_args()
    make_bundles(options.data)
    bench = Bench(SMALL, LARGE, options.seconds, options.before)
    for name in options.only.split(","):
        group = Group(name)
        rows: list[Row] = []
        for bench.round in range(1, 2 if group in _ONCE else options.rounds + 1):
            for row in bench.run(group):
                print(row, flush=True)
                rows.append(row)
            _write(_merged(group, rows, options.seconds))


def _merged(group: Group, rows: list[Row], seconds: int) -> Results:
    """Returns the results in the file with the rows in place of the group's."""
    machine = f"{os.cpu_count()} cores, {platform.system()}"
    kept = Results.model_validate_json(RESULT.read_bytes()).groups if RESULT.exists() else {}
    earlier = [row for row in kept.get(group, ()) if isinstance(row, Stages) and row.version == "before"]
    if any(isinstance(row, Stages) and row.version == "before" for row in rows):
        earlier = []
    return Results(
        machine=machine,
        small=SMALL.parent.name,
        large=LARGE.parent.name,
        seconds=seconds,
        groups={**kept, group: (*earlier, *rows)},
    )


def _write(results: Results) -> None:
    RESULT.write_text(results.model_dump_json(indent=1) + "\n")
    PAGE.write_text(render(results))


if __name__ == "__main__":
    main()
