import os
import sys

# ONNX Runtime's official builds report usage unless told not to before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from trainer.cli import main

sys.exit(main(sys.argv[1:]))
