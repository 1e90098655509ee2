"""How many cores this process may use, and how many worker processes they are for."""

import math
import os
from pathlib import Path, PurePosixPath
from typing import Literal

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """In a container fewer than the machine's: the cores it is bound to count, and its share of their time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(bound, _share(cgroups, membership))))


def worker_count(wanted: Literal["auto"] | int, *, gpu: bool) -> int:
    """auto: one process a core, or one alone where a GPU does the work."""
    if wanted != "auto":
        return wanted
    return 1 if gpu else usable_cores()


def _share(cgroups: Path, membership: Path) -> float:
    """Cores' worth of time that Linux allows the control group, or one above it; infinite without a limit."""
    share = math.inf
    for group in _groups(cgroups, membership):
        limits = (
            _quota(group / "cpu.max"),  # version 2: "quota period" in one file
            _quota(group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"),  # version 1
        )
        share = min(share, *limits)
    return share


def _groups(cgroups: Path, membership: Path) -> list[Path]:
    """The folders that may hold a limit. In a container the root of what is seen is the container's own group."""
    groups = [cgroups, cgroups / "cpu"]
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return groups
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in {"", "cpu", "cpu,cpuacct"}:
            continue
        root = cgroups / "cpu" if controllers else cgroups
        path = PurePosixPath(name.lstrip("/"))
        groups += [root / part for part in (path, *path.parents)]
    return groups


def _quota(*files: Path) -> float:
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or the word max
        return math.inf
