import os
import signal
import sys

# These are read at the libraries' import. ONNX Runtime's official builds report usage unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Threads that wait by spinning slow a run down up to eighty-fold where another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from trainer.cli import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill cleans up as Ctrl-C does
sys.exit(main(sys.argv[1:]))
