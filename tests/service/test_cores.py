from pathlib import Path

import pytest

from service.settings import usable_cores, worker_count

UNLIMITED = Path("nowhere")


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("12:cpu,cpuacct:/docker/1\n0::/system.slice/convoy.service\n")
    return path


def test_without_a_limit_there_is_a_core_at_least(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, UNLIMITED) >= 1
    write(tmp_path, cpu__max="max 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == usable_cores(UNLIMITED, UNLIMITED)


def test_a_containers_share_of_time_counts_and_is_one_core_at_least(tmp_path: Path) -> None:
    write(tmp_path, cpu__max="150000 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == 1
    write(tmp_path, cpu__max="50000 100000\n")
    assert usable_cores(tmp_path, UNLIMITED) == 1


def test_a_limit_on_a_group_above_ours_counts(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "root" / "system.slice" / "convoy.service", cpu__max="max 100000\n")
    write(tmp_path / "root" / "system.slice", cpu__max="100000 100000\n")
    assert usable_cores(tmp_path / "root", membership) == 1


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path, membership: Path) -> None:
    write(tmp_path / "root" / "cpu" / "docker" / "1", cpu__cfs_quota_us="100000\n", cpu__cfs_period_us="100000\n")
    assert usable_cores(tmp_path / "root", membership) == 1
    write(tmp_path / "root" / "cpu" / "docker" / "1", cpu__cfs_quota_us="-1\n")
    assert usable_cores(tmp_path / "root", membership) == usable_cores(UNLIMITED, UNLIMITED)


def test_auto_is_a_worker_a_core_and_on_a_gpu_one() -> None:
    assert worker_count("auto", gpu=False) == usable_cores()
    assert worker_count("auto", gpu=True) == 1
    assert worker_count(3, gpu=False) == worker_count(3, gpu=True) == 3
