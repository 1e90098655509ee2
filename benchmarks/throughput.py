"""How many requests a second, beside the service that tutorials end with, in turns on the same machine.

    python -m benchmarks.throughput --artifacts artifacts --model digits

Writes docs/throughput.json, and docs/throughput.md from it. The client runs on the same cores, and costs all the same.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmarks.load import load, post
from benchmarks.processes import ROOT, started
from schemas.base import Frozen
from schemas.bundle import open_bundle

RESULT, TABLE = ROOT / "docs" / "throughput.json", ROOT / "docs" / "throughput.md"
TUTORIAL = "tutorial"
_BOUNDARY = "throughput"


@dataclass(frozen=True)
class Contender:
    name: str
    command: tuple[str, ...]
    field: str
    environment: dict[str, str]
    ready: str
    model: str | None = None  # whose variant it is asked for; without one it runs fp32


class Measured(Frozen):
    """Over one round. Latency in milliseconds."""

    contender: str
    variant: str
    connections: int
    requests_per_second: float
    p50: float
    p99: float
    failed: int


class Throughput(Frozen):
    model: str
    machine: str
    rounds: tuple[Measured, ...]


def contenders(bundle: Path) -> Sequence[Contender]:
    tutorial = ("-m", "uvicorn", "benchmarks.serving.peers.tutorial:app", "--log-level", "warning", "--port")
    name = bundle.parent.name
    ours = {
        "CONVOY_LOG_LEVEL": "warning",
        "CONVOY_DEFAULT_MODEL": name,
        "CONVOY_ARTIFACTS": str(bundle.parent.parent),
    }
    model = {"MODEL": str(bundle)}
    return (
        Contender(f"{TUTORIAL}, one process", tutorial, "file", model, "/openapi.json"),
        Contender(
            f"{TUTORIAL}, one process per core",
            (*tutorial[:-1], "--workers", str(os.cpu_count()), "--port"),
            "file",
            model | {"THREADS": "1"},
            "/openapi.json",
        ),
        Contender("convoy, fp32", ("-m", "service"), "files", ours | {"CONVOY_VARIANT": "fp32"}, "/readyz", name),
        Contender("convoy, default variant", ("-m", "service"), "files", ours, "/readyz", name),
    )


def measure(contender: Contender, body: bytes, connections: int, seconds: float) -> Measured:
    with started(contender.command, contender.environment, contender.ready) as (_, port):
        request = post("/predict", f"multipart/form-data; boundary={_BOUNDARY}", _form(contender.field, body))
        load(port, request, connections, seconds / 4)  # to warm up
        found = load(port, request, connections, seconds)
        variant = _variant(port, contender.model) if contender.model else "fp32"
    return Measured(
        contender=contender.name,
        variant=variant,
        connections=connections,
        requests_per_second=found.rate,
        p50=found.percentile(50),
        p99=found.percentile(99),
        failed=found.failed,
    )


def _variant(port: int, model: str) -> str:
    """That the service says it runs."""
    with urlopen(f"http://127.0.0.1:{port}/models/{model}") as answer:
        return str(json.load(answer)["variant"])


def render(result: Throughput) -> str:
    """docs/throughput.md: the best round of each contender, and its ratio to the better tutorial in the same run."""
    best = {
        connections: _best_rounds(result, connections)
        for connections in sorted({measured.connections for measured in result.rounds})
    }
    lines = [
        "# Throughput",
        "",
        *conclusion(best),
        "",
        "`python -m benchmarks.throughput` writes this page from [throughput.json](throughput.json).",
        f"Each request is one image in a form. Model: {result.model}. Machine: {result.machine}, also for the client.",
        "The tutorial is a short FastAPI service as tutorials show it.",
        "The contenders take turns, and the best of several rounds counts. The ratio is to the better tutorial.",
        "By default, the service runs the fastest variant of the bundle.",
        "",
        "| Connections | Service | Variant | Requests per second | Ratio | p50 ms | p99 ms | Failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for connections, rounds in best.items():
        lines += [
            f"| {connections} | {found.contender} | {found.variant} | {found.requests_per_second:,.0f} "
            f"| {_ratio(found, rounds):.2f} | {found.p50:.2f} | {found.p99:.2f} | {found.failed} |"
            for found in rounds
        ]
    return "\n".join([*lines, ""])


def conclusion(best: Mapping[int, Sequence[Measured]]) -> list[str]:
    """One sentence for each number of connections: the throughput of Convoy beside the better tutorial."""
    sentences = []
    for connections, rounds in sorted(best.items(), reverse=True):
        ours = [found for found in rounds if not found.contender.startswith(TUTORIAL)]
        rates = " and ".join(f"{found.requests_per_second:,.0f} requests/s with {found.variant}" for found in ours)
        ratios = " and ".join(f"{_ratio(found, rounds):.0%}" for found in ours)
        plural = "s" * (connections > 1)
        sentences.append(
            f"With {connections} connection{plural}, Convoy answers {rates}: {ratios} of the better tutorial."
        )
    return sentences


def _best_rounds(result: Throughput, connections: int) -> list[Measured]:
    return [
        max(
            (found for found in result.rounds if (found.contender, found.connections) == (name, connections)),
            key=lambda found: found.requests_per_second,
        )
        for name in dict.fromkeys(measured.contender for measured in result.rounds)
    ]


def _ratio(found: Measured, rounds: Sequence[Measured]) -> float:
    tutorials = (one.requests_per_second for one in rounds if one.contender.startswith(TUTORIAL))
    return found.requests_per_second / max(tutorials)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = max((options.artifacts / options.model).iterdir(), key=lambda version: int(version.name)).resolve()
    bundle = open_bundle(path)
    body = bundle.golden_samples()[0].image
    rounds = []
    for _ in range(options.rounds):
        for connections in (1, 32):
            for contender in contenders(path):
                rounds.append(measure(contender, body, connections, options.seconds))
                print(rounds[-1])
    result = Throughput(
        model=bundle.manifest.name,
        machine=f"{os.cpu_count()} cores, {platform.system()}",
        rounds=tuple(rounds),
    )
    RESULT.write_text(result.model_dump_json(indent=1) + "\n")
    TABLE.write_text(render(result))
    return 0


def _form(field: str, image: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    sys.exit(main())
