import numpy as np
import pytest

from schemas.bundle import TensorInfo
from service.errors import DeviceError, InferenceError
from service.session import CPU, CUDA, FakeSession, OnnxRuntime
from service.settings import Device
from tests.bundles import colour_model


def cuda_works() -> bool:
    return OnnxRuntime(Device.AUTO, threads=1, spin=False).provider == CUDA


def test_a_session_tells_where_it_runs_and_what_it_takes() -> None:
    session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    assert session.provider == CPU
    assert session.inputs == [TensorInfo("images", "tensor(uint8)", ["batch", 8, 8, 3])]
    assert {output.name for output in session.outputs} == {"probabilities", "logits"}
    assert session.run(np.full((2, 8, 8, 3), 9, np.uint8)) == pytest.approx(np.full((2, 3), 1 / 3))


def test_bytes_that_are_no_graph_are_one_sentence() -> None:
    with pytest.raises(InferenceError, match="cannot open the graph") as said:
        OnnxRuntime(Device.CPU, threads=1, spin=False).open(b"no graph")
    assert "\n" not in str(said.value)


def test_a_batch_that_the_graph_cannot_run_is_our_error() -> None:
    session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    with pytest.raises(InferenceError, match="failed on a batch of 1"):
        session.run(np.zeros((1, 5, 5, 3), np.uint8))


def test_the_fake_has_the_signature_of_a_graph() -> None:
    fake = FakeSession((8, 8, 3), 3, lambda images: np.zeros((len(images), 3), np.float32))
    real = OnnxRuntime(Device.CPU, threads=1, spin=False).open(colour_model())
    assert fake.inputs == real.inputs
    assert {output.name for output in fake.outputs} == {output.name for output in real.outputs}


def test_auto_says_why_it_is_not_cuda() -> None:
    runtime = OnnxRuntime(Device.AUTO, threads=1, spin=False)
    if runtime.provider == CUDA:
        pytest.skip("CUDA works here")
    assert runtime.provider == CPU
    assert runtime.reason.startswith("CUDA cannot be used: ")


def test_cuda_where_there_is_none_is_an_error_that_names_what_is_missing() -> None:
    if cuda_works():
        pytest.skip("CUDA works here")
    with pytest.raises(
        DeviceError, match=r"CONVOY_DEVICE=cuda, but CUDA cannot be used: .*(libcuda|library|onnxruntime)"
    ):
        OnnxRuntime(Device.CUDA, threads=1, spin=False)


@pytest.mark.cuda
def test_cuda_answers_as_the_cpu_does() -> None:
    if not cuda_works():
        pytest.skip(OnnxRuntime(Device.AUTO, threads=1, spin=False).reason)
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    answers = [
        OnnxRuntime(device, threads=1, spin=False).open(colour_model()).run(images)
        for device in (Device.CPU, Device.CUDA)
    ]
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
