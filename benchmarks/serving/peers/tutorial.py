"""The service of a typical tutorial, as a baseline: one file, a session at import, one image per request.

    MODEL=artifacts/digits/1 uvicorn benchmarks.serving.peers.tutorial:app

It resizes the image and returns the most probable class. Normalisation is in the graph, which is to its advantage.
"""

import io
import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, File, UploadFile
from PIL import Image

bundle = Path(os.environ["MODEL"])
manifest = json.loads((bundle / "manifest.json").read_text())
height, width = manifest["input"]["height"], manifest["input"]["width"]
mode = "RGB" if manifest["input"]["channels"] == 3 else "L"

options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ.get("THREADS", "0"))
session = ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
def predict(file: Annotated[UploadFile, File()]) -> dict[str, object]:
    image = Image.open(io.BytesIO(file.file.read())).convert(mode).resize((width, height))
    pixels = np.asarray(image, dtype=np.uint8).reshape(1, height, width, -1)
    probabilities = session.run(["probabilities"], {"images": pixels})[0][0]
    index = int(probabilities.argmax())
    return {"label": manifest["labels"][index], "probability": float(probabilities[index])}
