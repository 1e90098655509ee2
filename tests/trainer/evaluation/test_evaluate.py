"""Bundles scored on data: the images of the right split, labels matched by name, the figures of the manifest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from schemas.manifest import VariantName
from schemas.metrics import measure
from tests.support import colour_images
from tests.support.bundles import COLOURS, solid, write_bundle
from trainer.data.dataset import LabelledImages, SourceData
from trainer.data.split import divide
from trainer.errors import DataError
from trainer.evaluation.evaluate import (
    Model,
    Part,
    Place,
    Score,
    already_seen,
    check_same_labels,
    choose,
    compare,
    how_to_read,
    open_model,
    own_division,
    positions_of,
    score,
)
from trainer.recipe import DataConfig, Source
from trainer.run import train
from trainer.training.progress import LineReporter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained too briefly to be always right: figures that are all 1 would prove little."""
    recipe = colour_images.recipe(seed=3, epochs=1, data=DataConfig(source=Source.NPZ, validation=0.2, test=0.2))
    with Path("/dev/null").open("w") as nowhere:
        trained = train(
            recipe,
            colour_images.source(),
            torch.device("cpu"),
            tmp_path_factory.mktemp("artifacts"),
            LineReporter(nowhere),
        )
    assert 0 < trained.manifest.metrics.test.accuracy < 1
    return open_model(trained.path, VariantName.FP32)


@pytest.fixture
def untrained(tmp_path: Path) -> Model:
    """Answers by the mean colour."""
    return open_model(write_bundle(tmp_path), VariantName.FP32)


def npz(path: Path, data: SourceData, *, named: bool = True) -> Place:
    names = {"classes": np.array(data.labels)} if named else {}
    np.savez(path, images=data.train.images[:], labels=data.train.labels, **names)  # type: ignore[arg-type]
    return Place(str(path))


def photos(folder: Path, classes: dict[str, str]) -> Place:
    """A picture of a colour in each class's folder."""
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "a.png").write_bytes(solid(colour))
    return Place(str(folder))


def test_the_test_split_of_its_own_data_gives_the_manifest_s_figures(model: Model, tmp_path: Path) -> None:
    place = npz(tmp_path / "colours.npz", colour_images.colours())
    data = place.load(how_to_read(place, [model.manifest]), model.manifest)
    own = own_division(model, data)
    assert own is not None
    for part, said in (
        (Part.TEST, model.manifest.metrics.test),
        (Part.VALIDATION, model.manifest.metrics.validation),
    ):
        assert score(model, data, positions_of(part, data, own)).metrics == said


def test_what_the_model_has_seen_is_said_and_the_test_split_is_not(model: Model) -> None:
    data = colour_images.colours()
    own = own_division(model, data)
    assert own is not None
    said = {part: already_seen(model, data, positions_of(part, data, own)) for part in Part}
    assert said[Part.TEST] is None
    assert "learnt from 54 of the 54 and was chosen by 0" in str(said[Part.TRAIN])
    assert "learnt from 0 of the 18 and was chosen by 18" in str(said[Part.VALIDATION])
    assert "learnt from 54 of the 90 and was chosen by 18" in str(said[Part.ALL])


def test_two_models_get_the_same_images_and_each_is_told_what_it_has_seen(model: Model, tmp_path: Path) -> None:
    """The other one is as if trained on the same data with another division."""
    data = colour_images.colours()
    recipe = model.manifest.provenance.recipe | {
        "data": {"source": "npz", "validation": 0.2, "test": 0.2, "split_seed": 7}
    }
    provenance = model.manifest.provenance.model_copy(update={"recipe": recipe})
    other = replace(model, path=tmp_path, manifest=model.manifest.model_copy(update={"provenance": provenance}))
    chosen = choose([(model, data), (other, data)], DataConfig(source=Source.NPZ, validation=0.5), None)
    assert chosen.part is Part.TEST
    division = divide(data, DataConfig(source=Source.NPZ, validation=0.2, test=0.2, split_seed=0))
    assert chosen.positions.tolist() == division.test.tolist()
    seen = len(
        set(division.test)
        & set(divide(data, DataConfig(source=Source.NPZ, validation=0.2, test=0.2, split_seed=7)).train)
    )
    assert seen > 0
    _, told = chosen.told
    assert told.startswith(f"{tmp_path} has seen these images: it learnt from {seen} of the 18")


def test_other_data_are_not_taken_for_its_own(model: Model) -> None:
    other = colour_images.colours(seed=1)
    assert own_division(model, other) is None
    assert already_seen(model, other, np.arange(90)) is None


def test_every_image_is_scored_once_whichever_split_the_data_publish(model: Model) -> None:
    whole, config = colour_images.colours(120), DataConfig(source=Source.NPZ, validation=0.5)
    learnt, tested = np.arange(90), np.arange(90, 120)
    published = replace(whole, train=whole.train.take(learnt), test=whole.train.take(tested))
    for part, positions in ((Part.ALL, np.arange(120)), (Part.TEST, tested)):
        found = score(model, published, positions_of(part, published, config))
        assert found.metrics == score(model, whole, positions).metrics


def test_labels_are_matched_by_name_in_any_order(untrained: Model) -> None:
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


def test_data_may_lack_classes_but_have_none_that_is_unknown(untrained: Model) -> None:
    data = colour_images.colours()
    pair = data.train.take(np.flatnonzero(data.train.labels < 2))
    assert score(
        untrained, replace(data, labels=("red", "green"), train=pair), np.arange(60)
    ).metrics.absent_classes == ("blue",)
    with pytest.raises(
        DataError, match=r"has the label 'teal', which .* does not know; its labels are red, green, blue"
    ):
        score(untrained, replace(data, labels=("red", "green", "teal")), np.arange(90))


def test_a_folder_of_photos_of_any_size_is_read_at_the_bundle_s(untrained: Model, tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS):
        (tmp_path / "photos" / colour).mkdir(parents=True)
        (tmp_path / "photos" / colour / "a.png").write_bytes(solid(colour, size=(30 + i, 20)))
    place = Place(str(tmp_path / "photos"))
    data = place.load(how_to_read(place, [untrained.manifest]), untrained.manifest)
    assert data.input == untrained.manifest.input
    assert score(untrained, data, np.arange(3)).metrics.accuracy == 1


@pytest.mark.parametrize("there", [["green"], ["red", "blue"]])
def test_a_folder_of_some_of_the_classes_is_scored_against_all_of_them(
    untrained: Model, tmp_path: Path, there: list[str]
) -> None:
    place = photos(tmp_path / "photos", {name: name for name in there})
    data = place.load(how_to_read(place, [untrained.manifest]), untrained.manifest)
    metrics = score(untrained, data, np.arange(len(there))).metrics
    assert metrics.accuracy == 1
    assert [row.label for row in metrics.per_class] == list(COLOURS)
    assert set(metrics.absent_classes) == COLOURS.keys() - set(there)


def test_a_class_s_folder_that_the_model_does_not_know_is_refused_by_name(untrained: Model, tmp_path: Path) -> None:
    place = photos(tmp_path / "photos", {"red": "red", "teal": "blue"})
    with pytest.raises(DataError, match=r"teal is no class that the model knows; its labels are red, green, blue\."):
        place.load(how_to_read(place, [untrained.manifest]), untrained.manifest)


def test_numbers_for_labels_are_the_bundle_s_class_indices(untrained: Model, tmp_path: Path) -> None:
    place = npz(tmp_path / "numbers.npz", colour_images.colours(), named=False)
    data = place.load(how_to_read(place, [untrained.manifest]), untrained.manifest)
    assert data.labels == ("red", "green", "blue")
    assert score(untrained, data, np.arange(90)).metrics.accuracy == 1


def test_of_several_sets_in_a_folder_the_bundle_s_own_kind_is_read(model: Model, tmp_path: Path) -> None:
    for name in ("MNIST/raw", "cifar-10-batches-py"):
        (tmp_path / name).mkdir(parents=True)
    place = Place(str(tmp_path))
    for source in (Source.MNIST, Source.CIFAR10):
        recipe = {"data": {"source": source, "validation": 0.1}}
        provenance = model.manifest.provenance.model_copy(update={"recipe": recipe})
        manifest = model.manifest.model_copy(update={"provenance": provenance})
        assert how_to_read(place, [manifest]).source is source
    with pytest.raises(DataError, match=r"several kinds of data: mnist, cifar10; say which is meant, as with --source"):
        how_to_read(place, [model.manifest])
    assert how_to_read(replace(place, source=Source.CIFAR10), [model.manifest]).source is Source.CIFAR10
    with pytest.raises(DataError, match=r"holds no data of the kind csv, but mnist and cifar10\."):
        how_to_read(replace(place, source=Source.CSV), [model.manifest])


def test_beside_other_data_only_folders_named_after_classes_are_data(untrained: Model, tmp_path: Path) -> None:
    place = tmp_path / "several"
    place.mkdir()
    npz(place / "numbers.npz", colour_images.colours())
    (place / "plots").mkdir()
    manifest = untrained.manifest
    assert how_to_read(Place(str(place)), [manifest]).source is Source.NPZ
    photos(place, {"red": "red"})
    with pytest.raises(DataError, match="several kinds of data: npz, folder"):
        how_to_read(Place(str(place)), [manifest])
    recipe: dict[str, JsonValue] = {
        "data": {"source": "folder", "validation": 0.2, "input": {"height": 8, "width": 8, "channels": 3}}
    }
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    trained_on_photos = manifest.model_copy(update={"provenance": provenance})
    assert how_to_read(Place(str(place)), [trained_on_photos]).source is Source.FOLDER
    assert how_to_read(Place(str(place), source=Source.NPZ), [trained_on_photos]).source is Source.NPZ


def test_a_place_without_data_and_a_variant_that_is_not_there_are_said(untrained: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'nowhere' is no folder of class-named folders"):
        how_to_read(Place("nowhere"), [untrained.manifest])
    with pytest.raises(DataError, match="has no variant int8; it has fp32"):
        open_model(untrained.path, VariantName.INT8)
    with pytest.raises(DataError, match="score all of it, with --split all"):
        positions_of(Part.TEST, colour_images.colours(), DataConfig(source=Source.NPZ, validation=0.2))


def answers(right: list[int]) -> Score:
    """Of a model that has these images right (1) or wrong (0)."""
    labels = np.zeros(len(right), np.int64)
    probabilities = np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right], np.float32)
    return Score(labels, probabilities, measure(labels, probabilities, ["yes", "no"]))


def test_an_image_is_right_where_its_most_probable_class_is_its_label() -> None:
    found = compare(("a", answers([1, 1, 1, 0, 0])), ("b", answers([1, 0, 0, 1, 0])))
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (1, 2, 1, 1)


def test_bundles_of_other_labels_are_refused_by_name_and_another_order_is_not(tmp_path: Path) -> None:
    a = open_model(write_bundle(tmp_path), VariantName.FP32)
    turned = replace(a, manifest=a.manifest.model_copy(update={"labels": ("blue", "red", "green")}))
    check_same_labels(a, turned)
    other = replace(a, manifest=a.manifest.model_copy(update={"labels": ("red", "green", "teal", "pink")}))
    with pytest.raises(DataError, match="has blue, which"):
        check_same_labels(a, other)
    with pytest.raises(DataError, match="has teal, pink, which"):
        check_same_labels(other, replace(a, manifest=other.manifest.model_copy(update={"labels": ("red", "green")})))
