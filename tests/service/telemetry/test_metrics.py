"""What /metrics shows, for one application and for several workers together."""

import asyncio
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from service.errors import OverloadedError
from service.telemetry.counters import RESTARTS, Counters, Totals
from service.telemetry.exposition import render
from service.telemetry.metrics import Serving, Telemetry
from service.telemetry.timings import Timings
from service.version import __version__

FP32, INT8 = Serving(3, "fp32", "CPU"), Serving(4, "int8", "CPU")
BATCH = Timings(decode=0.02, inference=0.02)


def samples(text: str) -> dict[str, float]:
    """Returns every sample by its name and labels."""
    return {
        sample.name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(telemetry: Telemetry) -> dict[str, float]:
    return samples(render(asyncio.run(telemetry.totals()), "")[0].decode())


def test_batches_and_requests_are_counted_by_model() -> None:
    telemetry = Telemetry("CPU")
    mnist = telemetry.model("mnist", 1)
    mnist.batch(3, BATCH)
    mnist.batch(0, BATCH)  # of damaged images alone
    mnist.waiting(7)
    with mnist.request(timings := Timings()):
        timings.queue = 0.02
    with pytest.raises(OverloadedError), mnist.request(Timings()):
        raise OverloadedError("full")
    telemetry.late("mnist")
    telemetry.late("")
    found = read(telemetry)
    assert found["convoy_images_total{model=mnist}"] == 3
    assert found["convoy_images_waiting{model=mnist}"] == 7
    assert found["convoy_overloaded_total{model=mnist,reason=queue}"] == 1
    assert found["convoy_deadline_missed_total{model=mnist}"] == 1
    assert found["convoy_deadline_missed_total{model=}"] == 1
    assert found["convoy_batch_images_sum{model=mnist}"] == 3
    assert found["convoy_batch_images_bucket{le=2.0,model=mnist}"] == 0
    assert found["convoy_batch_images_bucket{le=4.0,model=mnist}"] == 1
    for stage, count in (("queue", 1), ("decode", 2), ("inference", 1)):
        assert found[f"convoy_stage_seconds_bucket{{le=0.01,model=mnist,stage={stage}}}"] == 0
        assert found[f"convoy_stage_seconds_bucket{{le=0.025,model=mnist,stage={stage}}}"] == count
        assert found[f"convoy_stage_seconds_count{{model=mnist,stage={stage}}}"] == count
        assert found[f"convoy_stage_seconds_sum{{model=mnist,stage={stage}}}"] == pytest.approx(0.02 * count)


def test_a_value_on_the_bound_of_a_bucket_is_in_that_bucket() -> None:
    telemetry = Telemetry("CPU")
    for seconds in (0.5, 0.50001, 1000):
        telemetry.request("/predict", 200, seconds)
    found = read(telemetry)
    buckets = [
        found[f"convoy_request_seconds_bucket{{le={bound},route=/predict}}"] for bound in (0.25, 0.5, 1.0, 300.0)
    ]
    assert buckets == [0, 1, 2, 2]
    assert found["convoy_request_seconds_bucket{le=+Inf,route=/predict}"] == 3


def test_the_queue_of_a_model_is_the_sum_over_its_versions() -> None:
    telemetry = Telemetry("CPU")
    old, new = telemetry.model("mnist", 1), telemetry.model("mnist", 2)
    old.waiting(20)
    new.waiting(3)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 23
    new.waiting(-3)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 20
    old.waiting(-20)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 0


def test_the_counters_of_a_model_start_at_0() -> None:
    """A counter that first appears as 1 shows no rise."""
    telemetry = Telemetry("CPU")
    telemetry.model("mnist", 1)
    telemetry.loaded("mnist", succeeded=True)
    found = read(telemetry)
    for counter in ("images", "deadline_missed", "model_load_failures"):
        assert found[f"convoy_{counter}_total{{model=mnist}}"] == 0
    assert found["convoy_overloaded_total{model=mnist,reason=queue}"] == 0
    assert found["convoy_overloaded_total{model=,reason=body_memory}"] == 0
    assert found["convoy_deadline_missed_total{model=}"] == 0
    assert found["convoy_images_waiting{model=mnist}"] == 0


def test_the_version_that_answers_and_the_refused_ones_are_shown() -> None:
    telemetry = Telemetry("CPU")
    fp32 = "convoy_model_version{model=mnist,provider=CPU,variant=fp32}"
    int8 = "convoy_model_version{model=mnist,provider=CPU,variant=int8}"
    refused = "convoy_model_refused_versions{model=mnist}"
    telemetry.state("mnist", FP32, refused=1)
    assert (read(telemetry)[fp32], read(telemetry)[refused]) == (3, 1)
    telemetry.state("mnist", INT8, refused=0)
    assert [read(telemetry)[name] for name in (fp32, int8, refused)] == [0, 4, 0]
    telemetry.state("mnist", None, refused=1)
    assert [read(telemetry)[name] for name in (fp32, int8, refused)] == [0, 0, 1]


def test_a_fallback_is_shown_while_fp32_answers_in_place_of_another_variant() -> None:
    telemetry = Telemetry("CPU")
    int8, fp16 = (f"convoy_model_fallback{{model=mnist,variant={variant}}}" for variant in ("int8", "fp16"))
    telemetry.state("mnist", FP32, refused=0, fallbacks={"int8", "fp16"})
    assert [read(telemetry)[name] for name in (int8, fp16)] == [1, 1]
    telemetry.state("mnist", FP32, refused=0, fallbacks={"int8"})
    assert [read(telemetry)[name] for name in (int8, fp16)] == [1, 0]
    telemetry.state("mnist", None, refused=0)
    assert [read(telemetry)[name] for name in (int8, fp16)] == [0, 0]


def test_a_load_counts_as_succeeded_or_as_failed() -> None:
    telemetry = Telemetry("CPU")
    telemetry.loaded("mnist", succeeded=False)
    telemetry.loaded("mnist", succeeded=False)
    telemetry.loaded("mnist", succeeded=True)
    found = read(telemetry)
    assert found["convoy_model_loads_total{model=mnist}"] == 1
    assert found["convoy_model_load_failures_total{model=mnist}"] == 2


def test_build_info_names_the_versions() -> None:
    (info,) = (name for name in read(Telemetry("CUDAExecutionProvider")) if name.startswith("convoy_build_info"))
    assert f"version={__version__}" in info
    assert "provider=CUDAExecutionProvider" in info
    assert "python=3." in info
    assert "onnxruntime=1." in info


def test_two_applications_in_one_process_count_apart() -> None:
    first, second = Telemetry("CPU"), Telemetry("CPU")
    first.request("/predict", 200, 0.1)
    name = "convoy_requests_total{route=/predict,status=200}"
    assert read(first)[name] == 1
    assert name not in read(second)


def test_every_sample_is_the_same_in_openmetrics() -> None:
    telemetry = Telemetry("CPU")
    telemetry.request("/predict", 200, 0.1)
    telemetry.model("mnist", 1).batch(3, BATCH)
    text, media_type = render(asyncio.run(telemetry.totals()), "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text")
    families = openmetrics_families(text.decode())  # type: ignore[no-untyped-call]
    assert {sample.name for family in families for sample in family.samples} == {
        name.partition("{")[0] for name in read(telemetry)
    }


def test_totals_add_up_over_workers_and_keep_the_counts_of_dead_ones() -> None:
    totals = Totals()
    for version in (3, 4):
        worker = Telemetry("CPU")
        worker.request("/predict", 200, 0.02)
        worker.model("mnist", version).batch(8, BATCH)
        worker.model("mnist", version).waiting(5)
        worker.state("mnist", Serving(version, "fp32", "CPU"), refused=0)
        totals.add(worker.take(), version)
        worker.model("mnist", version).batch(2, BATCH)
        totals.add(worker.take(), version)
    found = samples(render(totals.report(), "")[0].decode())
    assert found["convoy_requests_total{route=/predict,status=200}"] == 2
    assert found["convoy_images_total{model=mnist}"] == 20
    assert found["convoy_batch_images_count{model=mnist}"] == 4
    assert found["convoy_images_waiting{model=mnist}"] == 10
    assert found["convoy_model_version{model=mnist,provider=CPU,variant=fp32}"] == 4
    totals.remove(3)
    totals.remove(4)
    found = samples(render(totals.report(), "")[0].decode())
    assert found["convoy_images_total{model=mnist}"] == 20
    assert "convoy_images_waiting{model=mnist}" not in found


def test_a_report_holds_only_what_changed_since_the_last_one() -> None:
    telemetry = Telemetry("CPU")
    telemetry.request("/predict", 200, 0.02)
    assert telemetry.take().counts["convoy_requests", "/predict", "200"] == 1
    assert telemetry.take() == ({}, {})


def test_no_increment_is_lost_between_threads() -> None:
    counters, totals = Counters(), Totals()

    def count() -> None:
        for _ in range(20_000):
            counters.add((("n",), 1))

    counting = [threading.Thread(target=count) for _ in range(4)]
    for thread in counting:
        thread.start()
    while any(thread.is_alive() for thread in counting):
        totals.add(counters.take())
    totals.add(counters.take())
    assert totals.report().counts == {("n",): 80_000}


def test_restarts_are_counted_outside_of_the_workers() -> None:
    totals = Totals()
    totals.count(RESTARTS, "killed", increment=0)
    totals.count(RESTARTS, "killed")
    found = samples(render(totals.report(), "")[0].decode())
    assert found["convoy_worker_restarts_total{cause=killed}"] == 1
