from pathlib import Path

import yaml

from schemas.bundle import open_bundle
from tests.bundles import write_bundle
from trainer.card import model_card


def test_the_front_matter_is_yaml_whatever_the_data_is_called(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path)).manifest
    name = 'a: [b] #c "d" ローズ'
    data = manifest.provenance.data.model_copy(update={"name": name})
    provenance = manifest.provenance.model_copy(update={"data": data})
    card = model_card(manifest.model_copy(update={"provenance": provenance}))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["datasets"] == [name]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name
