"""The tutorial's model in LitServe, with its own batching.  MODEL=... PORT=... WORKERS=... python litserve_app.py"""

import os
from typing import Any

import litserve
import numpy as np
from peer_model import PeerModel, Pixels


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's
        self.model = PeerModel()

    def decode_request(self, request) -> Pixels:  # an annotation would make FastAPI validate it
        return self.model.decode(request["file"].file.read())

    def batch(self, inputs: list[Pixels]) -> Pixels:
        return np.stack(inputs)

    def predict(self, x: Pixels) -> list[dict[str, object]]:
        return self.model.answers(x)

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        return output

    def encode_response(self, output: dict[str, object]) -> Any:
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["WORKERS"]))
    server.run(port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
