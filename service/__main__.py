"""`python -m service`: serves artifacts/ as the CONVOY_* variables say."""

import os
import sys

# Read when the library is imported: ONNX Runtime's official builds report usage unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from service.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
