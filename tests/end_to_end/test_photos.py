"""Sends real photos of various sizes to the real service."""

import base64
from pathlib import Path

import pytest

from schemas.image import decode_image
from tests.support.bundles import COLOURS, SPEC, run, write_bundle
from tests.support.service_process import serving_bundles

MODEL = "colours"


@pytest.fixture(scope="module")
def photos(real_data: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted((real_data / "photos-sample").rglob("*.jpg"))]
    assert len(found) >= 50
    return found


def test_each_photo_gets_the_prediction_of_the_shared_decode_and_the_graph(tmp_path: Path, photos: list[bytes]) -> None:
    bundle = write_bundle(tmp_path)
    expected = [run(bundle / "model.onnx", decode_image(photo, SPEC)[None])[0] for photo in photos]
    with serving_bundles(tmp_path) as service, service.client() as client:
        files = [("files", (f"{i}.jpg", photo)) for i, photo in enumerate(photos)]
        form = client.post("/predict", files=files).json()["predictions"]
        instances = [{"b64": base64.b64encode(photo).decode()} for photo in photos]
        body = client.post("/predict", json={"instances": instances}).json()["predictions"]
    labels = list(COLOURS)
    assert [prediction["label"] for prediction in form] == [labels[int(row.argmax())] for row in expected]
    assert form == body
