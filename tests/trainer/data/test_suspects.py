import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import Suspects
from tests.support import colour_images, probe_runs
from tests.support.recorder import Recorder
from tests.support.training import train_bundle
from trainer.data.dataset import FakeSource, LabelledImages
from trainer.data.split import Splits
from trainer.data.suspects import Kind, describe, find_suspects, unlike_others

NOISE = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)


def named(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], prefix: str) -> LabelledImages:
    names = np.array([f"{prefix}{i}.png".encode() for i in range(len(images))])
    return LabelledImages(images, np.arange(len(images)) % 3, names)


def splits(train: int = 40, validation: int = 10) -> Splits:
    """Noise, in which all images differ."""
    first, second, third = np.split(NOISE, [train, train + validation])
    data = colour_images.splits(colour_images.recipe())
    return replace(data, train=named(first, "t"), validation=named(second, "v"), test=named(third, "e"))


def test_ordinary_images_are_no_suspects() -> None:
    assert find_suspects(splits()) == []
    assert find_suspects(colour_images.splits(colour_images.recipe())) == []


def test_images_that_occur_three_times_are_found_in_all_splits() -> None:
    data = splits()
    train, test = data.train.images[:], data.test.images[:]
    train[7] = train[3] = test[5]
    train[20] = train[21]  # a pair is an accident
    found = find_suspects(replace(data, train=named(train, "t"), test=named(test, "e")))
    assert [(suspect.kind, suspect.split, suspect.name) for suspect in found] == [
        (Kind.EQUAL, "train", "t3.png"),
        (Kind.EQUAL, "train", "t7.png"),
        (Kind.EQUAL, "test", "e5.png"),
    ]
    assert found[0].label == data.labels[0]
    assert describe(found) == [
        "warning: images that may be placeholders or mistakes, equal to others: 3 (t3.png, t7.png, e5.png)"
    ]


def test_an_image_that_all_splits_share_is_no_copy_of_itself() -> None:
    data = splits()
    shared = named(NOISE[:4], "t")
    assert find_suspects(replace(data, train=shared, validation=shared, test=shared)) == []


def test_nearly_uniform_images_are_found() -> None:
    data = splits()
    validation = data.validation.images[:]
    validation[2] = (200, 0, 90) + NOISE[0] % 4  # any colour, with a little noise
    (found,) = find_suspects(replace(data, validation=named(validation, "v")))
    assert (found.kind, found.split, found.name) == (Kind.UNIFORM, "validation", "v2.png")


@pytest.mark.parametrize("strangers", [1, 2])
def test_images_far_from_all_others_in_feature_space_are_found(strangers: int) -> None:
    features = np.random.default_rng(4).uniform(1, 3, (50, 16)).astype(np.float32)
    assert unlike_others(splits(), features) == []
    features[40 : 40 + strangers, ::2] *= -1
    found = unlike_others(splits(), features)
    assert [(suspect.split, suspect.name) for suspect in found] == [
        ("validation", f"v{i}.png") for i in range(strangers)
    ]


def test_too_few_images_are_not_compared() -> None:
    features = np.eye(19, 16, dtype=np.float32)
    assert unlike_others(splits(15, 4), features) == []


def test_suspects_are_in_the_log_the_card_and_a_file_of_names(tmp_path: Path) -> None:
    data = probe_runs.source(150).data
    images = np.asarray(data.train.images).copy()
    images[[10, 50, 90]] = 128
    source = FakeSource(replace(data, train=named(images, "photo")))
    recorder = Recorder()
    bundle = train_bundle(probe_runs.recipe(tmp_path), tmp_path, source, reporter=recorder)
    suspects = bundle.manifest.provenance.data.suspects
    assert suspects is not None
    assert (suspects.equal, suspects.uniform) == (3, 3)
    assert suspects.unlike is not None
    warned = "warning: images that may be placeholders or mistakes, nearly uniform: 3 (photo"
    assert any(note.startswith(warned) for note in recorder.notes)
    assert "Some images may be placeholders or mistakes: 3 are equal" in (bundle.path / "README.md").read_text()
    with (bundle.path / "report" / "suspects.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["reason"] == "equal to others"]
    assert {row["file"] for row in rows} == {"photo10.png", "photo50.png", "photo90.png"}


def test_without_a_backbone_there_are_no_features_to_compare(tmp_path: Path) -> None:
    bundle = train_bundle(colour_images.recipe(epochs=1), tmp_path)
    assert bundle.manifest.provenance.data.suspects == Suspects(equal=0, uniform=0, unlike=None)
    assert not (bundle.path / "report" / "suspects.csv").exists()
