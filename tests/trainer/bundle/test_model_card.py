import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from schemas.bundle import open_bundle
from schemas.evaluation import Interval
from schemas.manifest import Duplicates, ModelManifest, Suspects, TrainingStep, parse_manifest, render_json
from schemas.metrics import measure
from tests.support.bundles import write_bundle
from trainer.bundle.model_card import model_card, warnings_of

PROBE = TrainingStep(
    name="linear probe",
    seconds=12,
    validation_accuracy=0.8,
    validation_interval=Interval(lower=0.7, upper=0.9),
    validation_images=70,
    kept=True,
)


def manifest_of(folder: Path, data: Mapping[str, object] | None = None, **provenance: object) -> ModelManifest:
    manifest = open_bundle(write_bundle(folder)).manifest
    changed = {"data": manifest.provenance.data.model_copy(update=data)} | provenance
    return manifest.model_copy(update={"provenance": manifest.provenance.model_copy(update=changed)})


def with_test_metrics(manifest: ModelManifest, labels: list[int], predicted: list[int]) -> ModelManifest:
    names = [f"class {i}" for i in range(max(*labels, *predicted) + 1)]
    test = measure(np.array(labels), np.eye(len(names), dtype=np.float32)[predicted], names)
    return manifest.model_copy(
        update={"labels": tuple(names), "metrics": manifest.metrics.model_copy(update={"test": test})}
    )


def test_the_front_matter_is_yaml_for_any_data_name(tmp_path: Path) -> None:
    name = 'a: [b] #c "d" ローズ'
    card = model_card(manifest_of(tmp_path, {"name": name}), tmp_path)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["datasets"] == [name]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name


def test_a_manifest_without_the_newer_fields_has_a_card(tmp_path: Path) -> None:
    """Older releases wrote no number of processes and no intervals."""
    old = json.loads(render_json(manifest_of(tmp_path)))
    del old["provenance"]["processes"]
    split = {"coverage": 0.5, "accuracy": 1.0}
    old["reject"] = {"target_accuracy": 0.9, "threshold": 0.8, "validation": split, "test": split}
    card = model_card(parse_manifest(json.dumps(old)), tmp_path)
    assert "On the test split, 50.00% of the 3 images reach it with an accuracy of 100.00%." in card
    assert "s on cpu; seed 0" in card


@pytest.mark.parametrize(("processes", "text"), [(1, "in one process"), (2, "in 2 processes")])
def test_the_card_states_the_number_of_training_processes(tmp_path: Path, processes: int, text: str) -> None:
    assert f"s on cpu, {text}; seed 0" in model_card(manifest_of(tmp_path, processes=processes), tmp_path)


def test_the_text_after_the_steps_of_a_training_is_not_part_of_their_list(tmp_path: Path) -> None:
    card = model_card(manifest_of(tmp_path, steps=(PROBE,)), tmp_path)
    assert "\n1 epoch in" in card
    assert "12.0 s\n\nThe recipe is in" in card


def test_warns_only_of_the_kinds_of_suspects_that_exist(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, {"suspects": Suspects(equal=3, uniform=0, unlike=1)})
    (warning,) = (text for text in warnings_of(manifest) if "placeholders" in text)
    assert "mistakes: 3 are equal to at least two others, 1 is unlike all others. Look" in warning


def test_the_card_links_only_plots_that_exist(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    card = model_card(open_bundle(bundle).manifest, bundle)
    assert "](report/curves.png)" in card
    assert "confusion_matrix.png" not in card


def test_warns_of_a_model_that_learnt_nothing(tmp_path: Path) -> None:
    labels = [i % 10 for i in range(200)]
    guessing = with_test_metrics(manifest_of(tmp_path), labels, [0] * 200)
    (warning, never_predicted) = warnings_of(guessing)
    assert warning.startswith("The model is no better than guessing: its test accuracy is 10.00% on 10 classes")
    assert never_predicted.startswith("The model never predicts class 1, class 2, class 3")
    assert f"- {warning}\n" in model_card(guessing, tmp_path)


def test_the_advice_fits_the_origin_of_a_model_that_learnt_nothing(tmp_path: Path) -> None:
    labels = [i % 10 for i in range(200)]
    imported = manifest_of(tmp_path / "imported", recipe={"imported": {}})
    (warning, never_predicted) = warnings_of(with_test_metrics(imported, labels, [0] * 200))
    assert warning.endswith("Check the order of the labels, and --mean and --std.")
    assert never_predicted.endswith("on the test split.")
    probe = manifest_of(tmp_path / "probe", steps=(PROBE,))
    assert warnings_of(with_test_metrics(probe, labels, [0] * 200))[0].endswith("on 10 classes. Check the labels.")


def test_a_class_of_few_test_images_need_not_be_predicted(tmp_path: Path) -> None:
    labels = [0] * 96 + [1] * 4
    manifest = with_test_metrics(manifest_of(tmp_path), [*labels, *[2] * 100], [0] * 100 + [2] * 100)
    assert not any("never predicts" in warning for warning in warnings_of(manifest))


def test_warns_of_images_in_two_splits(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(200)]
    copied = {"duplicates": Duplicates(validation=0, test=7)}
    manifest = with_test_metrics(manifest_of(tmp_path, copied), labels, labels)
    (warning,) = warnings_of(manifest)
    assert warning.startswith("7 of 200 test images are also training images")
    assert "python -m trainer clean DATA" in warning


def test_warns_below_100_test_images_and_not_from_100_on(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    labels = [i % 2 for i in range(100)]
    (warning,) = warnings_of(with_test_metrics(manifest, labels[:99], labels[:99]))
    assert warning == "The test split has only 99 images: the true accuracy may be anything from 96% to 100%."
    assert warnings_of(with_test_metrics(manifest, labels, labels)) == []


def test_the_card_of_many_classes_stays_short(tmp_path: Path) -> None:
    labels = list(range(1000))
    manifest = with_test_metrics(manifest_of(tmp_path), labels, [*labels[1:], 0])
    card = model_card(manifest, tmp_path)
    assert "class 49 and 950 more" in card
    assert "The 50 classes with the lowest F1, of 1,000" in card
    assert len(card) < 10_000
