import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from schemas.bundle import FloatArray, hash_file
from schemas.image import Pixels
from schemas.manifest import BatchSpeed, Variant, VariantName
from tests.support import colour_images
from tests.support.bundles import colour_model
from tests.support.training import train_bundle
from tests.support.variant_reference import reference_of, times
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.onnx_session import CPU, CUDA, OnnxModel
from trainer.export.latency import measure_speed
from trainer.export.quantize import (
    Reference,
    SpeedTest,
    _check_runs_on,
    _check_signature,
    _UnfitError,
    make_variants,
    saturates,
    to_fp16,
    to_int8,
)

INT8, FP16 = VariantName.INT8, VariantName.FP16
FAST = times(2, 3)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    recipe = colour_images.recipe(seed=3, epochs=6)
    return reference_of(train_bundle(recipe, tmp_path_factory.mktemp("artifacts")))


def kept(reference: Reference, folder: Path, speed_test: SpeedTest = FAST) -> Variant:
    (variant,) = make_variants([INT8], reference, folder, speed_test).kept
    return variant


def reason(reference: Reference, folder: Path, name: VariantName = INT8, speed_test: SpeedTest = FAST) -> str:
    """Why the variant was dropped; nothing of it is left."""
    made = make_variants([name], reference, folder, speed_test)
    assert made.kept == ()
    assert list(folder.iterdir()) == []
    (dropped,) = made.dropped
    assert dropped.name is name
    return dropped.reason


def test_a_variant_s_figures_are_those_of_its_very_file(reference: Reference, tmp_path: Path) -> None:
    variant = kept(reference, tmp_path)
    file = tmp_path / "model.int8.onnx"
    assert (variant.file, variant.sha256) == (file.name, hash_file(file, tmp_path).sha256)
    model = OnnxModel(file.read_bytes())
    data = reference.data
    test = evaluate(model, data.test, data.labels)
    assert variant.metrics.accuracy == test.metrics.accuracy
    assert variant.metrics.log_loss == test.metrics.log_loss
    difference = np.abs(test.logits - reference.network.logits).max()
    assert variant.parity.max_logit_difference == pytest.approx(difference)
    assert difference > 1e-3  # else it is no int8
    assert variant.parity.images == len(data.test)
    assert [entry.ratio for entry in variant.speed] == [2, 3]


def test_the_golden_tolerance_holds_for_the_variant_and_not_for_much_more(reference: Reference, tmp_path: Path) -> None:
    variant = kept(reference, tmp_path)
    answered = OnnxModel((tmp_path / variant.file).read_bytes()).probabilities(reference.golden_images)
    difference = float(np.abs(answered - reference.golden_probabilities).max())
    assert difference < variant.golden_tolerance == pytest.approx(1.5 * difference + 0.01)


def test_int8_has_weights_of_8_bits_by_channel_and_takes_and_gives_what_fp32_does(reference: Reference) -> None:
    content = to_int8(reference)
    graph = onnx.load_from_string(content).graph
    scales = {entry.name: entry for entry in graph.initializer if entry.name.endswith("weight_scale")}
    assert any(list(entry.dims) == [4] for entry in scales.values())  # one for each of the convolution's channels
    weights = [entry for entry in graph.initializer if entry.name.endswith("weight_quantized")]
    assert len(weights) >= 3
    assert {entry.data_type for entry in weights} == {onnx.TensorProto.INT8}
    largest = max(int(np.abs(onnx.numpy_helper.to_array(entry).astype(int)).max()) for entry in weights)
    assert largest == (64 if saturates() else 127)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    _check_signature(OnnxModel(content), OnnxModel(reference.model))
    assert str(Path.home()).encode() not in content
    assert b"/tmp" not in content


def test_fp16_computes_in_half_precision_and_takes_and_gives_what_fp32_does(reference: Reference) -> None:
    content = to_fp16(reference)
    weights = {entry.data_type for entry in onnx.load_from_string(content).graph.initializer if len(entry.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in weights
    assert onnx.TensorProto.FLOAT not in weights
    model = OnnxModel(content)
    _check_signature(model, OnnxModel(reference.model))
    difference = np.abs(model.logits(reference.network.images) - reference.network.logits).max()
    assert 1e-6 < difference < 0.05


def test_a_loss_of_accuracy_on_validation_drops_it(reference: Reference, tmp_path: Path) -> None:
    data = reference.data
    accuracy = evaluate(OnnxModel(to_int8(reference)), data.validation, data.labels).metrics.accuracy
    better = replace(reference, validation_accuracy=accuracy + 0.006)
    assert reason(better, tmp_path) == "it loses 0.60 points of accuracy on validation; the limit is 0.5"
    kept(replace(reference, validation_accuracy=accuracy + 0.004), tmp_path)


def test_the_test_split_decides_nothing(reference: Reference, tmp_path: Path) -> None:
    wrong = reference.data.test.take(np.arange(18))
    wrong.labels = (wrong.labels + 1) % 3
    assert kept(replace(reference, data=replace(reference.data, test=wrong)), tmp_path).metrics.accuracy < 0.1


@pytest.mark.parametrize("ratios", [(0.93, 2.0), (2.0, 0.93), (1.04, 0.93)])
def test_less_speed_than_fp32_at_any_batch_size_drops_it(
    reference: Reference, tmp_path: Path, ratios: tuple[float, float]
) -> None:
    message = reason(reference, tmp_path, speed_test=times(*ratios))
    assert message == f"it has 0.93 times the speed of fp32 at batch size {ratios.index(0.93) + 1}; the minimum is 1.05"


def test_answers_too_far_from_the_golden_ones_drop_it(reference: Reference, tmp_path: Path) -> None:
    message = reason(replace(reference, golden_probabilities=reference.golden_probabilities[:, ::-1]), tmp_path)
    assert "a tolerance of" in message
    assert "the limit is 0.5" in message


def test_a_difference_that_is_no_number_drops_it(reference: Reference, tmp_path: Path) -> None:
    expected = np.full_like(reference.golden_probabilities, np.nan)
    assert "a tolerance of nan" in reason(replace(reference, golden_probabilities=expected), tmp_path)


def test_a_failure_of_the_quantiser_drops_it_in_one_line_and_silence(
    reference: Reference, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The quantiser logs that ONNX Runtime does not know the operator, with a traceback."""
    strange = onnx.load_from_string(reference.model)
    strange.graph.node[0].op_type = "Nonsense"
    message = reason(replace(reference, model=strange.SerializeToString()), tmp_path)
    assert message.startswith("it could not be made: ")
    assert "\n" not in message
    assert caplog.records == []
    assert logging.getLogger("anything").isEnabledFor(logging.ERROR)


def test_keeps_int8_where_fp16_cannot_be_measured(reference: Reference, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    made = make_variants([INT8, FP16], reference, tmp_path, times(2))
    assert [variant.name for variant in made.kept] == [INT8]
    assert [(entry.name, entry.reason) for entry in made.dropped] == [
        (FP16, "this machine has no GPU to measure it on")
    ]


def test_a_file_that_runs_elsewhere_than_it_was_meant_to_drops_it(reference: Reference) -> None:
    with pytest.raises(_UnfitError, match="ran it on CPUExecutionProvider instead of CUDAExecutionProvider"):
        _check_runs_on(OnnxModel(reference.model, CPU), CUDA)


def test_other_outputs_than_fp32_s_drop_it(reference: Reference) -> None:
    _check_signature(OnnxModel(colour_model()), OnnxModel(colour_model()))
    other = onnx.load_from_string(colour_model())
    other.graph.output[0].name = other.graph.node[-1].output[0] = "scores"
    with pytest.raises(_UnfitError, match="differ from those of fp32"):
        _check_signature(OnnxModel(other.SerializeToString()), OnnxModel(colour_model()))


def test_what_cannot_be_written_is_no_reason_to_drop_but_an_error(reference: Reference, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        make_variants([INT8], reference, tmp_path / "missing", times(2))


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("fpu avx2 avx512f", "x86_64", True),
        ("fpu avx512_vnni", "x86_64", False),
        ("fpu avx_vnni", "AMD64", False),
        ("", "aarch64", False),
    ],
)
def test_weights_keep_to_7_bits_where_the_processor_would_saturate(
    tmp_path: Path, flags: str, machine: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert saturates(tmp_path / "cpuinfo", machine) is expected
    assert saturates(tmp_path / "missing", "x86_64")


def test_the_recipe_decides_which_settings_vary(tmp_path: Path) -> None:
    recipe = colour_images.recipe(epochs=1, variants=("int8",))
    manifest = train_bundle(recipe, tmp_path).manifest
    tried = {variant.name for variant in manifest.variants} | {dropped.name for dropped in manifest.dropped_variants}
    assert tried == {VariantName.FP32, INT8}
    card = (tmp_path / "colours" / "1" / "README.md").read_text(encoding="utf-8")
    assert "\n- int8: " in card
    assert all(dropped.reason in card for dropped in manifest.dropped_variants)


def test_without_images_enough_for_a_batch_the_speed_is_measured_on_repeated_ones(reference: Reference) -> None:
    class Counting(OnnxModel):
        batches: set[int] = set()  # noqa: RUF012

        def run(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
            self.batches.add(len(images))
            return super().run(images)

    one, two = Counting(reference.model), Counting(reference.model)
    speed = measure_speed(one, two, reference.calibration_images[:3])
    assert [entry.batch for entry in speed] == [1, 32] == sorted(Counting.batches)
    assert all(isinstance(entry, BatchSpeed) for entry in speed)


@pytest.mark.cuda
def test_fp16_is_measured_on_the_gpu(reference: Reference, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    made = make_variants([FP16], reference, tmp_path, times(2))
    assert [variant.name for variant in made.kept] == [FP16], made.dropped


QUANTISE = """
import resource
from pathlib import Path
import numpy as np
from schemas.manifest import InputSpec
from tests.support.colour_images import source
from trainer.data.split import split
from trainer.export.onnx import export
from trainer.export.quantize import Reference, to_int8
from trainer.models.backbones import build
from trainer.models.layers import Shape
from trainer.network_config import PACKAGED, BackboneConfig
from trainer.recipe import DataConfig, Source

spec = InputSpec(height=224, width=224, channels=3)
network = build(BackboneConfig(name=PACKAGED), Shape(height=224, width=224, channels=3, classes=3)).eval()
data = split(source(90).resized(spec).load(), DataConfig(source=Source.NPZ, validation=0.1, test=0.1))
reference = Reference(export(network, spec), data, 0.0, None, None, None)
used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**29, used + 2**29))
to_int8(reference)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's private memory alone")
def test_quantising_a_backbone_needs_less_than_half_a_gibibyte() -> None:
    ended = subprocess.run([sys.executable, "-c", QUANTISE], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
