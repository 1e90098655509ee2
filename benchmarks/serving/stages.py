"""Where the CPU time of a request goes: samples of a worker's stack under load, by the part of the code."""

import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT

PY_SPY = ROOT / ".venv-peers" / "bin" / "py-spy"
SAMPLES_PER_SECOND = 250

EVENT_LOOP = "event loop and system calls"

# The innermost frame whose path contains one of these decides; more specific parts come first.
_STAGES = {
    "/uvicorn/": "HTTP: parse and write",
    "/service/workers/http_limits.py": "HTTP: parse and write",
    "/service/workers/worker.py": EVENT_LOOP,
    "/service/workers/": "request ID, headers, timing",
    "/service/api/middleware": "request ID, headers, timing",
    "/starlette/middleware/": "request ID, headers, timing",
    "/starlette/routing": "route and key",
    "/fastapi/": "route and key",
    "/service/telemetry/": "counters",
    "/service/api/direct_routes.py": "route and key",
    "/service/api/auth.py": "route and key",
    "/service/api/": "version, deadline, body",
    "/service/repository/": "version, deadline, body",
    "/service/codecs/": "form",
    "/service/inference/predictions.py": "JSON",
    "/schemas/prediction.py": "JSON",
    "/pydantic/": "JSON",
    "/service/inference/inputs.py": "decode",
    "/schemas/": "decode",
    "/service/backends/": "run",
    "/service/inference/": "queue and batch",
}
STAGES = tuple(dict.fromkeys(_STAGES.values()))

# py-spy reports a thread as busy while it waits for a lock.
_WAITING = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py")


@contextmanager
def sampling(pid: int, seconds: int) -> Iterator[Counter[str]]:
    """Samples the process during the block. The counter is filled after the block: samples by stage."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks.txt"
        options = (
            "--full-filenames",
            "--rate",
            str(SAMPLES_PER_SECOND),
            "--duration",
            str(seconds),
            "--format",
            "raw",
            "--threads",
        )
        command = [str(PY_SPY), "record", *options, "--pid", str(pid), "--output", str(file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recorder:  # noqa: S603
            yield found
        if recorder.returncode:
            raise SystemExit(f"py-spy ended with status {recorder.returncode}; it must be allowed to trace processes.")
        found.update(samples_by_stage(file.read_text().splitlines()))


def samples_by_stage(lines: Iterable[str]) -> Counter[str]:
    """Counts the samples of py-spy's raw format, `stack count`, without threads that wait."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if not any(file in stack.rsplit(";", 1)[-1] for file in _WAITING):
            found[stage_of(stack)] += int(count)
    return found


def stage_of(stack: str) -> str:
    """Returns the stage of a stack in py-spy's format: `function (path:line)`, outermost first, with semicolons."""
    for frame in reversed(stack.split(";")):
        for part, stage in _STAGES.items():
            if part in frame:
                return stage
    return EVENT_LOOP


def shares(samples: Mapping[str, int], total: float) -> dict[str, float]:
    """Divides the total among the stages, in the order of a request."""
    number = sum(samples.values())
    return {stage: total * samples.get(stage, 0) / number for stage in STAGES if stage in samples}
