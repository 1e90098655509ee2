from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from schemas.manifest import VariantName
from tests.support import colour_images
from tests.support.bundles import COLOURS, write_bundle, write_solid
from tests.support.training import train_bundle
from trainer.data.dataset import LabelledImages, SourceData
from trainer.data.split import divide
from trainer.errors import DataError
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.scoring import (
    BundleModel,
    DataLocation,
    Part,
    check_same_labels,
    choose_data_config,
    open_model,
    overlap_note,
    own_data_config,
    positions_of,
    score,
    select_images,
)
from trainer.recipe import DataConfig, Source


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BundleModel:
    """A model that was trained so briefly that some predictions are wrong: metrics of 1 would show little."""
    recipe = colour_images.recipe(seed=3, epochs=1, data=DataConfig(source=Source.NPZ, validation=0.2, test=0.2))
    trained = train_bundle(recipe, tmp_path_factory.mktemp("artifacts"))
    assert 0 < trained.manifest.metrics.test.accuracy < 1
    return open_model(trained.path, VariantName.FP32)


@pytest.fixture
def untrained(tmp_path: Path) -> BundleModel:
    """Answers by the mean colour."""
    return open_model(write_bundle(tmp_path), VariantName.FP32)


def npz(path: Path, data: SourceData, *, named: bool = True) -> DataLocation:
    names = {"classes": np.array(data.labels)} if named else {}
    np.savez(path, images=data.train.images[:], labels=data.train.labels, **names)  # type: ignore[arg-type]
    return DataLocation(str(path))


def photos(folder: Path, classes: dict[str, str]) -> DataLocation:
    """A picture of a colour in each class's folder."""
    for name, colour in classes.items():
        write_solid(folder / name / "a.png", colour)
    return DataLocation(str(folder))


def test_scoring_the_test_split_reproduces_the_manifest(model: BundleModel, tmp_path: Path) -> None:
    location = npz(tmp_path / "colours.npz", colour_images.colours())
    data = location.load(choose_data_config(location, [model.manifest]), model.manifest)
    own = own_data_config(model, data)
    assert own is not None
    for part, recorded in (
        (Part.TEST, model.manifest.metrics.test),
        (Part.VALIDATION, model.manifest.metrics.validation),
    ):
        assert score(model, data, positions_of(part, data, own)).metrics == recorded


def test_warns_of_images_that_the_model_was_trained_or_selected_on(model: BundleModel) -> None:
    data = colour_images.colours()
    own = own_data_config(model, data)
    assert own is not None
    notes = {part: overlap_note(model, data, positions_of(part, data, own)) for part in Part}
    assert notes[Part.TEST] is None
    assert "was trained on 54 and selected on 0" in str(notes[Part.TRAIN])
    assert "was trained on 0 and selected on 18" in str(notes[Part.VALIDATION])
    assert "was trained on 54 and selected on 18" in str(notes[Part.ALL])


def test_two_models_get_the_same_images_and_a_warning_about_each(model: BundleModel, tmp_path: Path) -> None:
    """The other one is as if trained on the same data with another division."""
    data = colour_images.colours()
    recipe = model.manifest.provenance.recipe | {
        "data": {"source": "npz", "validation": 0.2, "test": 0.2, "split_seed": 7}
    }
    provenance = model.manifest.provenance.model_copy(update={"recipe": recipe})
    other = replace(model, path=tmp_path, manifest=model.manifest.model_copy(update={"provenance": provenance}))
    selection = select_images([(model, data), (other, data)], DataConfig(source=Source.NPZ, validation=0.5), None)
    assert selection.part is Part.TEST
    division = divide(data, DataConfig(source=Source.NPZ, validation=0.2, test=0.2, split_seed=0))
    assert selection.positions.tolist() == division.test.tolist()
    seen = len(
        set(division.test)
        & set(divide(data, DataConfig(source=Source.NPZ, validation=0.2, test=0.2, split_seed=7)).train)
    )
    assert seen > 0
    _, warning = selection.notes
    assert warning.startswith(f"warning: of these 18 images, {tmp_path} was trained on {seen}")


def test_other_data_is_not_the_data_of_the_model(model: BundleModel) -> None:
    other = colour_images.colours(seed=1)
    assert own_data_config(model, other) is None
    assert overlap_note(model, other, np.arange(90)) is None


def test_every_image_is_scored_once_if_the_data_publishes_a_test_split(model: BundleModel) -> None:
    whole, config = colour_images.colours(120), DataConfig(source=Source.NPZ, validation=0.5)
    learnt, tested = np.arange(90), np.arange(90, 120)
    published = replace(whole, train=whole.train.take(learnt), test=whole.train.take(tested))
    for part, positions in ((Part.ALL, np.arange(120)), (Part.TEST, tested)):
        found = score(model, published, positions_of(part, published, config))
        assert found.metrics == score(model, whole, positions).metrics


def test_labels_are_matched_by_name_in_any_order(untrained: BundleModel) -> None:
    data = colour_images.colours()
    order = [2, 0, 1]
    indices = np.argsort(order)[data.train.labels]
    turned = replace(
        data, labels=tuple(data.labels[i] for i in order), train=LabelledImages(data.train.images, indices)
    )
    expected, found = (score(untrained, each, np.arange(90)) for each in (data, turned))
    assert found.metrics == expected.metrics
    assert found.metrics.accuracy == 1
    assert found.metrics.per_class[0].label == "red"


def test_data_may_lack_classes_of_the_model_but_not_have_others(untrained: BundleModel) -> None:
    data = colour_images.colours()
    pair = data.train.take(np.flatnonzero(data.train.labels < 2))
    assert score(
        untrained, replace(data, labels=("red", "green"), train=pair), np.arange(60)
    ).metrics.absent_classes == ("blue",)
    with pytest.raises(
        DataError, match=r"has the label 'teal', which .* does not have. Its labels are red, green, blue"
    ):
        score(untrained, replace(data, labels=("red", "green", "teal")), np.arange(90))


def test_photos_are_resized_to_the_input_of_the_bundle(untrained: BundleModel, tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS):
        write_solid(tmp_path / "photos" / colour / "a.png", colour, size=(30 + i, 20))
    location = DataLocation(str(tmp_path / "photos"))
    data = location.load(choose_data_config(location, [untrained.manifest]), untrained.manifest)
    assert data.input == untrained.manifest.input
    assert score(untrained, data, np.arange(3)).metrics.accuracy == 1


@pytest.mark.parametrize("there", [["green"], ["red", "blue"]])
def test_a_folder_of_some_classes_is_scored_against_all_of_them(
    untrained: BundleModel, tmp_path: Path, there: list[str]
) -> None:
    location = photos(tmp_path / "photos", {name: name for name in there})
    data = location.load(choose_data_config(location, [untrained.manifest]), untrained.manifest)
    metrics = score(untrained, data, np.arange(len(there))).metrics
    assert metrics.accuracy == 1
    assert [row.label for row in metrics.per_class] == list(COLOURS)
    assert set(metrics.absent_classes) == COLOURS.keys() - set(there)


def test_refuses_a_folder_that_is_no_class_of_the_model(untrained: BundleModel, tmp_path: Path) -> None:
    location = photos(tmp_path / "photos", {"red": "red", "teal": "blue"})
    with pytest.raises(DataError, match=r"named after the model's labels \(red, green, blue\), not teal\."):
        location.load(choose_data_config(location, [untrained.manifest]), untrained.manifest)


def test_labels_that_are_numbers_are_class_indices_of_the_bundle(untrained: BundleModel, tmp_path: Path) -> None:
    location = npz(tmp_path / "numbers.npz", colour_images.colours(), named=False)
    data = location.load(choose_data_config(location, [untrained.manifest]), untrained.manifest)
    assert data.labels == ("red", "green", "blue")
    assert score(untrained, data, np.arange(90)).metrics.accuracy == 1


def test_of_several_data_sets_in_a_folder_the_kind_that_the_bundle_was_trained_on_is_read(
    model: BundleModel, tmp_path: Path
) -> None:
    for name in ("MNIST/raw", "cifar-10-batches-py"):
        (tmp_path / name).mkdir(parents=True)
    location = DataLocation(str(tmp_path))
    for source in (Source.MNIST, Source.CIFAR10):
        recipe = {"data": {"source": source, "validation": 0.1}}
        provenance = model.manifest.provenance.model_copy(update={"recipe": recipe})
        manifest = model.manifest.model_copy(update={"provenance": provenance})
        assert choose_data_config(location, [manifest]).source is source
    with pytest.raises(
        DataError, match=r"several kinds of data: mnist, cifar10. Choose one, for example with --source"
    ):
        choose_data_config(location, [model.manifest])
    assert choose_data_config(replace(location, source=Source.CIFAR10), [model.manifest]).source is Source.CIFAR10
    with pytest.raises(DataError, match=r"holds no csv data, but mnist and cifar10\."):
        choose_data_config(replace(location, source=Source.CSV), [model.manifest])


def test_folders_beside_other_data_count_only_if_named_after_classes(untrained: BundleModel, tmp_path: Path) -> None:
    location = tmp_path / "several"
    location.mkdir()
    npz(location / "numbers.npz", colour_images.colours())
    (location / "plots").mkdir()
    manifest = untrained.manifest
    assert choose_data_config(DataLocation(str(location)), [manifest]).source is Source.NPZ
    photos(location, {"red": "red"})
    with pytest.raises(DataError, match="several kinds of data: npz, folder"):
        choose_data_config(DataLocation(str(location)), [manifest])
    recipe: dict[str, JsonValue] = {
        "data": {"source": "folder", "validation": 0.2, "input": {"height": 8, "width": 8, "channels": 3}}
    }
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    trained_on_photos = manifest.model_copy(update={"provenance": provenance})
    assert choose_data_config(DataLocation(str(location)), [trained_on_photos]).source is Source.FOLDER
    assert choose_data_config(DataLocation(str(location), source=Source.NPZ), [trained_on_photos]).source is Source.NPZ


def test_missing_data_and_missing_variants_are_one_sentence(untrained: BundleModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No data found at 'nowhere'. Give a folder"):
        choose_data_config(DataLocation("nowhere"), [untrained.manifest])
    with pytest.raises(DataError, match=r"has no variant int8\. Its variants are fp32"):
        open_model(untrained.path, VariantName.INT8)
    with pytest.raises(DataError, match="Score all images with --split all"):
        positions_of(Part.TEST, colour_images.colours(), DataConfig(source=Source.NPZ, validation=0.2))


def test_an_answer_is_correct_if_its_most_probable_class_is_the_label() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    evaluation = Evaluation.of(np.array([0, 0, 0]), probabilities, np.log(probabilities), ["yes", "no"])
    assert evaluation.predicted.tolist() == [0, 1, 0]
    assert evaluation.correct.tolist() == [True, False, True]


def test_refuses_to_compare_bundles_of_different_labels_but_allows_another_order(tmp_path: Path) -> None:
    a = open_model(write_bundle(tmp_path), VariantName.FP32)
    turned = replace(a, manifest=a.manifest.model_copy(update={"labels": ("blue", "red", "green")}))
    check_same_labels(a, turned)
    other = replace(a, manifest=a.manifest.model_copy(update={"labels": ("red", "green", "teal", "pink")}))
    with pytest.raises(DataError, match=r"has blue, .* does not"):
        check_same_labels(a, other)
    with pytest.raises(DataError, match=r"has teal, pink, .* does not"):
        check_same_labels(other, replace(a, manifest=other.manifest.model_copy(update={"labels": ("red", "green")})))
