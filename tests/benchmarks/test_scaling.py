from benchmarks.scaling import LOAD, PAGE, RATES, RESULTS, BatchScoring, read_batch, render, tables
from benchmarks.serving.results import Closed, Group, Results

CASE = "PNG, 16 connections"


def results(**cpu_us: float) -> Results:
    rows = tuple(
        Closed(case=CASE, server=server, round=1, images_per_second=1, p50=1, p99=1, cpu_us=us, failed=0)
        for server, us in cpu_us.items()
    )
    return Results(machine="a laptop", small="small", large="large", seconds=3, groups={Group.SMALL: rows})


def cells(line: str) -> list[str]:
    return line.strip("| ").split(" | ")


def test_the_page_has_the_figures_of_the_measurements() -> None:
    page = PAGE.read_text()
    wanted = render(page, Results.model_validate_json(RESULTS.read_text()), read_batch())
    assert page == wanted, "Run: python -m benchmarks.scaling"
    assert page.count("<!-- begin ") == len(tables(results(), None))


def test_cores_grow_with_the_rate_and_leave_room_for_peaks() -> None:
    found = tables(results(**{"convoy default": 600.0}), None)
    row = cells(found["cores"][2])
    assert row[:3] == ["small network, one PNG per request", "600", "0.17"]
    assert RATES[-1] == 100_000
    assert row[-1] == f"{100_000 * 600e-6 / LOAD:.0f}" == "100"
    assert row[3] == "0.001"
    assert cells(found["pods"][2])[1:] == ["2", "2", "2", "2", "5", "50"]


def test_the_pods_carry_the_load_if_one_fails() -> None:
    found = tables(results(**{"convoy default": 220.0}), None)
    assert cells(found["pods"][2])[1:] == ["2", "2", "2", "2", "3", "19"]


def test_a_figure_that_is_missing_is_not_invented() -> None:
    found = tables(results(), None)
    assert all(cells(line)[1:] == ["not measured"] * (2 + len(RATES)) for line in found["cores"][2:])
    assert "not measured" in found["ray"][0]


def test_batch_scoring_keeps_every_core_busy() -> None:
    batch = BatchScoring(images=100, cores=2, images_per_second={"score": 4000.0, "bare loop": 5000.0})
    assert cells(tables(results(), batch)["cores"][-1])[1] == "500"
