"""The service loads an int8 variant that the trainer exported."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import hash_file, open_bundle
from schemas.manifest import ModelManifest, VariantName, render_json
from service.backends.onnx import OnnxRuntime
from service.repository.registry import Registry
from service.settings import Device
from tests.support import colour_images
from tests.support.loaded_registry import loaded_registry
from tests.support.training import train_bundle
from tests.support.variant_reference import reference_of, times
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.quantize import make_variants


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with int8: a fake clock reports that it is faster, and it passes the real accuracy check."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    path = train_bundle(colour_images.recipe(epochs=6), artifacts).path
    manifest = open_bundle(path).manifest
    kept = make_variants([VariantName.INT8], reference_of(open_bundle(path)), path, times(2)).kept
    write(path, manifest.model_copy(update={"variants": (manifest.fp32, *kept)}))
    return path


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "colours" / "1")


def write(path: Path, manifest: ModelManifest) -> None:
    (path / "manifest.json").write_text(render_json(manifest))


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Registry]:
    return partial(loaded_registry, tmp_path, request)


def test_int8_serves_on_a_cpu_and_passes_its_golden_samples(bundle: Path, load: Callable[[], Registry]) -> None:
    registry = load()
    assert registry.refused == ()
    with registry.lease("colours") as model:
        choice = model.choice
    assert (choice.variant.name, choice.reason) == ("int8", "int8 is the fastest variant of this bundle on a CPU")


def test_the_session_reproduces_the_int8_accuracy_that_the_trainer_measured(bundle: Path) -> None:
    opened = open_bundle(bundle)
    variant = opened.manifest.variant(VariantName.INT8)
    assert variant is not None
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    content = opened.read(variant)
    answered = OnnxRuntime(Device.CPU, threads=1, spin=False).open(content).run(images)
    assert answered == pytest.approx(OnnxModel(content).probabilities(images), abs=1e-5)


def test_falls_back_to_fp32_if_int8_fails_its_golden_samples(bundle: Path, load: Callable[[], Registry]) -> None:
    """Replaces int8 with another network and updates its hash, so that only the golden samples detect it."""
    manifest = open_bundle(bundle).manifest
    untrained = colour_images.recipe(epochs=1, name="other", seed=9, optimizer={"name": "sgd", "learning_rate": 1e-9})
    other = train_bundle(untrained, bundle.parent.parent)
    (bundle / "model.int8.onnx").write_bytes((other.path / "model.onnx").read_bytes())
    mended = manifest.variants[1].model_copy(update=hash_file(bundle / "model.int8.onnx", bundle).model_dump())
    write(bundle, manifest.model_copy(update={"variants": (manifest.fp32, mended)}))
    with load().lease("colours") as model:
        choice = model.choice
    assert choice.variant.name == "fp32"
    assert "int8 was refused: Golden sample" in choice.reason
