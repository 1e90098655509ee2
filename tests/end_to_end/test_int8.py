"""An int8 variant as the trainer makes it, in the service as it loads it."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import hash_file, open_bundle
from schemas.manifest import ModelManifest, VariantName, render_json
from service.backends.onnx import OnnxRuntime
from service.repository.registry import Registry
from service.settings import Device, Settings
from tests.support import colour_images
from tests.support.loaded_registry import load_all
from tests.support.training import train_bundle
from tests.support.variant_reference import reference_of, times
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.quantize import make_variants


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With int8 in it: found fast by a clock that says so, and as good by its real gates."""
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
    def loaded() -> Registry:
        settings = Settings(artifacts=tmp_path)
        registry = Registry(settings, OnnxRuntime(Device.CPU, threads=1, spin=False))
        load_all(registry, settings)
        request.addfinalizer(lambda: asyncio.run(registry.close()))
        return registry

    return loaded


def test_on_a_cpu_int8_serves_and_answers_its_golden_samples(bundle: Path, load: Callable[[], Registry]) -> None:
    registry = load()
    assert registry.refused == ()
    choice = registry.model("colours").choice
    assert (choice.variant.name, choice.reason) == ("int8", "int8 is the fastest variant of this bundle on a CPU")


def test_the_service_s_session_answers_int8_as_the_trainer_measured_it(bundle: Path) -> None:
    opened = open_bundle(bundle)
    variant = opened.manifest.variant(VariantName.INT8)
    assert variant is not None
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    content = opened.read(variant)
    answered = OnnxRuntime(Device.CPU, threads=1, spin=False).open(content).run(images)
    assert answered == pytest.approx(OnnxModel(content).probabilities(images), abs=1e-5)


def test_an_int8_file_that_answers_otherwise_is_left_for_fp32(bundle: Path, load: Callable[[], Registry]) -> None:
    """Another network's, with its hash mended: only the golden samples can tell, within int8's wider tolerance."""
    manifest = open_bundle(bundle).manifest
    untrained = colour_images.recipe(epochs=1, name="other", seed=9, optimizer={"name": "sgd", "learning_rate": 1e-9})
    other = train_bundle(untrained, bundle.parent.parent)
    (bundle / "model.int8.onnx").write_bytes((other.path / "model.onnx").read_bytes())
    mended = manifest.variants[1].model_copy(update=hash_file(bundle / "model.int8.onnx", bundle).model_dump())
    write(bundle, manifest.model_copy(update={"variants": (manifest.fp32, mended)}))
    choice = load().model("colours").choice
    assert choice.variant.name == "fp32"
    assert "int8 was refused: The golden sample" in choice.reason
