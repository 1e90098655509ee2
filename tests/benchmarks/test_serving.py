import shutil
from pathlib import Path

import pytest

from benchmarks.processes import started
from benchmarks.serving.load import Request, closed_loop, open_loop
from benchmarks.serving.report import render
from benchmarks.serving.results import Bare, Closed, Group, Overload, Results, Stages
from benchmarks.serving.stages import EVENT_LOOP, samples_by_stage, shares, stage_of
from tests.support.bundles import solid, write_bundle

CASE = "PNG, 16 connections"


def closed(server: str, rate: float, number: int) -> Closed:
    return Closed(
        case=CASE, server=server, round=number, images_per_second=rate, p50=1.0, p99=2.0, cpu_us=300.0, failed=0
    )


def results(**groups: tuple[Bare | Closed | Overload | Stages, ...]) -> Results:
    found = {Group(name): rows for name, rows in groups.items()}
    return Results(machine="a laptop", small="small", large="large", seconds=3, groups=found)


def test_a_target_compares_the_medians_of_all_rounds() -> None:
    rates = {"tutorial": (100.0, 90.0, 110.0), "convoy fp32": (210.0, 20.0, 215.0), "convoy default": (290.0,)}
    page = render(results(small=tuple(closed(name, rate, 1) for name, found in rates.items() for rate in found)))
    assert f"| {CASE}, convoy fp32: requests/s to the tutorial's | at least 2 x | 2.1 x | met |" in page
    assert f"| {CASE}, convoy default: requests/s to the tutorial's | at least 3 x | 2.9 x | missed |" in page
    assert "| PNG, 64 connections, convoy fp32: requests/s to the tutorial's | at least 2 x | not measured |  |" in page


def test_results_of_another_group_do_not_change_a_target() -> None:
    page = render(results(peers=(closed("tutorial", 1.0, 1), closed("convoy fp32", 9.0, 1))))
    assert f"| {CASE}, convoy fp32: requests/s to the tutorial's | at least 2 x | not measured |  |" in page


def test_the_page_says_what_share_of_the_bare_loop_any_service_can_reach() -> None:
    bare = Bare(case="PNG", variant="int8", round=1, images_per_second=6000.0, decode_us=100.0, run_us=200.0)
    page = render(results(small=(closed("FastAPI, constant answer", 1.0, 1), bare)))
    assert "takes 300 us of a core" in page
    assert "would reach 50% of the bare loop" in page
    assert "of the bare loop with one PNG" not in render(results(small=(bare,)))


def test_results_survive_their_file() -> None:
    stages = Stages(version="now", server="convoy fp32", us={"run": 100.0})
    before = results(small=(closed("tutorial", 1.0, 1),), stages=(stages,))
    assert Results.model_validate_json(before.model_dump_json()) == before


def test_the_innermost_known_frame_names_the_stage() -> None:
    stack = "main (/a/service/workers/worker.py:9);run (/b/service/inference/batcher.py:3);"
    assert stage_of(stack + "add (/b/service/telemetry/counters.py:7);append (/usr/lib/list.py:1)") == "counters"
    assert stage_of("poll (/usr/lib/asyncio/events.py:80)") == EVENT_LOOP
    assert stage_of("main (/a/service/workers/worker.py:9);run (/usr/lib/asyncio/runners.py:1)") == EVENT_LOOP


def test_a_thread_that_waits_for_a_lock_is_not_counted() -> None:
    batch = "work (/a/service/inference/batcher.py:9)"
    waiting = f"{batch};wait (/usr/lib/python3.11/threading.py:320)"
    assert samples_by_stage([f"{batch} 3", f"{waiting} 5", f"{batch} 1"]) == {"queue and batch": 4}


def test_shares_add_up_to_the_total() -> None:
    assert shares({"run": 30, EVENT_LOOP: 10}, 400.0) == {"run": 300.0, EVENT_LOOP: 100.0}


@pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("h2load")), reason="needs wrk and h2load")
def test_both_loads_count_answers_and_failures(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    good, bad = Request("/predict", "image/png", solid("red")), Request("/predict", "image/png", b"no image")
    with started(("-m", "service"), {"CONVOY_ARTIFACTS": str(tmp_path), "CONVOY_WORKERS": "1"}) as (_, port):
        answered, refused = closed_loop(port, good, 2, seconds=1), closed_loop(port, bad, 2, seconds=1)
        opened = open_loop(port, bad, rate=50, seconds=1, deadline=20)
    assert answered.requests > 0
    assert answered.failed == 0
    assert 0 < answered.p50 <= answered.p99
    assert refused.failed == refused.requests > 0
    assert {status: len(found) for status, found in opened.latencies.items()} == {422: 50}
