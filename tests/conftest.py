import os
import signal
from pathlib import Path

import pytest

# As the two programs' __main__ do, before anything imports torch or ONNX Runtime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# What a shell starts in the background ignores ^C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TEST_DATA = "CONVOY_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (MNIST/raw, photos-sample); tests that need it skip where there is none."""
    folder = os.environ.get(TEST_DATA)
    if not folder:
        pytest.skip(f"{TEST_DATA} names no folder of real data sets")
    return Path(folder)
