"""A new version serves because it is better, not because it is newer: trainer and service together."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.service_process import Service, serving_bundles, until
from tests.support.trainer_process import run_trainer, train
from trainer.data.digits import DigitsSource

pytestmark = pytest.mark.slow


def version(service: Service) -> int:
    """Returns the version that serves after a load without a version, which scans the folder at once."""
    with service.client() as client:
        client.post("/v2/repository/models/digits/load").raise_for_status()
        answer = client.post("/predict", json={"instances": [np.zeros((8, 8, 1), int).tolist()]})
        found: int = answer.raise_for_status().json()["version"]
        return found


def test_neither_a_bad_trial_nor_other_labels_replace_a_good_model(artifacts: Path, tmp_path: Path) -> None:
    artifacts = shutil.copytree(artifacts, tmp_path / "artifacts")  # other tests expect one version
    with serving_bundles(artifacts) as service:
        assert version(service) == 1
        one_epoch = train("digits", "--epochs", "1", "--set", "variants=", artifacts=artifacts)
        assert "promote digits 2" in one_epoch.stderr
        assert version(service) == 1
        digits = DigitsSource().load().train
        letters = np.array(list("abcdefghij"))[digits.labels]
        np.savez(tmp_path / "letters.npz", images=digits.images, labels=letters)
        other_labels = ["--set", "data.source=npz", "--name", "digits", "--relabel", "--promote", "always"]
        train("digits", "--data", tmp_path / "letters.npz", *other_labels, artifacts=artifacts)
        assert version(service) == 1
        for number in (3, 1):
            run_trainer("promote", "digits", str(number), "--artifacts", artifacts)
            until(lambda number=number: version(service) == number)  # type: ignore[misc]
