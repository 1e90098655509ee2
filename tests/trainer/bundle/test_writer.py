import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.image import decode_image
from schemas.manifest import ModelManifest
from tests.support.bundles import SPEC, colour_model, run, write_bundle
from trainer.bundle.writer import new_bundle, publish, write_golden
from trainer.data.dataset import LabelledImages
from trainer.errors import ArtifactsError, ExportError, WriteError
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.graph import Graph


def prepared(folder: Path, template: Path) -> ModelManifest:
    """Copies a finished bundle's files into the folder, without the manifest and the card."""
    for file in template.rglob("*"):
        if file.is_file() and file.name not in {"manifest.json", "README.md"}:
            target = folder / file.relative_to(template)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    return open_bundle(template).manifest


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "template")


def publish_one(artifacts: Path, template: Path) -> Path:
    with new_bundle(artifacts, "colours") as folder:
        manifest = prepared(folder, template)
        graph = Graph((folder / "model.onnx").read_bytes())
        return publish(folder, manifest, graph).path


def test_versions_count_up_and_each_is_a_complete_bundle(tmp_path: Path, template: Path) -> None:
    artifacts = tmp_path / "artifacts"
    for number in (1, 2, 3):
        path = publish_one(artifacts, template)
        assert path == artifacts / "colours" / str(number)
        bundle = open_bundle(path)
        model = path / bundle.manifest.fp32.file
        bundle.check_golden(bundle.manifest.fp32, lambda pixels, model=model: run(model, pixels))  # type: ignore[misc]
        assert f"version {number}" in (path / "README.md").read_text()
    assert sorted(entry.name for entry in (artifacts / "colours").iterdir()) == ["1", "2", "3"]


def test_the_next_version_follows_the_highest(tmp_path: Path, template: Path) -> None:
    (tmp_path / "artifacts" / "colours" / "7").mkdir(parents=True)
    (tmp_path / "artifacts" / "colours" / "7" / "kept").touch()
    assert publish_one(tmp_path / "artifacts", template).name == "8"


def test_concurrent_runs_never_take_the_same_version(tmp_path: Path, template: Path) -> None:
    artifacts, paths, together = tmp_path / "artifacts", list[Path](), threading.Barrier(8)

    def one() -> None:
        with new_bundle(artifacts, "colours") as folder:
            manifest = prepared(folder, template)
            graph = Graph((folder / "model.onnx").read_bytes())
            together.wait()
            paths.append(publish(folder, manifest, graph).path)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in paths) == list(range(1, 9))
    assert all(open_bundle(path).manifest.version == int(path.name) for path in paths)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, template: Path) -> None:
    def interrupted() -> None:
        with new_bundle(tmp_path / "artifacts", "colours") as folder:
            prepared(folder, template)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_the_folder_being_written_is_hidden(tmp_path: Path) -> None:
    with new_bundle(tmp_path, "colours") as folder:
        assert folder.name.startswith(".")
        assert folder.parent == tmp_path / "colours"


def test_a_bundle_that_the_service_would_refuse_is_not_published(tmp_path: Path, template: Path) -> None:
    with new_bundle(tmp_path / "artifacts", "colours") as folder:
        manifest = prepared(folder, template)
        (folder / "model.onnx").write_bytes(colour_model(scale=5))
        with pytest.raises(ExportError, match="Golden sample"):
            publish(folder, manifest, Graph(colour_model(scale=5)))
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file, not a folder")
    with pytest.raises(ArtifactsError, match="is not writable"), new_bundle(tmp_path / "artifacts", "colours"):
        pass


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with new_bundle(tmp_path / "artifacts", "colours") as folder:
            (folder / "some").write_text("of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError, match="No space left on device"):
        write()
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_golden_samples_cover_the_classes_and_go_through_the_resize(tmp_path: Path) -> None:
    labels = np.array([2, 2, 2, 2, 0, 0, 1, 0, 2, 2])
    images = np.random.default_rng(0).integers(0, 256, (10, *SPEC.shape), dtype=np.uint8)
    model = OnnxModel(colour_model())
    golden, decoded, probabilities = write_golden(tmp_path, LabelledImages(images, labels), SPEC, model)
    written = [decode_image((tmp_path / entry.file).read_bytes(), SPEC) for entry in golden.images]
    assert np.array_equal(decoded, written)
    assert np.array_equal(decoded[:3], images[[4, 6, 0]])
    assert len(golden.images) == 9
    assert golden.images[-1].file.endswith(".jpg")
    expected = json.loads((tmp_path / golden.expected.file).read_text())
    assert np.allclose(expected, probabilities)
    assert np.allclose(expected[0], model.probabilities(images[4:5])[0])
