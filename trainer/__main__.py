import os
import signal
import sys

# These are read at the libraries' import. ONNX Runtime's official builds report usage unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenMP's threads spin for milliseconds at each barrier before they sleep: where another process wants the same cores
# a run was forty times slower. A short spin is as fast on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from trainer.cli.main import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill cleans up as Ctrl-C does
sys.exit(main(sys.argv[1:]))
