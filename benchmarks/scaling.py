"""`python -m benchmarks.scaling`: writes the tables of docs/scaling.md from the measured figures.

The arithmetic: cores = images per second x CPU seconds per image / load. The CPU seconds are those of all processes of
the service. Load is the planned share of the cores; the rest is for peaks, and for the load of a machine that fails.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.serving.report import Figures
from benchmarks.serving.results import Group, Results, Start
from benchmarks.serving.servers import DEFAULT, TUTORIAL
from schemas.base import Frozen

RESULTS, BATCH_RESULTS, PAGE = (
    ROOT / "docs" / name for name in ("benchmarks.json", "batch-scoring.json", "scaling.md")
)
LOAD = 0.6
RATES = (1, 10, 100, 1_000, 10_000, 100_000)
POD_CORES = 2  # as deploy/kubernetes sets
NOT_MEASURED = "not measured"
_PART = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class BatchScoring(Frozen):
    """docs/batch-scoring.json: images per second of `trainer score` and of the bare loop, on all cores."""

    images: int
    cores: int
    images_per_second: dict[str, float]


@dataclass(frozen=True)
class Work:
    """A kind of request, and the CPU time of one image in microseconds."""

    text: str
    cpu_us: float | None

    @property
    def row(self) -> str:
        if self.cpu_us is None:
            return _line(self.text, *[NOT_MEASURED] * (2 + len(RATES)))
        cores = [rate * self.cpu_us / 1e6 / LOAD for rate in RATES]
        hours = self.cpu_us / 3600  # of a million images
        return _line(self.text, f"{self.cpu_us:,.0f}", f"{hours:.2f}", *map(_cores, cores))


def tables(results: Results, batch: BatchScoring | None) -> dict[str, list[str]]:
    """Returns the lines of each table by the name in the page."""
    figures = Figures(results)
    small = [
        Work(f"small network, {text}", figures.closed("cpu_us", case, DEFAULT.name))
        for text, case in (
            ("one PNG per request", "PNG, 16 connections"),
            ("32 PNGs per request", "32 PNGs a request"),
            ("256 pixel arrays per request", "npy of 256"),
        )
    ]
    large = Work(
        "large network, one JPEG per request",
        figures.closed("cpu_us", "JPEG, 16 connections", DEFAULT.name, Group.LARGE),
    )
    score = Work("small network in fp32, `trainer score`, PNG files", _score_us(batch))
    works = [*small, large, score]
    heads = ("work", "CPU us per image", "core-hours per million images", *(f"{rate:,}/s" for rate in RATES))
    pods = [_line(work.text, *(_pods(work.cpu_us, rate) for rate in RATES)) for work in (*small, large)]
    return {
        "cores": [*_head(heads), *(work.row for work in works)],
        "pods": [*_head(("work", *(f"{rate:,}/s" for rate in RATES))), *pods],
        "ray": _ray(figures),
        "memory": _memory(results),
    }


def render(page: str, results: Results, batch: BatchScoring | None) -> str:
    """Returns the page with its tables replaced."""
    found = tables(results, batch)
    return _PART.sub(lambda part: part[1] + "\n".join(["", *found[part[2]], "", part[3]]), page)


def read_batch(path: Path = BATCH_RESULTS) -> BatchScoring | None:
    return BatchScoring.model_validate_json(path.read_text()) if path.exists() else None


def _score_us(batch: BatchScoring | None) -> float | None:
    """All cores are busy while images are scored."""
    return 1e6 * batch.cores / batch.images_per_second["score"] if batch else None


def _ray(figures: Figures) -> list[str]:
    case = "PNG, 16 connections"
    pair = [figures.closed("cpu_us", case, server, Group.PEERS) for server in ("Ray Serve", TUTORIAL.name)]
    if pair[0] is None or pair[1] is None:
        return [f"The cost of Ray Serve's proxy: {NOT_MEASURED}."]
    return [
        f"One small PNG per request costs {pair[0]:,.0f} us of CPU behind Ray Serve and {pair[1]:,.0f} us in the same "
        f"program without it: the proxy and the hops between processes take {pair[0] - pair[1]:,.0f} us per request."
    ]


def _memory(results: Results) -> list[str]:
    rows = [row.worker_mib for row in results.rows(Start) if row.server == DEFAULT.name]
    return [f"A worker with three small models takes {max(rows):.0f} MiB." if rows else f"Memory: {NOT_MEASURED}."]


def _pods(cpu_us: float | None, rate: int) -> str:
    if cpu_us is None:
        return NOT_MEASURED
    pods = rate * cpu_us / 1e6 / POD_CORES  # busy ones
    return f"{max(math.ceil(pods / LOAD), math.ceil(pods) + 1):,}"  # one may fail


def _cores(cores: float) -> str:
    return f"{cores:.2g}" if cores < 10 else f"{math.ceil(cores):,}"


def _head(heads: Sequence[str]) -> list[str]:
    return [_line(*heads), "|---" * len(heads) + "|"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    results = Results.model_validate_json(RESULTS.read_text())
    PAGE.write_text(render(PAGE.read_text(), results, read_batch()))


if __name__ == "__main__":
    main()
