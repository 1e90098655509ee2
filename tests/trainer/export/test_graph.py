from pathlib import Path

import numpy as np
import onnx
import pytest

from schemas.image import Pixels
from schemas.manifest import VariantName
from tests.support import colour_images
from tests.support.parity import parity_of
from tests.support.training import train_bundle
from tests.trainer.models.test_activation_map import FAST, RESIDUAL, RESNET, SPEC, network_of
from trainer.evaluation.onnx_session import OnnxModel
from trainer.export.body import export_body
from trainer.export.graph import GoldenMaps, Graph
from trainer.export.onnx import NetworkOutput, export, export_with_map
from trainer.export.quantize import Reference, golden_map_tolerance, to_fp16, to_int8
from trainer.models.tta import with_views
from trainer.network_config import AnyNetwork, BackboneConfig, FastConfig, PlainConfig
from trainer.recipe import Views
from trainer.training.probe import body_of


def images(count: int = 12) -> Pixels:
    """Noise below a bright spot, at another position each."""
    random = np.random.default_rng(0)
    batch = random.integers(0, 90, (count, *SPEC.shape), dtype=np.uint8)
    for i in range(count):
        y, x = random.integers(0, SPEC.height - 16, 2)
        batch[i, y : y + 16, x : x + 16, i % 3] += 160
    return batch


@pytest.mark.parametrize("views", [Views.ONE, Views.SHIFT])
@pytest.mark.parametrize("sigmoid", [False, True], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize("config", [FAST, RESIDUAL, RESNET], ids=["fast", "residual", "resnet"])
def test_both_files_together_answer_as_the_network_with_its_maps(
    config: AnyNetwork, sigmoid: bool, views: Views
) -> None:
    """export_with_map compares the maps with the network's, and raises if they differ."""
    network = with_views(network_of(config, sigmoid=sigmoid), views)
    graph, explanation = export_with_map(network, SPEC, 1.3, images())
    main, whole = OnnxModel(graph.main), OnnxModel(graph.whole)
    assert [output.name for output in main.outputs] == ["probabilities", "logits"]
    assert [output.name for output in whole.outputs] == ["probabilities", "logits", "cam"]
    probabilities, maps = whole.explain(images())
    assert maps.shape == (12, explanation.height, explanation.width)
    np.testing.assert_allclose(probabilities, main.run(images())[0], atol=1e-5)
    parity_of(graph.main, network, images())


@pytest.mark.parametrize(("name", "sigmoid"), [("test_resnet", True), ("test_convnext", False)])
def test_the_exported_body_and_its_head_are_the_whole_graph(name: str, sigmoid: bool) -> None:
    network = network_of(BackboneConfig(name=name), sigmoid=sigmoid)
    whole, explanation = export_with_map(network, SPEC, 1.3, images())
    joined, _ = export_with_map(network, SPEC, 1.3, images(), export_body(body_of(network), SPEC))
    parity_of(joined.main, network, images())
    imports = [onnx.load_from_string(graph.main).opset_import for graph in (whole, joined)]
    assert imports[0] == imports[1]
    assert bool(joined.map_nodes) == (explanation.reason is None)
    for graph in ("main", "whole"):
        first, second = (OnnxModel(getattr(each, graph)) for each in (whole, joined))
        assert second.outputs == first.outputs
        names = [output.name for output in first.outputs]
        for expected, found in zip(first.compute(images(), names), second.compute(images(), names), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_first_file_is_the_network_without_maps() -> None:
    network = network_of(RESIDUAL)
    graph, _ = export_with_map(network, SPEC, 1.0, images())
    with_map, without = (onnx.load_from_string(content).graph for content in (graph.main, export(network, SPEC)))
    assert sorted(node.op_type for node in with_map.node) == sorted(node.op_type for node in without.node)
    assert len(graph.map_nodes) < 10_000


def test_a_graph_without_maps_is_one_file(tmp_path: Path) -> None:
    graph, explanation = export_with_map(network_of(PlainConfig(widths=(4,), dense=8)), SPEC, 1.0, images())
    assert explanation.reason
    assert graph.map_nodes == b""
    assert graph.write(tmp_path / "model.onnx", None) is None
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("convert", [to_int8, to_fp16])
@pytest.mark.parametrize("config", [RESIDUAL, RESNET], ids=["residual", "resnet"])
def test_the_maps_of_a_variant_are_near_those_of_fp32(config: AnyNetwork, convert: object) -> None:
    graph, _ = export_with_map(network_of(config), SPEC, 1.0, images())
    fp32 = OnnxModel(graph.whole)
    probabilities, maps = fp32.explain(images())
    golden = GoldenMaps(images(), probabilities.argmax(axis=1), maps)
    data = colour_images.splits(colour_images.recipe())
    object.__setattr__(data.train, "images", images(64))
    reference = Reference(
        graph.whole, data, 1.0, NetworkOutput.of(fp32.logits, images()), images(), probabilities, golden
    )
    variant = Graph.of(convert(reference))  # type: ignore[operator]
    assert [output.name for output in OnnxModel(variant.main).outputs] == ["probabilities", "logits"]
    np.testing.assert_allclose(
        OnnxModel(variant.whole).explain(images())[0], OnnxModel(variant.main).run(images())[0], atol=0.02
    )
    difference = golden.difference(OnnxModel(variant.whole))
    assert 0 < difference < 0.25 * golden.scale
    tolerance = golden_map_tolerance(variant, "CPUExecutionProvider", golden)
    assert tolerance == pytest.approx(1.5 * difference + 0.01 * golden.scale)


def test_a_trained_bundle_has_maps_in_every_variant(tmp_path: Path) -> None:
    recipe = colour_images.recipe(
        network=FastConfig(widths=(8,), whitening_stride=1), test_views=Views.MIRROR, epochs=4, variants=("int8",)
    )
    bundle = train_bundle(recipe, tmp_path)
    manifest = bundle.manifest
    assert manifest.map_shape == (3, 3)
    assert manifest.golden.maps is not None
    for variant in manifest.variants:
        model = OnnxModel(bundle.read_with_map(variant))
        bundle.check_signature(model.inputs, model.outputs, with_map=True)
        bundle.check_golden_maps(variant, model.explain)
        assert variant.explanation is not None
        assert variant.explanation.file == variant.file.replace(".onnx", ".cam.onnx")
    assert manifest.variant(VariantName.INT8) or manifest.dropped_variants


def test_a_bundle_of_another_network_has_the_reason(tmp_path: Path) -> None:
    bundle = train_bundle(colour_images.recipe(), tmp_path)
    assert bundle.manifest.explanation is not None
    assert bundle.manifest.explanation.reason == "The network does not end in global pooling and one linear layer."
    assert bundle.manifest.map_shape is None
    assert bundle.manifest.golden.maps is None
    assert not (bundle.path / "model.cam.onnx").exists()
