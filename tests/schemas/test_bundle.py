import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
from tests.support.altered_bundles import change_manifest, expected_rows, write_expected
from tests.support.bundles import COLOURS, SPEC, run, write_bundle

IMAGES = TensorInfo("images", "tensor(uint8)", ["batch", 8, 8, 3])
PROBABILITIES = TensorInfo("probabilities", "tensor(float)", ["batch", 3])
LOGITS = TensorInfo("logits", "tensor(float)", ["batch", 3])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path)


def replay(path: Path, infer: Callable[[Pixels], FloatArray] | None = None) -> None:
    """Opens, verifies and checks the bundle, as the service does before it serves it."""
    bundle = open_bundle(path)
    bundle.read(bundle.manifest.fp32)
    bundle.check_golden(bundle.manifest.fp32, infer or (lambda pixels: run(path / "model.onnx", pixels)))


def test_a_whole_bundle_passes_every_check(path: Path) -> None:
    replay(path)
    open_bundle(path).check_signature([IMAGES], [LOGITS, PROBABILITIES])


def test_every_bundle_error_is_a_schema_error() -> None:
    for error in (MissingFileError, ManifestError, FormatVersionError, HashMismatchError, GoldenMismatchError):
        assert issubclass(error, BundleError)
    assert issubclass(BundleError, SchemaError)


def test_golden_samples_have_the_bytes_and_probabilities_of_the_files_in_order(path: Path) -> None:
    samples = open_bundle(path).golden_samples()
    assert [sample.file for sample in samples] == ["golden/0.png", "golden/1.png", "golden/2.png"]
    assert [sample.image for sample in samples] == [(path / sample.file).read_bytes() for sample in samples]
    assert [int(sample.probabilities.argmax()) for sample in samples] == [0, 1, 2]
    assert {sample.probabilities.dtype for sample in samples} == {np.dtype(np.float32)}


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "golden/expected.json", "golden/1.png"])
def test_names_a_missing_file(path: Path, file: str) -> None:
    (path / file).unlink()
    with pytest.raises(MissingFileError, match=file):
        replay(path)


def test_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        open_bundle(tmp_path / "colours" / "1")


def test_refuses_a_folder_in_place_of_a_file(path: Path) -> None:
    (path / "model.onnx").unlink()
    (path / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read"):
        replay(path)


@pytest.mark.parametrize("file", ["model.onnx", "golden/expected.json", "golden/2.png"])
def test_detects_one_flipped_bit(path: Path, file: str) -> None:
    data = bytearray((path / file).read_bytes())
    data[len(data) // 2] ^= 1
    (path / file).write_bytes(data)
    with pytest.raises(HashMismatchError, match=file):
        replay(path)


def test_detects_a_truncated_file(path: Path) -> None:
    os.truncate(path / "model.onnx", 10)
    with pytest.raises(HashMismatchError):
        replay(path)


def test_read_returns_the_verified_bytes(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.read(bundle.manifest.fp32) == (path / "model.onnx").read_bytes()


def test_names_the_golden_sample_whose_expected_probabilities_were_altered(path: Path) -> None:
    rows = expected_rows(path)
    rows[1] = [0.2, 0.6, 0.2]
    write_expected(path, json.dumps(rows))
    with pytest.raises(GoldenMismatchError, match=r"golden/1\.png: .* fp32"):
        replay(path)


@pytest.mark.parametrize(("off", "passes"), [(0.0009, True), (0.0011, False)])
def test_applies_the_tolerance_of_the_manifest(path: Path, off: float, passes: bool) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels) + np.float32(off)

    if passes:
        replay(path, infer)
    else:
        with pytest.raises(GoldenMismatchError, match=r"by 0\.0011 \(tolerance 0\.001\)"):
            replay(path, infer)


def test_refuses_a_model_that_returns_nan(path: Path) -> None:
    with pytest.raises(GoldenMismatchError, match="nan"):
        replay(path, lambda pixels: np.full((len(pixels), 3), np.nan, dtype=np.float32))


def test_refuses_a_model_that_is_correct_for_single_images_but_not_for_a_batch(path: Path) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return np.roll(run(path / "model.onnx", pixels), 1, axis=0)

    with pytest.raises(GoldenMismatchError):
        replay(path, infer)


def test_refuses_a_model_that_is_correct_for_a_batch_but_not_for_single_images(path: Path) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels if len(pixels) > 1 else pixels[:, :, :, ::-1].copy())

    with pytest.raises(GoldenMismatchError):
        replay(path, infer)


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (3, 1), (3,), (3, 3, 1)])
def test_refuses_a_model_whose_output_has_another_shape(path: Path, shape: tuple[int, ...]) -> None:
    def infer(pixels: Pixels) -> FloatArray:
        return run(path / "model.onnx", pixels) if len(pixels) == 1 else np.full(shape, 1, dtype=np.float32)

    with pytest.raises(GoldenMismatchError, match="The output for the golden samples has shape"):
        replay(path, infer)


def test_refuses_a_golden_sample_that_is_not_an_image(path: Path) -> None:
    (path / "golden" / "0.png").write_bytes(b"no image")
    entry = hash_file(path / "golden" / "0.png", path).model_dump()
    change_manifest(path, lambda fields: fields["golden"]["images"][0].update(entry))
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
def test_refuses_expected_probabilities_of_another_shape_type_or_range(path: Path, text: str) -> None:
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
def test_refuses_a_graph_with_another_signature(path: Path, fault: str) -> None:
    inputs, outputs, message = SIGNATURES[fault]
    with pytest.raises(ShapeMismatchError, match=message):
        open_bundle(path).check_signature(inputs, outputs)


def test_accepts_an_unnamed_batch_dimension(path: Path) -> None:
    open_bundle(path).check_signature([replace(IMAGES, shape=[None, 8, 8, 3])], [PROBABILITIES, LOGITS])


@pytest.mark.parametrize("place", ["colours/2", "colours/01", "other/1"])
def test_refuses_a_folder_that_does_not_match_the_name_and_version(path: Path, tmp_path: Path, place: str) -> None:
    moved = tmp_path / place
    moved.parent.mkdir(exist_ok=True)
    path.rename(moved)
    with pytest.raises(ManifestError, match=f"colours version 1, but the bundle is in {place}"):
        open_bundle(moved)


def test_opens_a_bundle_through_a_link(path: Path, tmp_path: Path) -> None:
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
def test_opens_a_bundle_whose_path_matches_before_links_are_resolved(
    path: Path, tmp_path: Path, folder: str, link: str, target: str
) -> None:
    (tmp_path / folder).parent.mkdir(parents=True)
    path.rename(tmp_path / folder)
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(target)
    opened = open_bundle(tmp_path / "models" / "colours" / "1")
    assert opened.read(opened.manifest.fp32)


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx"])
def test_refuses_a_pipe_in_place_of_a_file_without_opening_it(path: Path, file: str) -> None:
    (path / file).unlink()
    os.mkfifo(path / file)
    with pytest.raises(BundleError, match=f"{file} cannot be read: it is not a regular file"):
        replay(path)


def test_refuses_another_format_version(path: Path) -> None:
    change_manifest(path, lambda fields: fields.update(format_version=2))
    with pytest.raises(FormatVersionError):
        open_bundle(path)


def test_hash_file_returns_the_relative_path_and_the_hash(path: Path) -> None:
    entry = hash_file(path / "golden" / "0.png", path)
    assert (entry.file, len(entry.sha256)) == ("golden/0.png", 64)
    assert Bundle(path, open_bundle(path).manifest).read(entry) == (path / "golden" / "0.png").read_bytes()


def test_the_template_bundle_matches_the_constants_of_these_tests(path: Path) -> None:
    manifest = open_bundle(path).manifest
    assert (manifest.labels, manifest.input, manifest.fp32.golden_tolerance) == (tuple(COLOURS), SPEC, 1e-3)
