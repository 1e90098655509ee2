from pathlib import Path

from benchmarks.load import load, post
from benchmarks.processes import started
from benchmarks.throughput import Measured, Throughput, render
from tests.support.bundles import solid, write_bundle


def measured(contender: str, rate: float) -> Measured:
    return Measured(
        contender=contender, variant="fp32", connections=32, requests_per_second=rate, p50=1.0, p99=2.0, failed=0
    )


def test_the_ratio_is_to_the_better_tutorial_and_the_best_rounds_count() -> None:
    rates = {
        "tutorial, one process": (90.0, 100.0),
        "tutorial, one process per core": (200.0, 150.0),
        "convoy, fp32": (250.0, 300.0),
    }
    rounds = tuple(measured(name, found[i]) for i in range(2) for name, found in rates.items())
    text = render(Throughput(model="digits", machine="a laptop", rounds=rounds))
    assert "| 32 | tutorial, one process | fp32 | 100 | 0.50 |" in text
    assert "| 32 | convoy, fp32 | fp32 | 300 | 1.50 |" in text
    assert "With 32 connections, Convoy answers 300 requests/s with fp32: 150% of the better tutorial." in text


def test_the_client_counts_answers_and_failures(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with started(("-m", "service"), {"CONVOY_ARTIFACTS": str(tmp_path), "CONVOY_WORKERS": "1"}) as (_, port):
        good = load(port, post("/predict", "image/png", solid("red")), connections=2, seconds=0.3)
        bad = load(port, post("/predict", "image/png", b"no image"), connections=2, seconds=0.3)
    assert good.requests > 0
    assert good.failed == 0
    assert bad.failed == bad.requests > 0
    assert 0 < good.percentile(50) <= good.percentile(99)
