"""The tutorial's model in Ray Serve behind its FastAPI ingress.  MODEL=... PORT=... WORKERS=... python ray_app.py"""

import os
import signal

from fastapi import FastAPI, UploadFile
from peer_model import PeerModel
from ray import serve
from ray.serve.schema import LoggingConfig

app = FastAPI()
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


@serve.deployment(
    num_replicas=int(os.environ["WORKERS"]), ray_actor_options={"num_cpus": 0.5}, logging_config=QUIET.model_dump()
)
@serve.ingress(app)
class Classifier:
    def __init__(self) -> None:
        self.model = PeerModel()

    @app.post("/predict")
    async def predict(self, file: UploadFile) -> dict[str, object]:
        return self.model.answers(self.model.decode(await file.read())[None])[0]


if __name__ == "__main__":
    serve.start(http_options={"port": int(os.environ["PORT"])}, logging_config=QUIET)
    serve.run(Classifier.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
