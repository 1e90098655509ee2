"""The decode and run of the tutorial's service, for the other servers."""

import io
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

Pixels = npt.NDArray[np.uint8]


class PeerModel:
    def __init__(self) -> None:
        bundle = Path(os.environ["MODEL"])
        manifest = json.loads((bundle / "manifest.json").read_text())
        self.labels = manifest["labels"]
        self.size = (manifest["input"]["width"], manifest["input"]["height"])
        self.mode = "RGB" if manifest["input"]["channels"] == 3 else "L"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def decode(self, data: bytes) -> Pixels:
        image = Image.open(io.BytesIO(data)).convert(self.mode).resize(self.size)
        return np.asarray(image, dtype=np.uint8).reshape(*reversed(self.size), -1)

    def answers(self, pixels: Pixels) -> list[dict[str, object]]:
        rows = self.session.run(["probabilities"], {"images": pixels})[0]
        best = rows.argmax(1).tolist()
        return [{"label": self.labels[i], "probability": float(row[i])} for i, row in zip(best, rows, strict=True)]
