"""The figures, of one application and of several processes together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import MULTIPROCESS_DIR, Telemetry
from service.telemetry.observer import Serving, Stage
from service.version import __version__

REPOSITORY = Path(__file__).parents[3]
FP32, INT8 = Serving(3, "fp32", "CPU"), Serving(4, "int8", "CPU")

# A worker that counts, sets its gauges and dies without a word; its argument is the version that it serves.
WORKER = """
import os, sys
from service.telemetry.observer import Serving, Stage
from service.telemetry.metrics import Telemetry
version = int(sys.argv[1])
telemetry = Telemetry("CPU")
telemetry.request("/predict", 200, 0.02)
telemetry.loaded("mnist", succeeded=True)
telemetry.state("mnist", Serving(version, "fp32", "CPU"), refused=0)
observer = telemetry.observer("mnist")
observer.answered(10)
observer.waiting(5)
observer.batch(8)
observer.stage(Stage.DECODE, 0.001)
print(os.getpid(), flush=True)
os._exit(9)
"""
READER = "from service.telemetry.metrics import Telemetry; print(Telemetry('CPU').render('')[0].decode())"


def figures(text: str) -> dict[str, float]:
    """Every sample by its name with its labels, those of time of creation left out."""
    return {
        sample.name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def read(telemetry: Telemetry) -> dict[str, float]:
    return figures(telemetry.render("")[0].decode())


def test_what_the_core_tells_is_counted_by_model() -> None:
    telemetry = Telemetry("CPU")
    observer = telemetry.observer("mnist")
    observer.answered(3)
    observer.batch(3)
    observer.waiting(7)
    observer.overloaded()
    telemetry.late("mnist")
    telemetry.late("")
    for stage in Stage:
        observer.stage(stage, 0.02)
    said = read(telemetry)
    assert said["convoy_images_total{model=mnist}"] == 3
    assert said["convoy_images_waiting{model=mnist}"] == 7
    assert said["convoy_overloaded_total{model=mnist,reason=queue}"] == 1
    assert said["convoy_deadline_missed_total{model=mnist}"] == 1
    assert said["convoy_deadline_missed_total{model=}"] == 1
    assert said["convoy_batch_images_sum{model=mnist}"] == 3
    assert said["convoy_batch_images_bucket{le=2.0,model=mnist}"] == 0
    assert said["convoy_batch_images_bucket{le=4.0,model=mnist}"] == 1
    for stage in Stage:
        assert said[f"convoy_stage_seconds_bucket{{le=0.01,model=mnist,stage={stage}}}"] == 0
        assert said[f"convoy_stage_seconds_bucket{{le=0.025,model=mnist,stage={stage}}}"] == 1


def test_the_queue_of_a_model_is_the_sum_over_its_versions() -> None:
    telemetry = Telemetry("CPU")
    old, new = telemetry.observer("mnist"), telemetry.observer("mnist")
    old.waiting(20)
    new.waiting(3)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 23
    new.waiting(-3)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 20
    old.waiting(-20)
    assert read(telemetry)["convoy_images_waiting{model=mnist}"] == 0


def test_the_figures_of_a_model_are_there_before_anything_was_asked() -> None:
    """A counter that first appears as 1 shows no rise."""
    telemetry = Telemetry("CPU")
    telemetry.observer("mnist")
    telemetry.loaded("mnist", succeeded=True)
    said = read(telemetry)
    for counter in ("images", "deadline_missed", "model_load_failures"):
        assert said[f"convoy_{counter}_total{{model=mnist}}"] == 0
    assert said["convoy_overloaded_total{model=mnist,reason=queue}"] == 0
    assert said["convoy_overloaded_total{model=,reason=body_memory}"] == 0
    assert said["convoy_deadline_missed_total{model=}"] == 0


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


def test_it_is_shown_while_fp32_answers_in_place_of_another_variant() -> None:
    telemetry = Telemetry("CPU")
    int8, fp16 = (f"convoy_model_fallback{{model=mnist,variant={variant}}}" for variant in ("int8", "fp16"))
    telemetry.state("mnist", FP32, refused=0, fallbacks={"int8", "fp16"})
    assert [read(telemetry)[name] for name in (int8, fp16)] == [1, 1]
    telemetry.state("mnist", FP32, refused=0, fallbacks={"int8"})
    assert [read(telemetry)[name] for name in (int8, fp16)] == [1, 0]
    telemetry.state("mnist", None, refused=0)
    assert [read(telemetry)[name] for name in (int8, fp16)] == [0, 0]


def test_a_load_counts_as_done_or_as_failed() -> None:
    telemetry = Telemetry("CPU")
    telemetry.loaded("mnist", succeeded=False)
    telemetry.loaded("mnist", succeeded=False)
    telemetry.loaded("mnist", succeeded=True)
    said = read(telemetry)
    assert said["convoy_model_loads_total{model=mnist}"] == 1
    assert said["convoy_model_load_failures_total{model=mnist}"] == 2


def test_build_info_says_what_runs() -> None:
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


def python(code: str, *arguments: object, folder: Path) -> str:
    environment = os.environ | {MULTIPROCESS_DIR: str(folder)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return ended.stdout


@pytest.mark.timeout(120)
def test_the_figures_of_several_processes_are_whole_also_after_they_died(tmp_path: Path) -> None:
    workers = [int(python(WORKER, version, folder=tmp_path)) for version in (3, 4)]
    said = figures(python(READER, folder=tmp_path))
    assert said["convoy_requests_total{route=/predict,status=200}"] == 2
    assert said["convoy_images_total{model=mnist}"] == 20
    assert said["convoy_model_loads_total{model=mnist}"] == 2
    assert said["convoy_batch_images_count{model=mnist}"] == 2
    assert said["convoy_stage_seconds_count{model=mnist,stage=decode}"] == 2
    assert said["convoy_images_waiting{model=mnist}"] == 10
    assert said["convoy_model_version{model=mnist,provider=CPU,variant=fp32}"] == 4
    assert not [name for name in said if "pid=" in name]
    for worker in workers:
        mark_process_dead(worker, str(tmp_path))  # type: ignore[no-untyped-call]
    said = figures(python(READER, folder=tmp_path))
    assert said["convoy_images_total{model=mnist}"] == 20
    assert "convoy_images_waiting{model=mnist}" not in said
