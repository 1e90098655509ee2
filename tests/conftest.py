import os
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

# As the two programs' __main__ do, before anything imports torch or ONNX Runtime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Several processes run tests at the same time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background ignores ^C, and what nohup starts ignores SIGHUP; the programs that tests start
# would inherit that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# The time of one example depends on what else the machine does.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

TEST_DATA = "CONVOY_TEST_DATA"
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (MNIST/raw, photos-sample); tests that need it skip where there is none."""
    folder = os.environ.get(TEST_DATA)
    if not folder:
        pytest.skip(f"{TEST_DATA} names no folder of real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Returns a folder that the first process to ask for it fills, for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                fill(folder)
                filled.touch()
        return folder

    return folder_of
