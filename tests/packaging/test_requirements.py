"""The lock files, and that no installation gets two builds of ONNX Runtime."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))
PEERS = "peers"  # the other servers of the benchmark
SHARED = [lock for lock in LOCKS if lock not in {"docs", "keras", PEERS}]  # these have environments of their own
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
PLATFORMS = (
    LINUX,
    LINUX | {"platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "os_name": "posix"},
    {"sys_platform": "win32", "platform_machine": "AMD64", "os_name": "nt"},
)


def entries(lock: str) -> list[str]:
    """One string per requirement: the lines of the file with their continuations joined."""
    text = (REQUIREMENTS / f"{lock}.txt").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def requirements(lock: str) -> list[Requirement]:
    return [Requirement(entry.partition(" --hash=")[0]) for entry in entries(lock)]


def installed(lock: str, platform: dict[str, str], python: str = "3.13") -> set[str]:
    """Returns the packages that the lock installs on this platform."""
    environment = platform | {"python_version": python, "python_full_version": f"{python}.0"}
    return {found.name for found in requirements(lock) if not found.marker or found.marker.evaluate(environment)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_has_one_version_and_a_hash(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+ ", entry), entry
        assert re.search(r" --hash=sha256:[0-9a-f]{64}\b", entry), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_index_or_another_place_to_download_from(lock: str) -> None:
    text = (REQUIREMENTS / f"{lock}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"--hash=", "", text), re.MULTILINE)


@pytest.mark.parametrize("lock", SHARED)
def test_every_lock_pins_the_versions_that_the_tests_run_with(lock: str) -> None:
    tested = {(found.name, str(found.specifier)) for name in ("dev", "cuda", "uv") for found in requirements(name)}
    assert {(found.name, str(found.specifier)) for found in requirements(lock)} <= tested


def test_the_other_servers_of_the_benchmark_run_the_same_onnx_runtime() -> None:
    versions = {
        str(found.specifier) for lock in (PEERS, "dev") for found in requirements(lock) if found.name == "onnxruntime"
    }
    assert len(versions) == 1


@pytest.mark.parametrize(
    "platform", PLATFORMS, ids=lambda platform: f"{platform['sys_platform']}-{platform['platform_machine']}"
)
@pytest.mark.parametrize("lock", SHARED)
def test_no_lock_installs_two_builds_of_onnx_runtime(lock: str, platform: dict[str, str]) -> None:
    runtimes = {name for name in installed(lock, platform) if name.startswith("onnxruntime")}
    assert len(runtimes) == (0 if lock == "uv" else 1)


def test_the_cpu_image_gets_no_cuda() -> None:
    names = installed("service-cpu", LINUX)
    assert "onnxruntime" in names
    assert not {name for name in names if "gpu" in name or name.startswith("nvidia")}


def test_the_cuda_image_gets_cuda_and_cudnn() -> None:
    assert {"onnxruntime-gpu", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cuda-runtime"} <= installed("cuda", LINUX)
