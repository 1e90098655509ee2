"""docs/benchmarks.md from docs/benchmarks.json: medians over the rounds, and each target beside its result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.serving.results import Bare, Closed, Group, Overload, Probe, Results, Stages, Start
from benchmarks.serving.servers import DEFAULT, FLOOR, FP32, TUTORIAL


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds; None if there are none."""

    results: Results

    def closed(self, field: str, case: str, server: str, group: Group = Group.SMALL) -> float | None:
        rows = self.results.rows(Closed, group)
        return _median(getattr(row, field) for row in rows if (row.case, row.server) == (case, server))

    def bare(self, field: str, case: str, variant: str) -> float | None:
        rows = self.results.rows(Bare)
        return _median(getattr(row, field) for row in rows if (row.case, row.variant) == (case, variant))

    def of_default(self, field: str, case: str) -> float | None:
        """The bare loop with the variant that the service runs by default."""
        return self.bare(field, case, "int8") or self.bare(field, case, "fp32")


@dataclass(frozen=True)
class Target:
    """limit is a lower bound if more is better, and an upper bound otherwise."""

    text: str
    limit: float
    value: float | None
    unit: str = " x"
    more: bool = True

    @property
    def met(self) -> bool:
        return self.value is not None and (self.value >= self.limit if self.more else self.value <= self.limit)

    @property
    def row(self) -> str:
        sign = "at least" if self.more else "at most"
        result = _number(self.value, ".3g" if self.value is None or self.value < 100 else ",.0f")
        result += "" if self.value is None else self.unit
        verdict = "" if self.value is None else "met" if self.met else "missed"
        return f"| {self.text} | {sign} {self.limit:g}{self.unit} | {result} | {verdict} |"


def targets(results: Results) -> list[Target]:
    figures = Figures(results)
    return [*_small(figures), *_large(figures), *_overloads(results), *_service(results)]


def _small(figures: Figures) -> Iterable[Target]:
    for connections in (16, 64):
        for server, limit in ((FP32.name, 2.0), (DEFAULT.name, 3.0)):
            rate = _to_tutorial(figures, "images_per_second", f"PNG, {connections} connections", server)
            yield Target(f"PNG, {connections} connections, {server}: requests/s to the tutorial's", limit, rate)
    raw = figures.closed("images_per_second", "raw PNG, 16 connections", DEFAULT.name)
    text = f"raw PNG as the body, 16 connections, {DEFAULT.name}: images/s to the bare loop's"
    yield Target(text, 0.75, _ratio(raw, figures.of_default("images_per_second", "PNG")))
    for server, limit in ((FP32.name, 0.75), (DEFAULT.name, 0.6)):
        p50 = _to_tutorial(figures, "p50", "PNG, 1 connections", server)
        yield Target(f"PNG, 1 connection, {server}: p50 to the tutorial's", limit, p50, more=False)
    for server in (FP32.name, DEFAULT.name):
        p99 = _to_tutorial(figures, "p99", "PNG, 64 connections", server)
        yield Target(f"PNG, 64 connections, {server}: p99 to the tutorial's", 0.5, p99, more=False)
    floor = figures.closed("cpu_us", "PNG, 16 connections", FLOOR.name)
    for server in (FP32.name, DEFAULT.name):
        text = f"PNG, 16 connections, {server}: CPU beyond decode and run, to FastAPI's constant answer"
        yield Target(text, 1.7, _ratio(beyond_decode_and_run(figures, server), floor), more=False)
    for case, bare in (("32 PNGs a request", "PNG"), ("npy of 256", "npy")):
        rate = figures.closed("images_per_second", case, DEFAULT.name)
        text = f"{case}, {DEFAULT.name}: images/s to the bare loop's"
        yield Target(text, 0.9, _ratio(rate, figures.of_default("images_per_second", bare)))


def beyond_decode_and_run(figures: Figures, server: str) -> float | None:
    """Returns the CPU microseconds per request that the bare loop does not need."""
    cpu = figures.closed("cpu_us", "PNG, 16 connections", server)
    fields = ("decode_us", "run_us")
    work = [figures.bare(f, "PNG", "fp32") if server == FP32.name else figures.of_default(f, "PNG") for f in fields]
    return cpu - sum(part or 0 for part in work) if cpu and all(work) else None


def _large(figures: Figures) -> Iterable[Target]:
    for server, limit in ((FP32.name, 0.97), (DEFAULT.name, 0.95)):
        rate = figures.closed("images_per_second", "JPEG, 16 connections", server, Group.LARGE)
        bare = figures.bare("images_per_second", "JPEG", "fp32" if server == FP32.name else "int8")
        text = f"JPEG into the large network, 16 connections, {server}: images/s to the bare loop's"
        yield Target(text, limit, _ratio(rate, bare))
    for server in (FP32.name, DEFAULT.name):
        p50 = _to_tutorial(figures, "p50", "JPEG, 1 connections", server, Group.LARGE)
        text = f"JPEG into the large network, 1 connection, {server}: p50 to the tutorial's"
        yield Target(text, 0.6, p50, more=False)


def _overloads(results: Results) -> Iterable[Target]:
    rows = results.rows(Overload)
    for case in dict.fromkeys(row.case for row in rows):
        found = [row for row in rows if row.case == case]
        text = f"overload, {case}"
        goodput = _median(row.goodput / row.capacity for row in found)
        yield Target(f"{text}: goodput to capacity", 0.9, goodput)
        refusal = _median(row.refusal_p50 for row in found)
        yield Target(f"{text}: median of refusals", 10, refusal, " ms", more=False)
        accepted = _median(row.accepted_p99 for row in found)
        yield Target(f"{text}: p99 of answers", found[0].deadline * 1000, accepted, " ms", more=False)


def _service(results: Results) -> Iterable[Target]:
    probes = results.rows(Probe)
    for path in dict.fromkeys(row.path for row in probes):
        p99 = _median(row.p99 for row in probes if row.path == path)
        yield Target(f"{path} with 64 connections: p99", 50, p99, " ms", more=False)
    starts = results.rows(Start)
    ours, theirs = ([row for row in starts if row.server == name] for name in (DEFAULT.name, TUTORIAL.name))
    if ours and theirs:
        yield Target("start to ready, three small models", 2.5, _median(row.seconds for row in ours), " s", more=False)
        more = median(row.worker_mib for row in ours) - median(row.worker_mib for row in theirs)
        yield Target("memory of a worker with three small models, beyond the tutorial's", 40, more, " MiB", more=False)


def _to_tutorial(figures: Figures, field: str, case: str, server: str, group: Group = Group.SMALL) -> float | None:
    return _ratio(figures.closed(field, case, server, group), figures.closed(field, case, TUTORIAL.name, group))


def render(results: Results) -> str:
    found = targets(results)
    figures = Figures(results)
    fp32, default = (
        _to_tutorial(figures, "images_per_second", "PNG, 16 connections", server.name) for server in (FP32, DEFAULT)
    )
    rounds = max((row.round for row in results.rows(Closed)), default=0)
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"With 16 connections and one small PNG per request, Convoy answers {_number(fp32)} times as many requests "
            f"as the service of a tutorial in fp32, and {_number(default)} times as many with its default variant. "
            f"It meets {sum(target.met for target in found)} of {len(found)} targets.",
            "",
            f"`make bench` writes this page from [benchmarks.json](benchmarks.json) ({results.machine}). The client is "
            "wrk, or h2load for overload, and runs on the same cores. Every figure is the median of up to "
            f"{rounds} rounds of {results.seconds} seconds, in which the servers take turns. All servers get the same "
            f"images, and their answers are compared first. The small network is {results.small} (32 x 32); the large "
            f"one is {results.large} at 224 x 224 and gets JPEGs of 500 x 375. The tutorial is a "
            "[short FastAPI service](../benchmarks/serving/peers/tutorial.py) with one process per core. The bare loop "
            "decodes and runs batches on every core, without a server.",
            "",
            "## Targets",
            "",
            "| what | target | result | |",
            "|---|---|---|---|",
            *(target.row for target in found),
            "",
            *_ceiling(figures),
            *_closed_table("Servers of the small network", results, Group.SMALL),
            *_closed_table("Servers of the large network", results, Group.LARGE),
            *_closed_table("Other model servers, on the small network", results, Group.PEERS),
            *_bare_table(results),
            *_overload_table(results.rows(Overload)),
            *_start_table(results.rows(Start)),
            *_stage_table(results.rows(Stages)),
        ]
    )


def _ceiling(figures: Figures) -> list[str]:
    """Says which share of the bare loop any service behind this HTTP server can reach."""
    parts = [figures.of_default(field, "PNG") for field in ("decode_us", "run_us")]
    floor = figures.closed("cpu_us", "PNG, 16 connections", FLOOR.name)
    if not floor or None in parts:
        return []
    work = sum(part or 0 for part in parts)
    return [
        f"To decode a PNG and run the default variant takes {work:.0f} us of a core, and FastAPI's constant answer to "
        f"the same request {floor:.0f} us. A service that took no other time would reach {work / (work + floor):.0%} "
        "of the bare loop with one PNG per request; the client needs a part of the cores, too.",
        "",
    ]


def _closed_table(title: str, results: Results, group: Group) -> list[str]:
    figures, rows = Figures(results), results.rows(Closed, group)
    fields = ("images_per_second", "p50", "p99", "cpu_us")
    lines = []
    for case, server in dict.fromkeys((row.case, row.server) for row in rows):
        rate, p50, p99, cpu = (figures.closed(field, case, server, group) for field in fields)
        failed = sum(row.failed for row in rows if (row.case, row.server) == (case, server))
        numbers = (_number(rate, ",.0f"), _number(p50), _number(p99), _number(cpu, ",.0f"))
        lines.append(f"| {case} | {server} | {' | '.join(numbers)} | {failed} |")
    about = "The column CPU is the CPU time of all server processes per image, in microseconds."
    return _table(title, about, ("case", "server", "images/s", "p50 ms", "p99 ms", "CPU us", "failed"), lines)


def _bare_table(results: Results) -> list[str]:
    figures = Figures(results)
    lines = []
    for case, variant in dict.fromkeys((row.case, row.variant) for row in results.rows(Bare)):
        rate, *parts = (figures.bare(field, case, variant) for field in ("images_per_second", "decode_us", "run_us"))
        lines.append(
            f"| {case} | {variant} | {_number(rate, ',.0f')} | {' | '.join(_number(p, '.0f') for p in parts)} |"
        )
    return _table("The bare loop", "", ("images", "variant", "images/s", "decode us", "run us"), lines)


def _overload_table(rows: Sequence[Overload]) -> list[str]:
    lines = [
        f"| {row.case} | {row.capacity:,.0f} | {row.offered:,.0f} | {row.goodput:,.0f} | {_number(row.refusal_p50)} "
        f"| {_number(row.accepted_p99)} | {', '.join(f'{status}: {n:,}' for status, n in row.statuses.items())} |"
        for row in rows
    ]
    about = "Requests arrive at an even rate, answered or not. Each has a deadline of one second."
    heads = ("network", "capacity/s", "offered/s", "goodput/s", "median refusal ms", "p99 of answers ms", "statuses")
    return _table("Overload, by round", about, heads, lines)


def _start_table(rows: Sequence[Start]) -> list[str]:
    lines = [f"| {row.server} | {row.seconds:.2f} | {row.worker_mib:.0f} |" for row in rows]
    about = "Convoy loads three small models; the tutorial loads one. Memory is PSS, after some load."
    return _table("Start and memory, by round", about, ("server", "start to ready s", "MiB of a worker"), lines)


def _stage_table(rows: Sequence[Stages]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.us))
    lines = [f"| {name} | {' | '.join(_number(row.us.get(name), '.0f') for row in rows)} |" for name in names]
    lines.append(f"| **sum** | {' | '.join(_number(sum(row.us.values()), '.0f') for row in rows)} |")
    about = (
        "CPU microseconds of one worker per request, by samples of its stack: one PNG per request, 16 connections. "
        "The columns called before show the version whose batches ran in a thread."
    )
    return _table(
        "Where the time of one request goes",
        about,
        ("stage", *(f"{row.server}, {row.version}" for row in rows)),
        lines if rows else [],
    )


def _table(title: str, about: str, heads: Sequence[str], lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [
        f"## {title}",
        "",
        *([about, ""] if about else []),
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *lines,
        "",
    ]


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _number(value: float | None, spec: str = ".2f") -> str:
    return "not measured" if value is None else format(value, spec)
