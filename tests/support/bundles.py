"""A small real bundle, made without torch: the classes of a 3-class RGB model are red, green and blue.

Its graph is logits = 20 * mean colour, so a test can tell from an image what must be answered. A mean is average
pooling, and the class activation map of a colour is that channel of the image, scaled.
"""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from schemas.bundle import INPUT_NAME, MANIFEST_FILE, FloatArray, hash_file
from schemas.image import Pixels, decode_image
from schemas.manifest import (
    DataProvenance,
    Explanation,
    Golden,
    InputSpec,
    ModelManifest,
    Parity,
    Pooling,
    Provenance,
    SplitMetrics,
    Task,
    Variant,
    VariantMap,
    VariantMetrics,
    VariantName,
    render_json,
)
from schemas.metrics import measure

COLOURS = {"red": (230, 20, 10), "green": (10, 220, 30), "blue": (20, 30, 240)}
SPEC = InputSpec(height=8, width=8, channels=3)


def solid(colour: str, size: tuple[int, int] = (8, 8), image_format: str = "PNG") -> bytes:
    """An encoded image of one colour; size is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, image_format)
    return buffer.getvalue()


def write_solid(path: Path, colour: str, size: tuple[int, int] = (8, 8), image_format: str = "PNG") -> None:
    """Writes what solid returns, and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(solid(colour, size, image_format))


def write_bundle(
    root: Path, name: str = "colours", version: int = 1, scale: float = 20.0, *, with_maps: bool = False
) -> Path:
    """Writes root/<name>/<version> and returns it. A larger scale makes the model more confident."""
    path = root / name / str(version)
    (path / "golden").mkdir(parents=True)
    (path / "report").mkdir()
    (path / "model.onnx").write_bytes(colour_model(scale))
    (path / "weights.safetensors").write_bytes(b"")
    (path / "report" / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    (path / "report" / "curves.png").write_bytes(solid("blue"))
    for i, colour in enumerate(COLOURS):
        (path / "golden" / f"{i}.png").write_bytes(solid(colour, size=(8 + i, 8)))
    images = sorted((path / "golden").glob("*.png"))
    pixels = np.stack([decode_image(image.read_bytes(), SPEC) for image in images])
    probabilities = run(path / "model.onnx", pixels)
    (path / "golden" / "expected.json").write_text(json.dumps(probabilities.astype(float).tolist()))
    manifest = _manifest(path, name, version, probabilities)
    if with_maps:
        (path / "model.cam.onnx").write_bytes(map_nodes(scale))
        values = maps(pixels, probabilities, scale)
        (path / "golden" / "maps.json").write_text(json.dumps(values.tolist()))
        manifest = _with_maps(path, manifest)
    (path / MANIFEST_FILE).write_text(render_json(manifest))
    return path


def maps(pixels: Pixels, probabilities: FloatArray, scale: float = 20.0) -> FloatArray:
    """The expected maps, float32 [batch, 8, 8]."""
    top = probabilities.argmax(axis=1)
    found: FloatArray = pixels[np.arange(len(pixels)), :, :, top].astype(np.float32) * np.float32(scale / 255)
    return found


def run(model: Path, pixels: Pixels) -> FloatArray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    probabilities: FloatArray = session.run(["probabilities"], {INPUT_NAME: pixels})[0]
    return probabilities


def colour_model(scale: float = 20.0) -> bytes:
    """ONNX: uint8 [batch, 8, 8, 3] -> softmax of the scaled mean colour."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "scale"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SPEC.shape])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("probabilities", "logits")],
        [
            numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"),
            numpy_helper.from_array(np.array(scale / 255, dtype=np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def map_nodes(scale: float = 20.0) -> bytes:
    """ONNX nodes to append to colour_model: cam = the channel of the greatest logit, scaled."""
    graph = helper.make_graph(
        [
            helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
            helper.make_node("Gather", ["weights", "top"], ["weight"]),
            helper.make_node("Mul", ["float", "weight"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "channels"], ["cam"], keepdims=0),
        ],
        "map",
        [],
        [helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", 8, 8])],
        [
            numpy_helper.from_array((np.eye(3, dtype=np.float32) * scale / 255).reshape(3, 1, 1, 3), "weights"),
            numpy_helper.from_array(np.array([3], dtype=np.int64), "channels"),
        ],
    )
    graph.ClearField("name")
    data: bytes = onnx.ModelProto(graph=graph).SerializeToString()
    return data


def _with_maps(path: Path, manifest: ModelManifest) -> ModelManifest:
    (fp32,) = manifest.variants
    nodes = VariantMap(**dict(hash_file(path / "model.cam.onnx", path)), golden_tolerance=1e-3)
    return manifest.model_copy(
        update={
            "variants": (fp32.model_copy(update={"explanation": nodes}),),
            "golden": manifest.golden.model_copy(update={"maps": hash_file(path / "golden" / "maps.json", path)}),
            "explanation": Explanation(height=8, width=8, pooling=Pooling.AVERAGE),
        }
    )


def _manifest(path: Path, name: str, version: int, probabilities: FloatArray) -> ModelManifest:
    metrics = measure(np.arange(3), probabilities, list(COLOURS))
    return ModelManifest(
        name=name,
        version=version,
        task=Task.MULTICLASS,
        labels=tuple(COLOURS),
        input=SPEC,
        variants=(
            Variant(
                name=VariantName.FP32,
                **hash_file(path / "model.onnx", path).model_dump(),
                metrics=VariantMetrics(accuracy=metrics.accuracy, log_loss=metrics.log_loss),
                parity=Parity(images=3, max_logit_difference=0, argmax_agreement=1),
                golden_tolerance=1e-3,
            ),
        ),
        golden=Golden(
            expected=hash_file(path / "golden" / "expected.json", path),
            images=tuple(hash_file(image, path) for image in sorted((path / "golden").glob("*.png"))),
        ),
        weights=hash_file(path / "weights.safetensors", path),
        metrics=SplitMetrics(validation=metrics, test=metrics),
        provenance=Provenance(
            recipe={"name": name, "network": {"name": "mean colour"}},
            data=DataProvenance(name="colours", content_hash="0" * 64, train=3, validation=3, test=3),
            seed=0,
            epochs=1,
            best_epoch=1,
            parameters=1,
            device="cpu",
            duration_seconds=0.0,
            created="2026-01-01T00:00:00Z",
            git_commit=None,
            libraries={"onnx": onnx.__version__},
        ),
    )
