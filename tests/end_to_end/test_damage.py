"""A model that was damaged after training is refused with the reason; the other models keep serving."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.altered_bundles import expected_rows, flip_byte, write_expected
from tests.support.bundles import solid, write_bundle
from tests.support.service_process import serving_bundles


def flip_a_byte(bundle: Path) -> None:
    flip_byte(bundle / "model.onnx")


def change_a_golden_value(bundle: Path) -> None:
    rows = expected_rows(bundle)
    rows[3][4] += 0.02
    write_expected(bundle, json.dumps(rows))


@pytest.mark.parametrize(("damage", "reason"), [(flip_a_byte, "SHA-256"), (change_a_golden_value, "Golden sample")])
def test_a_damaged_model_is_refused_and_the_others_serve(
    artifacts: Path, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    write_bundle(tmp_path / "artifacts")
    damage(tmp_path / "artifacts" / "digits" / "1")
    with serving_bundles(tmp_path / "artifacts") as service, service.client() as client:
        refused = client.post("/models/digits/predict", content=solid("red"), headers={"Content-Type": "image/png"})
        served = client.post("/models/colours/predict", content=solid("red"), headers={"Content-Type": "image/png"})
        ready = client.get("/readyz")
        models = client.get("/models").text
    assert (refused.status_code, refused.json()["code"]) == (503, "model_refused")
    assert reason in refused.json()["detail"]
    assert reason in models
    assert reason in "".join(service.log)
    assert ready.status_code == 200
    assert "digits" in ready.text
    assert served.json()["predictions"][0]["label"] == "red"


def test_the_service_is_alive_but_not_ready_if_every_model_is_refused(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    flip_a_byte(tmp_path / "artifacts" / "digits" / "1")
    with serving_bundles(tmp_path / "artifacts") as service, service.client() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
