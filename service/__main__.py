"""`python -m service`: serves artifacts/ as the CONVOY_* variables say.

A request goes through api/ (HTTP), codecs/ (bytes to images, within limits), inference/ (the transport-free core, with
admission and batches) and backends/ (ONNX Runtime). repository/registry.py holds the models that are live;
repository/coordinator.py decides which those are. workers/ spreads it over worker processes.
"""

import os
import sys

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> int:
    """The exit status: the supervisor's, or that of ^C before the supervisor takes signals."""
    # Read when the library is imported: ONNX Runtime's official builds report usage unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        from service.workers import supervisor  # noqa: PLC0415 - it takes a while, in which somebody may think better of it

        return supervisor.main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
