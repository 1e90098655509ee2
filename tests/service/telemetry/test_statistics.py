import pytest

from service.telemetry.counters import Totals
from service.telemetry.metrics import Telemetry
from service.telemetry.statistics import Duration, StatisticsOf
from service.telemetry.timings import Timings


def test_the_batches_of_two_workers_add_up_by_size() -> None:
    totals = Totals()
    for worker, sizes in enumerate(([1, 1, 8], [4, 8])):
        telemetry = Telemetry("CPU")
        model = telemetry.model("colours", 1)
        for size in sizes:
            model.batch(size, Timings(decode=1e-9, inference=2e-9, output=3e-9))
        totals.add(telemetry.take(), worker)
    statistics = StatisticsOf(totals.report()).version("colours", 1)
    assert [(batch.batch_size, batch.compute_infer.count) for batch in statistics.batch_stats] == [
        (1, 2),
        (4, 1),
        (8, 2),
    ]
    assert statistics.batch_stats[2].compute_output == Duration(count=2, ns=6)
    assert (statistics.inference_count, statistics.execution_count) == (22, 5)


def test_a_request_spends_the_time_of_its_stages() -> None:
    telemetry = Telemetry("CPU")
    model = telemetry.model("colours", 1)
    with model.request(Timings(decode=1e-9, queue=2e-9, inference=3e-9, output=4e-9)):
        pass
    with pytest.raises(ValueError, match="bad"), model.request(Timings(decode=1.0)):
        raise ValueError("bad")
    report = telemetry.take()
    stats = StatisticsOf(report).version("colours", 1).inference_stats
    stages = (stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output)
    assert stages == tuple(Duration(count=1, ns=ns) for ns in (1, 2, 3, 4))
    assert (stats.success.count, stats.fail.count) == (1, 1)


def test_a_version_without_requests_has_no_statistics() -> None:
    statistics = StatisticsOf(Telemetry("CPU").take()).version("colours", 1)
    assert statistics.model_dump(exclude_defaults=True) == {
        "name": "colours",
        "version": "1",
        "last_inference": 0,
        "inference_count": 0,
        "execution_count": 0,
        "inference_stats": {
            what: {} for what in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        },
        "batch_stats": (),
    }
