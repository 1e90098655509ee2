from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.bundle import FloatArray, TensorInfo
from schemas.image import Pixels
from service.backends.base import CPU, CUDA
from service.backends.fake import FakeSession
from service.backends.onnx import BucketSession, OnnxRuntime, OnnxSession, buckets
from service.errors import DeviceError, DeviceMemoryError, InferenceError
from service.settings import Device
from tests.support.bundles import colour_model

MEMORY = 2  # images that fit into the device of Narrow


def cuda_works() -> bool:
    return OnnxRuntime(Device.AUTO, threads=1, spin=False).provider == CUDA


def test_a_session_reports_its_provider_and_its_inputs() -> None:
    session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    assert session.provider == CPU
    assert session.inputs == [TensorInfo("images", "tensor(uint8)", ["batch", 8, 8, 3])]
    assert {output.name for output in session.outputs} == {"probabilities", "logits"}
    assert session.run(np.full((2, 8, 8, 3), 9, np.uint8)) == pytest.approx(np.full((2, 3), 1 / 3))


def test_bytes_that_are_no_graph_are_one_sentence() -> None:
    with pytest.raises(InferenceError, match="cannot open the graph") as error:
        OnnxRuntime(Device.CPU, threads=1, spin=False).open(b"no graph")
    assert "\n" not in str(error.value)


def test_a_batch_that_the_graph_cannot_run_is_our_error() -> None:
    session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    with pytest.raises(InferenceError, match="failed on a batch of 1"):
        session.run(np.zeros((1, 5, 5, 3), np.uint8))


def test_the_fake_has_the_signature_of_a_graph() -> None:
    fake = FakeSession((8, 8, 3), 3, lambda images: np.zeros((len(images), 3), np.float32))
    real = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    assert fake.inputs == real.inputs
    assert {output.name for output in fake.outputs} == {output.name for output in real.outputs}


class Narrow(OnnxSession):
    """A session on a device with memory for a limited number of images."""

    def __init__(self, memory: int) -> None:
        super().__init__(ort.InferenceSession(colour_model(), providers=[CPU]), CPU, max_batch=8)
        self.memory = memory

    def _infer(self, images: Pixels, outputs: Sequence[str]) -> list[FloatArray]:
        if len(images) > self.memory:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 4096")
        return super()._infer(images, outputs)


def images_of(count: int) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_a_batch_that_does_not_fit_into_memory_is_answered_in_parts() -> None:
    whole, narrow = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model()), Narrow(MEMORY)
    assert narrow.run(images_of(7)) == pytest.approx(whole.run(images_of(7)))


def test_raises_device_memory_error_for_a_single_image_and_recovers_when_memory_is_free() -> None:
    narrow = Narrow(0)
    with pytest.raises(DeviceMemoryError, match="out of memory; try again later"):
        narrow.run(images_of(3))
    narrow.memory = MEMORY
    assert len(narrow.run(images_of(3))) == 3


@given(max_batch=st.integers(1, 100), batch=st.integers(1, 100))
def test_every_batch_has_a_bucket_of_less_than_twice_its_size(max_batch: int, batch: int) -> None:
    sizes = buckets(max_batch)
    assert sizes[-1] == max_batch
    if batch <= max_batch:
        assert batch <= min(size for size in sizes if size >= batch) < 2 * batch or batch == 1


@settings(max_examples=20)
@given(counts=st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_filled_up_batches_are_answered_as_they_are_without_filling(counts: list[int]) -> None:
    plain = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    bucketed = BucketSession(ort.InferenceSession(colour_model(), providers=[CPU]), CPU, "cpu", max_batch=8)
    answers = [bucketed.run(images_of(count)) for count in counts]
    assert bucketed.warm_batches == (1, 2, 4, 8)
    for count, answer in zip(counts, answers, strict=True):
        assert answer == pytest.approx(plain.run(images_of(count)), abs=1e-6)


def test_auto_says_why_it_is_not_cuda() -> None:
    runtime = OnnxRuntime(Device.AUTO, threads=1, spin=False)
    if runtime.provider == CUDA:
        pytest.skip("CUDA works here")
    assert runtime.provider == CPU
    assert runtime.reason.startswith("CUDA cannot be used: ")


def test_refuses_cuda_without_a_device_and_names_the_missing_part() -> None:
    if cuda_works():
        pytest.skip("CUDA works here")
    with pytest.raises(
        DeviceError, match=r"CONVOY_DEVICE=cuda, but CUDA cannot be used: .*(libcuda|library|onnxruntime)"
    ):
        OnnxRuntime(Device.CUDA, threads=1, spin=False)


@pytest.fixture
def cuda() -> OnnxRuntime:
    runtime = OnnxRuntime(Device.AUTO, threads=1, spin=False, max_batch=8)
    if runtime.provider != CUDA:
        pytest.skip(runtime.reason)
    return runtime


@pytest.mark.cuda
@pytest.mark.parametrize("count", [1, 3, 8])
def test_cuda_answers_as_the_cpu_does(cuda: OnnxRuntime, count: int) -> None:
    expected = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model()).run(images_of(count))
    session = cuda.open(colour_model())
    assert session.provider == CUDA
    for _ in range(2):  # the second time out of buffers that were used before
        assert session.run(images_of(count)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.cuda
def test_cuda_warms_every_size_that_it_will_run(cuda: OnnxRuntime) -> None:
    assert cuda.open(colour_model()).warm_batches == (1, 2, 4, 8)
