from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.heat_map import overlay
from schemas.image import decode_image
from tests.support.bundles import SPEC, maps, solid, write_bundle, write_solid
from trainer.errors import DataError, WriteError
from trainer.evaluation.predict import predict_files


def test_every_file_of_a_folder_is_answered_or_has_its_error_but_hidden_files_and_documents(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        (photos / name).write_bytes(solid("red", (9, 9)))
    (photos / "b.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    (photos / "readme.txt").write_text("not a photo")
    answers = predict_files(write_bundle(tmp_path), [photos])
    assert [(Path(answer.file).name, answer.error is None) for answer in answers] == [
        ("a.png", True),
        ("b.HEIC", False),
    ]


def test_overlays_are_written_for_each_image_of_any_folder(tmp_path: Path) -> None:
    for folder, colour in (("one", "red"), ("two", "blue")):
        write_solid(tmp_path / folder / "same.png", colour, (9, 9))
    (tmp_path / "one" / "broken.png").write_bytes(b"no image")
    bundle = write_bundle(tmp_path, with_maps=True)
    answers = predict_files(bundle, [tmp_path / "one", tmp_path / "two"], tmp_path / "drawn")
    broken, red, blue = answers
    assert (broken.overlay, broken.error is None) == (None, False)
    assert len({red.overlay, blue.overlay, *(tmp_path / "drawn").iterdir()}) == 4  # strings and paths
    assert open_bundle(bundle).manifest.labels[red.top[0].index] == "red"
    for answer, row in ((red, [1, 0, 0]), (blue, [0, 0, 1])):
        assert answer.overlay is not None
        image = decode_image(Path(answer.file).read_bytes(), SPEC)
        expected = overlay(image, maps(image[None], np.array([row], np.float32))[0])
        drawn = decode_image(Path(answer.overlay).read_bytes(), SPEC.model_copy(update={"height": 224, "width": 224}))
        assert np.array_equal(drawn, expected)


def test_a_model_without_maps_cannot_draw_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(solid("red"))
    with pytest.raises(DataError, match="has no class activation maps, so leave out --explain"):
        predict_files(write_bundle(tmp_path), [tmp_path / "a.png"], tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()


def test_a_folder_for_overlays_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(solid("red"))
    (tmp_path / "drawn").write_text("a file, not a folder")
    with pytest.raises(WriteError, match="cannot be written"):
        predict_files(write_bundle(tmp_path, with_maps=True), [tmp_path / "a.png"], tmp_path / "drawn")
