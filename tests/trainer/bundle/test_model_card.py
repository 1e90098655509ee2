import json
from pathlib import Path

import pytest
import yaml

from schemas.bundle import open_bundle
from schemas.manifest import parse_manifest, render_manifest
from tests.support.bundles import write_bundle
from trainer.bundle.model_card import model_card


def test_the_front_matter_is_yaml_whatever_the_data_is_called(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    name = 'a: [b] #c "d" ローズ'
    data = manifest.provenance.data.model_copy(update={"name": name})
    provenance = manifest.provenance.model_copy(update={"data": data})
    card = model_card(manifest.model_copy(update={"provenance": provenance}))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["datasets"] == [name]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name


def test_a_bundle_of_before_without_intervals_or_processes_loads_and_has_a_card(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    before = json.loads(render_manifest(manifest))
    del before["provenance"]["processes"]
    split = {"coverage": 0.5, "accuracy": 1.0}
    before["reject"] = {"target_accuracy": 0.9, "threshold": 0.8, "validation": split, "test": split}
    card = model_card(parse_manifest(json.dumps(before)))
    assert "On the test split 50.00% of the 3 images are answered then, and 100.00% of the answers are right." in card
    assert "s on cpu; seed 0" in card


@pytest.mark.parametrize(("processes", "said"), [(1, "in one process"), (2, "in 2 processes")])
def test_the_processes_that_shared_the_training_are_said(tmp_path: Path, processes: int, said: str) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    provenance = manifest.provenance.model_copy(update={"processes": processes})
    assert f"s on cpu, {said}; seed 0" in model_card(manifest.model_copy(update={"provenance": provenance}))
