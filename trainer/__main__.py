"""`convoy-train` and `python -m trainer`: the command line. Sets the variables that libraries read on import."""

import gc
import os
import signal
import sys


def main() -> int:
    """Returns the exit status."""
    # ONNX Runtime's official builds send usage data unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # OpenMP threads spin for milliseconds at each barrier before they sleep. If another process needs the same cores,
    # that slows a run many times over. A short spin is as fast on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # NumPy's and scikit-learn's BLAS: two threads share the small products of the linear probe at a tenth of the speed.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # PyTorch and its exporter create a million objects that stay. With Python's default threshold, searching them for
    # garbage slows the imports.
    gc.set_threshold(100_000)
    try:
        from trainer.cli import main as cli  # noqa: PLC0415 - it imports the libraries that read these variables

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM cleans up as Ctrl-C does
        return cli.main(sys.argv[1:])
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: the package '{error.name}' is not installed; install the extra [trainer].\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
