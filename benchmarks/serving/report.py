"""docs/benchmarks.md from docs/benchmarks.json: medians over rounds, and each target beside its result."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.serving.measure import Measured, Results

_GETTERS: dict[str, Callable[[Measured], float | None]] = {
    "rate": lambda one: one.images_per_second,
    "p50": lambda one: one.p50,
    "p99": lambda one: one.p99,
    "cpu": lambda one: one.cpu_us,
    "decode": lambda one: one.decode_us,
    "run": lambda one: one.run_us,
}


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds of a result."""

    results: Results

    def get(self, what: str, case: str, server: str) -> float | None:
        found = [
            value
            for one in self.results.measured
            if (one.case, one.server) == (case, server) and (value := _GETTERS[what](one)) is not None
        ]
        return median(found) if found else None

    def ratio(self, what: str, case: str, server: str, to: tuple[str, str]) -> float | None:
        value, base = self.get(what, case, server), self.get(what, *to)
        return value / base if value and base else None


@dataclass(frozen=True)
class Target:
    """limit is a lower bound if more is better, and an upper bound otherwise."""

    text: str
    value: float | None
    limit: float
    unit: str
    more: bool = True

    @property
    def row(self) -> str:
        if self.value is None:
            return f"| {self.text} | {self.limit:g}{self.unit} | not measured | |"
        met = self.value >= self.limit if self.more else self.value <= self.limit
        return (
            f"| {self.text} | {self.limit:g}{self.unit} | {self.value:.3g}{self.unit} | {'met' if met else 'missed'} |"
        )


def targets(results: Results) -> Iterable[Target]:
    figures = Figures(results)
    tutorial, default = "tutorial", "convoy default"
    variant = _default_variant(results)
    for connections in (16, 64):
        case = f"PNG, {connections} connections"
        for server, limit in (("convoy fp32", 2.0), (default, 3.0)):
            value = figures.ratio("rate", case, server, (case, tutorial))
            yield Target(f"{case}: {server}, throughput to the tutorial's", value, limit, " x")
    bare = ("PNG, bare loop", f"bare loop {variant}")
    yield Target(
        "raw PNG, 16 connections: convoy default, to the bare loop",
        figures.ratio("rate", "raw PNG, 16 connections", default, bare),
        0.75,
        " x",
    )
    for server, limit in (("convoy fp32", 0.75), (default, 0.6)):
        case = "PNG, 1 connections"
        value = figures.ratio("p50", case, server, (case, tutorial))
        yield Target(f"PNG, 1 connection: {server}, p50 to the tutorial's", value, limit, " x", more=False)
    case = "PNG, 64 connections"
    for server in ("convoy fp32", default):
        value = figures.ratio("p99", case, server, (case, tutorial))
        yield Target(f"{case}: {server}, p99 to the tutorial's", value, 0.5, " x", more=False)
    floor = figures.get("cpu", "PNG, 16 connections", "FastAPI, constant answer")
    for server, name in (("convoy fp32", "fp32"), (default, variant)):
        cpu = figures.get("cpu", "PNG, 16 connections", server)
        work = [figures.get(what, "PNG, bare loop", f"bare loop {name}") for what in ("decode", "run")]
        beyond = (cpu - sum(part or 0 for part in work)) / floor if cpu and floor and all(work) else None
        yield Target(f"{server}: CPU beyond decode and run, to FastAPI's floor", beyond, 1.7, " x", more=False)
    yield Target(
        "32 PNGs a request: to the bare loop", figures.ratio("rate", "32 PNGs a request", default, bare), 0.9, " x"
    )
    npy = ("npy, bare loop", f"bare loop {variant}")
    yield Target("npy of 256: to the bare loop", figures.ratio("rate", "npy of 256", default, npy), 0.9, " x")
    for server, name, limit in (("convoy fp32", "fp32", 0.97), (default, "int8", 0.95)):
        value = figures.ratio("rate", "JPEG, 16 connections", server, ("JPEG, bare loop", f"bare loop {name}"))
        yield Target(f"JPEG into the large network, 16 connections: {server}, to the bare loop", value, limit, " x")
    case = "JPEG, 1 connections"
    value = figures.ratio("p50", case, "convoy fp32", (case, tutorial))
    yield Target("JPEG, 1 connection: convoy fp32, p50 to the tutorial's", value, 0.6, " x", more=False)
    yield from _service_targets(results)


def _service_targets(results: Results) -> Iterable[Target]:
    for name in dict.fromkeys(one.case for one in results.overloads):
        found = [one for one in results.overloads if one.case == name]
        times = f"overload, {name}"
        yield Target(f"{times}: goodput to capacity", median(one.goodput / one.capacity for one in found), 0.9, " x")
        refusals = [one.refusal_p50 for one in found if one.refusal_p50 is not None]
        yield Target(f"{times}: median refusal", median(refusals) if refusals else None, 10, " ms", more=False)
    for path in dict.fromkeys(one.path for one in results.probes):
        p99 = median(one.p99 for one in results.probes if one.path == path)
        yield Target(f"{path} p99 while saturated", p99, 50, " ms", more=False)
    starts = {name: [one for one in results.starts if one.server == name] for name in ("convoy default", "tutorial")}
    if all(starts.values()):
        ours, theirs = starts["convoy default"], starts["tutorial"]
        yield Target("start to ready, three models", median(one.seconds for one in ours), 2.5, " s", more=False)
        more = median(one.worker_mib for one in ours) - median(one.worker_mib for one in theirs)
        yield Target("memory of a worker beyond the tutorial's", more, 40, " MiB", more=False)


def _default_variant(results: Results) -> str:
    names = {one.server.removeprefix("bare loop ") for one in results.measured if one.server.startswith("bare loop")}
    return "int8" if "int8" in names else "fp32"


def render(results: Results) -> str:
    found = list(targets(results))
    met = sum(target.row.endswith("| met |") for target in found)
    figures = Figures(results)
    rounds = len({one.round for one in results.measured})
    png = "PNG, 16 connections"
    fp32, default = (
        figures.ratio("rate", png, server, (png, "tutorial")) for server in ("convoy fp32", "convoy default")
    )
    lines = [
        "# Benchmarks",
        "",
        "With 16 connections and one small PNG per request, Convoy answers"
        f" {fp32 or 0:.2f} times as many requests as the tutorial service in fp32"
        f" and {default or 0:.2f} times as many with its default variant.",
        f"It meets {met} of {len(found)} targets.",
        "",
        "`make bench` writes this page from [benchmarks.json](benchmarks.json). The client (wrk) runs on the same cores"
        f" ({results.machine}). Each figure is the median of {rounds} rounds in which the servers alternate;"
        f" the small network is {results.small}, the large one {results.large or 'not measured'}.",
        "",
        "## Targets",
        "",
        "| what | target | result | |",
        "|---|---|---|---|",
        *(target.row for target in found),
        "",
        "## Figures",
        "",
        "CPU is the time of all server processes per image, in microseconds of one core.",
        "",
        "| case | server | images/s | p50 ms | p99 ms | CPU us | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, server in dict.fromkeys((one.case, one.server) for one in results.measured):
        rate, p50, p99, cpu = (figures.get(what, case, server) for what in ("rate", "p50", "p99", "cpu"))
        failed = sum(one.failed for one in results.measured if (one.case, one.server) == (case, server))
        lines.append(
            f"| {case} | {server} | {rate:,.0f} | {_number(p50)} | {_number(p99)} | {_number(cpu, '.0f')} | {failed} |"
        )
    lines += [
        "",
        "## Overload, start and memory",
        "",
        "| overload | capacity/s | offered/s | goodput/s | median refusal ms | p99 of answers ms | statuses |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {one.case} | {one.capacity:,.0f} | {one.offered:,.0f} | {one.goodput:,.0f} | {_number(one.refusal_p50)}"
            f" | {_number(one.accepted_p99)} | {one.statuses} |"
            for one in results.overloads
        ),
        "",
        "| server | start to ready s | MiB of a worker |",
        "|---|---|---|",
        *(f"| {one.server} | {one.seconds:.2f} | {one.worker_mib:.0f} |" for one in results.starts),
    ]
    return "\n".join([*lines, ""])


def _number(value: float | None, spec: str = ".2f") -> str:
    return format(value, spec) if value is not None else ""
