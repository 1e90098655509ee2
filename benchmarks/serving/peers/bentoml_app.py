"""The tutorial's model in BentoML.  MODEL=... bentoml serve bentoml_app:Classifier --port ..."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from peer_model import PeerModel


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Classifier:
    def __init__(self) -> None:
        self.model = PeerModel()

    @bentoml.api(route="/predict")
    def predict(self, file: Annotated[Path, ContentType("image/png")]) -> dict[str, object]:
        return self.model.answers(self.model.decode(file.read_bytes())[None])[0]
