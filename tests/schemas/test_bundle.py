import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.bundle import Bundle, FloatArray, TensorInfo, hash_file, open_bundle
from schemas.errors import (
    BundleError,
    FormatVersionError,
    GoldenMismatchError,
    HashMismatchError,
    ManifestError,
    MissingFileError,
    SchemaError,
    ShapeMismatchError,
)
from schemas.image import Pixels
from tests.support.bundles import COLOURS, SPEC, run, write_bundle

IMAGES = TensorInfo("images", "tensor(uint8)", ["batch", 8, 8, 3])
PROBABILITIES = TensorInfo("probabilities", "tensor(float)", ["batch", 3])
LOGITS = TensorInfo("logits", "tensor(float)", ["batch", 3])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path)


def replay(path: Path, infer: Callable[[Pixels], FloatArray] | None = None) -> None:
    """Opens, verifies and checks, as one that is to serve the bundle does."""
    bundle = open_bundle(path)
    bundle.read(bundle.manifest.fp32)
    bundle.check_golden(bundle.manifest.fp32, infer or (lambda pixels: run(path / "model.onnx", pixels)))


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = path / "manifest.json"
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def write_expected(path: Path, text: str) -> None:
    """Replaces golden/expected.json and mends its hash, as one who wants to hide the change would."""
    (path / "golden" / "expected.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    rewrite_manifest(path, lambda fields: fields["golden"]["expected"].update(sha256=digest))


def expected_rows(path: Path) -> list[list[float]]:
    rows: list[list[float]] = json.loads((path / "golden" / "expected.json").read_text())
    return rows


def test_a_whole_bundle_passes_every_check(path: Path) -> None:
    replay(path)
    open_bundle(path).check_signature([IMAGES], [LOGITS, PROBABILITIES])


def test_every_bundle_error_is_of_the_one_tree() -> None:
    for error in (MissingFileError, ManifestError, FormatVersionError, HashMismatchError, GoldenMismatchError):
        assert issubclass(error, BundleError)
    assert issubclass(BundleError, SchemaError)


def test_golden_samples_are_the_files_bytes_and_their_rows_in_order(path: Path) -> None:
    samples = open_bundle(path).golden_samples()
    assert [sample.file for sample in samples] == ["golden/0.png", "golden/1.png", "golden/2.png"]
    assert [sample.image for sample in samples] == [(path / sample.file).read_bytes() for sample in samples]
    assert [int(sample.probabilities.argmax()) for sample in samples] == [0, 1, 2]
    assert {sample.probabilities.dtype for sample in samples} == {np.dtype(np.float32)}


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "golden/expected.json", "golden/1.png"])
def test_a_missing_file_is_named(path: Path, file: str) -> None:
    (path / file).unlink()
    with pytest.raises(MissingFileError, match=file):
        replay(path)


def test_a_bundle_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        open_bundle(tmp_path / "colours" / "1")


def test_a_folder_in_the_place_of_a_file_cannot_be_read(path: Path) -> None:
    (path / "model.onnx").unlink()
    (path / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read"):
        replay(path)


@pytest.mark.parametrize("file", ["model.onnx", "golden/expected.json", "golden/2.png"])
def test_one_flipped_bit_is_seen(path: Path, file: str) -> None:
    data = bytearray((path / file).read_bytes())
    data[len(data) // 2] ^= 1
    (path / file).write_bytes(data)
    with pytest.raises(HashMismatchError, match=file):
        replay(path)


def test_a_file_cut_short_is_seen(path: Path) -> None:
    os.truncate(path / "model.onnx", 10)
    with pytest.raises(HashMismatchError):
        replay(path)


def test_what_is_read_is_what_was_verified(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.read(bundle.manifest.fp32) == (path / "model.onnx").read_bytes()


def test_another_golden_answer_under_a_mended_hash_is_a_mismatch_that_names_the_sample(path: Path) -> None:
    rows = expected_rows(path)
    rows[1] = [0.2, 0.6, 0.2]
    write_expected(path, json.dumps(rows))
    with pytest.raises(GoldenMismatchError, match=r"golden/1\.png: .* fp32"):
        replay(path)


@pytest.mark.parametrize(("off", "passes"), [(0.0009, True), (0.0011, False)])
def test_the_tolerance_is_the_manifests(path: Path, off: float, passes: bool) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels) + np.float32(off)

    if passes:
        replay(path, infer)
    else:
        with pytest.raises(GoldenMismatchError, match=r"by 0\.0011 \(tolerance 0\.001\)"):
            replay(path, infer)


def test_a_model_that_answers_nan_is_a_mismatch(path: Path) -> None:
    with pytest.raises(GoldenMismatchError, match="nan"):
        replay(path, lambda pixels: np.full((len(pixels), 3), np.nan, dtype=np.float32))


def test_a_model_that_is_right_one_by_one_and_wrong_in_a_batch_is_a_mismatch(path: Path) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return np.roll(run(path / "model.onnx", pixels), 1, axis=0)

    with pytest.raises(GoldenMismatchError):
        replay(path, infer)


def test_a_model_that_is_right_in_a_batch_and_wrong_one_by_one_is_a_mismatch(path: Path) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels if len(pixels) > 1 else pixels[:, :, :, ::-1].copy())

    with pytest.raises(GoldenMismatchError):
        replay(path, infer)


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (3, 1), (3,), (3, 3, 1)])
def test_a_batch_answered_in_another_shape_is_a_mismatch(path: Path, shape: tuple[int, ...]) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels) if len(pixels) == 1 else np.full(shape, 1, dtype=np.float32)

    with pytest.raises(GoldenMismatchError, match="The output for the golden samples has shape"):
        replay(path, infer)


def test_a_golden_image_that_is_none_is_a_mismatch(path: Path) -> None:
    (path / "golden" / "0.png").write_bytes(b"no image")
    entry = hash_file(path / "golden" / "0.png", path).model_dump()
    rewrite_manifest(path, lambda fields: fields["golden"]["images"][0].update(entry))
    with pytest.raises(GoldenMismatchError, match="cannot be decoded"):
        replay(path)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]", id="a row too few"),
        pytest.param("[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]", id="a class too few"),
        pytest.param("[[0.5, 0.5, 0], [0.5, 0.5, 0], [0.5, 0.5]]", id="ragged"),
        pytest.param("[]", id="empty"),
        pytest.param("{}", id="an object"),
        pytest.param('[["a", "b", "c"]]', id="words"),
        pytest.param("not JSON", id="no JSON"),
        pytest.param("[" * 100_000, id="endlessly nested"),
        pytest.param(json.dumps([[float("nan")] * 3] * 3), id="NaN"),
        pytest.param("[[null, 0, 1], [0, 0, 1], [0, 0, 1]]", id="null"),
        pytest.param("[[1e300, 0, 1], [0, 0, 1], [0, 0, 1]]", id="beyond float32"),
        pytest.param("[[-0.1, 0.1, 1], [0, 0, 1], [0, 0, 1]]", id="below 0"),
    ],
)
def test_expected_answers_that_are_not_one_probability_a_class_and_image_are_refused(path: Path, text: str) -> None:
    write_expected(path, text)
    with pytest.raises(ManifestError, match=r"golden/expected\.json"):
        replay(path)


SIGNATURES = {
    "another input name": ([replace(IMAGES, name="input")], [PROBABILITIES, LOGITS], "inputs are"),
    "no input": ([], [PROBABILITIES, LOGITS], "inputs are"),
    "a second input": ([IMAGES, replace(IMAGES, name="mask")], [PROBABILITIES, LOGITS], "inputs are"),
    "no logits": ([IMAGES], [PROBABILITIES], "outputs are"),
    "a third output": ([IMAGES], [PROBABILITIES, LOGITS, replace(LOGITS, name="x")], "outputs are"),
    "float input": ([replace(IMAGES, type="tensor(float)")], [PROBABILITIES, LOGITS], r"'images' is tensor\(float\)"),
    "double output": ([IMAGES], [replace(PROBABILITIES, type="tensor(double)"), LOGITS], "'probabilities' is"),
    "a fixed batch in": ([replace(IMAGES, shape=[1, 8, 8, 3])], [PROBABILITIES, LOGITS], r"\[1, 8, 8, 3\]"),
    "a fixed batch out": ([IMAGES], [PROBABILITIES, replace(LOGITS, shape=[1, 3])], "'logits' is"),
    "another size": ([replace(IMAGES, shape=["batch", 9, 8, 3])], [PROBABILITIES, LOGITS], r"expected tensor\(uint8\)"),
    "channels first": ([replace(IMAGES, shape=["batch", 3, 8, 8])], [PROBABILITIES, LOGITS], "'images' is"),
    "a free height": ([replace(IMAGES, shape=["batch", "h", 8, 3])], [PROBABILITIES, LOGITS], "'images' is"),
    "another class count": ([IMAGES], [replace(PROBABILITIES, shape=["batch", 4]), LOGITS], "'probabilities' is"),
    "no shape": ([IMAGES], [replace(PROBABILITIES, shape=[]), LOGITS], "'probabilities' is"),
}


@pytest.mark.parametrize("fault", SIGNATURES)
def test_a_graph_of_another_signature_is_refused(path: Path, fault: str) -> None:
    inputs, outputs, said = SIGNATURES[fault]
    with pytest.raises(ShapeMismatchError, match=said):
        open_bundle(path).check_signature(inputs, outputs)


def test_a_batch_may_be_named_or_nameless(path: Path) -> None:
    open_bundle(path).check_signature([replace(IMAGES, shape=[None, 8, 8, 3])], [PROBABILITIES, LOGITS])


@pytest.mark.parametrize("place", ["colours/2", "colours/01", "other/1"])
def test_a_folder_that_is_not_the_manifests_name_and_version_is_refused(path: Path, tmp_path: Path, place: str) -> None:
    moved = tmp_path / place
    moved.parent.mkdir(exist_ok=True)
    path.rename(moved)
    with pytest.raises(ManifestError, match=f"colours version 1, but the bundle is in {place}"):
        open_bundle(moved)


def test_a_link_to_a_bundle_is_the_bundle(path: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(path)
    assert open_bundle(tmp_path / "latest").manifest.version == 1


@pytest.mark.parametrize(
    ("folder", "link", "target"),
    [
        ("models/..data/1", "models/colours/1", "../..data/1"),  # a Kubernetes volume mounted as the model's folder
        ("models/..data/colours/1", "models/colours", "..data/colours"),  # or as the artifacts folder
        ("builds/3f9ac21", "models/colours/1", "../../builds/3f9ac21"),
        ("models/colours-v7/1", "models/colours", "colours-v7"),
    ],
)
def test_opens_a_bundle_whose_visible_path_fits_wherever_a_link_leads(
    path: Path, tmp_path: Path, folder: str, link: str, target: str
) -> None:
    (tmp_path / folder).parent.mkdir(parents=True)
    path.rename(tmp_path / folder)
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(target)
    opened = open_bundle(tmp_path / "models" / "colours" / "1")
    assert opened.read(opened.manifest.fp32)


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx"])
def test_refuses_a_pipe_in_the_place_of_a_file_without_opening_it(path: Path, file: str) -> None:
    (path / file).unlink()
    os.mkfifo(path / file)
    with pytest.raises(BundleError, match=f"{file} cannot be read: it is not a regular file"):
        replay(path)


def test_another_format_is_said_to_be_one(path: Path) -> None:
    rewrite_manifest(path, lambda fields: fields.update(format_version=2))
    with pytest.raises(FormatVersionError):
        open_bundle(path)


def test_an_entry_is_the_files_path_below_the_root_and_its_hash(path: Path) -> None:
    entry = hash_file(path / "golden" / "0.png", path)
    assert (entry.file, len(entry.sha256)) == ("golden/0.png", 64)
    assert Bundle(path, open_bundle(path).manifest).read(entry) == (path / "golden" / "0.png").read_bytes()


def test_the_template_is_what_these_tests_take_it_for(path: Path) -> None:
    manifest = open_bundle(path).manifest
    assert (manifest.labels, manifest.input, manifest.fp32.golden_tolerance) == (tuple(COLOURS), SPEC, 1e-3)
