import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.manifest import VariantName
from tests.support.bundles import COLOURS, solid, write_bundle, write_solid
from tests.support.service_process import REPOSITORY
from tests.support.trainer_process import run_trainer
from trainer.batch_scoring.job import Job, score_part
from trainer.batch_scoring.source import PART_IMAGES, list_parts
from trainer.cli.main import INTERRUPTED, main
from trainer.errors import DataError

NAMES = list(COLOURS)


def write_photos(folder: Path, each: int) -> Path:
    """Writes folders named by class."""
    for name in NAMES:
        for i in range(each):
            write_solid(folder / name / f"{i}.png", name, (8 + i, 8))
    return folder


def table_of(columns: dict[str, list[Any]], path: Path, rows: int = 4) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Returns all rows, read as the folder that they are in, in the order of the parts."""
    rows: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return rows


def score(*arguments: object) -> int:
    return main(["score", *map(str, arguments)])


def start(*arguments: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer", "score", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.DEVNULL)


def score_without_processes(job: Job) -> None:
    for part in job.begin(list_parts(job.source)):
        score_part(job, part)


def test_scores_every_image_of_a_folder_and_takes_the_label_from_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    write_solid(photos / ".hidden" / "x.png", "red")
    (photos / "notes.txt").write_text("not a photo")
    write_solid(photos / "other" / "a[1]*.png", "red")
    (photos / "red" / "damaged.png").write_bytes(b"no image")
    os.mkfifo(photos / "red" / "pipe.png")
    assert score(write_bundle(tmp_path), photos, tmp_path / "out") == 0
    output = capsys.readouterr()
    assert "scored 9 images" in output.out
    assert "Unreadable images: 2." in output.err
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 9
    bad = rows.pop("red/damaged.png")
    assert "not an image of a supported format" in bad["error"]
    assert bad["prediction"] is bad["probability"] is None
    assert "not a regular file" in rows.pop("red/pipe.png")["error"]
    other = rows.pop("other/a[1]*.png")
    assert (other["label"], other["prediction"]) == (None, "red")
    for name, row in rows.items():
        assert row["label"] == row["prediction"] == name.partition("/")[0]
        assert row["probability"] > 0.9
        assert row["error"] is None


def test_gives_the_probabilities_that_predict_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, photos = write_bundle(tmp_path, scale=1.0), write_photos(tmp_path / "photos", 2)
    assert score(bundle, photos, tmp_path / "out") == 0
    capsys.readouterr()
    assert main(["predict", str(bundle), str(photos), "--json"]) == 0
    expected = {str(Path(row["file"]).relative_to(photos)): row for row in json.loads(capsys.readouterr().out)}
    rows = rows_of(tmp_path / "out")
    assert len(rows) == len(expected)
    for row in rows:
        assert row["prediction"] == expected[row["id"]]["label"]
        assert row["probability"] == pytest.approx(expected[row["id"]]["probability"], abs=1e-6)


def test_scores_parquet_files_with_images_as_bytes_or_as_hugging_face_writes_them(tmp_path: Path) -> None:
    source = tmp_path / "tables"
    source.mkdir()
    images = [solid(name) for name in NAMES * 2]
    table_of({"image": images, "label": [0, 1, 2, 0, 1, 9], "id": list(range(10, 16))}, source / "a.parquet")
    table_of({"image": [{"bytes": images[0], "path": "x.png"}, {"bytes": None, "path": "y.png"}]}, source / "b.parquet")
    assert score(write_bundle(tmp_path), source, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == ["10", "11", "12", "13", "14", "15", "b.parquet#0", "b.parquet#1"]
    assert [row["prediction"] for row in rows] == [*NAMES * 2, "red", None]
    assert [row["label"] for row in rows] == ["red", "green", "blue", "red", "green", None, None, None]
    assert "no encoded image" in rows[-1]["error"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_job.json",
        "part-000000.parquet",
        "part-000001.parquet",
        "part-000002.parquet",
    ]


def test_reads_and_writes_any_file_system_of_fsspec(tmp_path: Path) -> None:
    memory, place = fsspec.filesystem("memory"), uuid.uuid4().hex
    for name in NAMES:
        memory.pipe_file(f"/{place}/in/{name}/0.png", solid(name))
    job = Job(write_bundle(tmp_path), VariantName.FP32, f"memory://{place}/in", f"memory://{place}/out")
    score_without_processes(job)
    with memory.open(f"/{place}/out/part-000000.parquet") as file:
        rows = pq.read_table(file).to_pylist()
    assert [(row["id"], row["prediction"]) for row in rows] == sorted((f"{name}/0.png", name) for name in NAMES)
    assert job.begin(list_parts(job.source)) == []


def test_a_second_run_scores_only_the_parts_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = write_bundle(tmp_path), tmp_path / "out"
    source = table_of({"image": [solid(name) for name in NAMES * 4]}, tmp_path / "a.parquet")
    assert score(bundle, source, out) == 0
    before = rows_of(out)
    assert len(before) == 12
    kept, lost = out / "part-000000.parquet", out / "part-000001.parquet"
    written = kept.stat().st_mtime_ns
    lost.unlink()
    assert score(bundle, source, out) == 0
    output = capsys.readouterr()
    assert "2 of 3 parts are finished already" in output.err
    assert "scored 4 images" in output.out
    assert rows_of(out) == before
    assert kept.stat().st_mtime_ns == written


def test_refuses_to_mix_the_scores_of_two_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = write_photos(tmp_path / "photos", 1), tmp_path / "out"
    assert score(write_bundle(tmp_path), photos, out) == 0
    assert score(write_bundle(tmp_path, version=2, scale=2.0), photos, out) == 2
    assert "scores of another job" in capsys.readouterr().err
    (photos / "red" / "new.png").write_bytes(solid("red"))
    assert score(tmp_path / "colours" / "1", photos, out) == 2


def test_refuses_a_folder_of_other_parquet_files(tmp_path: Path) -> None:
    bundle, photos = write_bundle(tmp_path), write_photos(tmp_path / "photos", 1)
    table_of({"x": [1]}, tmp_path / "mine.parquet")
    with pytest.raises(DataError, match="other Parquet files"):
        score_without_processes(Job(bundle, VariantName.FP32, str(photos), str(tmp_path)))


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("photos/scores", "the next run would read it"),
        ("photos", "the next run would read it"),
        ("photos/red/0.png", "the next run would read it"),
        ("file", "File exists"),
        ("file/scores", "Not a directory"),
    ],
)
def test_says_what_is_wrong_with_the_folder_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, sentence: str
) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    (tmp_path / "file").touch()
    assert score(write_bundle(tmp_path), photos, tmp_path / out) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("_job.json"))


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing", "does not exist"),
        ("empty", "holds no image files and no Parquet files"),
        ("one.png", "is not a Parquet file"),
        ("nosuch://x", "cannot be opened"),
        ("bad.parquet", "cannot be read as Parquet"),
        ("other.parquet", "has no column 'image'"),
    ],
)
def test_says_what_is_wrong_with_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.png").write_bytes(solid("red"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    table_of({"picture": [b"x"]}, tmp_path / "other.parquet")
    where = source if "://" in source else tmp_path / source
    assert score(write_bundle(tmp_path), where, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_folder_is_divided_into_parts_of_a_fixed_size_in_the_order_of_the_names(tmp_path: Path) -> None:
    for i in range(PART_IMAGES + 1):
        (tmp_path / f"{i:05d}.png").touch()
    first, second = list_parts(str(tmp_path))
    assert [len(first), len(second)] == [PART_IMAGES, 1]
    assert [next(second.read(str(tmp_path), 5))[0].id] == [f"{PART_IMAGES:05d}.png"]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["the processes", "the first process"])
def test_a_killed_job_continues_and_ends_with_every_row_once(tmp_path: Path, kill: Callable[[int, int], None]) -> None:
    bundle, out = write_bundle(tmp_path), tmp_path / "out"
    source = table_of({"image": [solid(name) for name in NAMES] * 2000}, tmp_path / "a.parquet", rows=40)
    process = start(bundle, source, out)
    while process.poll() is None and not list(out.glob("part-*")):
        os.sched_yield()
    workers = psutil.Process(process.pid).children()
    kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    done = len(list(out.glob("part-*")))
    assert 0 < done < 150
    ended = run_trainer("score", bundle, source, out)
    assert "of 150 parts are finished already" in ended.stderr
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [f"a.parquet#{i}" for i in range(6000)]
    assert all(row["prediction"] == NAMES[i % 3] for i, row in enumerate(rows))


@pytest.mark.slow
@pytest.mark.skipif(os.cpu_count() == 1, reason="one process does all the work")
def test_an_interrupted_job_ends_the_parts_that_run(tmp_path: Path) -> None:
    bundle, out = write_bundle(tmp_path), tmp_path / "out"
    source = table_of({"image": [solid(name) for name in NAMES] * 4000}, tmp_path / "a.parquet", rows=6000)
    process = start(bundle, source, out)
    parent = psutil.Process(process.pid)
    while sum("spawn_main" in " ".join(child.cmdline()) for child in parent.children()) < 2:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    assert process.wait() == INTERRUPTED
    assert list(out.glob("part-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [ray] is not installed")
def test_ray_gives_the_same_rows(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    source = table_of({"image": [solid(name) for name in NAMES * 4]}, tmp_path / "a.parquet")
    run_trainer("score", bundle, source, tmp_path / "here")
    # "local": not the cluster that another test may have started
    run_trainer("score", bundle, source, tmp_path / "ray", "--ray", env=os.environ | {"RAY_ADDRESS": "local"})
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "here")
    assert len(rows_of(tmp_path / "ray")) == 12
