import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.bundle import hash_file
from schemas.image import Pixels
from service.backends.base import Session
from service.backends.fake import FakeRuntime, FakeSession
from service.backends.onnx import OnnxRuntime
from service.errors import ModelNotFoundError, ModelRefusedError, NotReadyError
from service.inference.inputs import JsonInstance
from service.inference.model import Model
from service.repository.plan import Plan, PlannedModel, Refused, VersionRef
from service.repository.registry import Registry
from service.settings import Device, Settings
from tests.support.altered_bundles import add_variant, alter_golden, change_manifest, flip_byte
from tests.support.bundles import write_bundle
from tests.support.fake_runtimes import colours
from tests.support.loaded_registry import loaded_registry
from tests.support.service_process import SOON, until


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Registry]:
    return partial(loaded_registry, tmp_path, request)


def model_of(registry: Registry, name: str | None = None, version: int | None = None) -> Model:
    with registry.lease(name, version) as model:
        return model


def refusal(registry: Registry, name: str) -> str:
    entry = registry.entry(name)
    assert isinstance(entry, Refused)
    return entry.reason


def remove_weights(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()


def break_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{")


def rename(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(name="other"))


def future_format(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest.update(format_version=99))


def another_size(bundle: Path) -> None:
    change_manifest(bundle, lambda manifest: manifest["input"].update(height=16))


def replace_graph(bundle: Path) -> None:
    """Replaces the model by a file that is not a graph, and updates its hash."""
    (bundle / "model.onnx").write_bytes(b"no graph")

    def mend(manifest: dict[str, Any]) -> None:
        manifest["variants"][0] |= hash_file(bundle / "model.onnx", bundle).model_dump()

    change_manifest(bundle, mend)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda bundle: flip_byte(bundle / "model.onnx"), r"The SHA-256 of model\.onnx differs"),
        (alter_golden, r"Golden sample golden/1\.png: the probabilities"),
        (lambda bundle: flip_byte(bundle / "golden" / "0.png"), r"The SHA-256 of golden/0\.png differs"),
        (remove_weights, r"model\.onnx is missing"),
        (break_manifest, "manifest.json is not JSON"),
        (rename, "The manifest is of other version 1"),
        (future_format, "The bundle has format version 99"),
        (another_size, r"The graph's input 'images' is"),
        (replace_graph, "ONNX Runtime cannot open the graph"),
    ],
)
def test_refuses_a_bad_bundle_with_its_reason_while_another_serves(
    tmp_path: Path, load: Callable[..., Registry], damage: Callable[[Path], None], reason: str
) -> None:
    write_bundle(tmp_path, "good")
    damage(write_bundle(tmp_path, "bad"))
    registry = load()
    assert [entry.ref.name for entry in registry.loaded] == ["good"]
    assert model_of(registry, "good").manifest.name == "good"
    with pytest.raises(ModelRefusedError, match=f"bad version 1 was refused and cannot answer: {reason}"):
        model_of(registry, "bad")


def test_only_the_newest_version_serves(tmp_path: Path, load: Callable[..., Registry]) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, version=version)
    registry = load()
    assert model_of(registry, "colours").manifest.version == 2
    assert model_of(registry, "colours", 2).manifest.version == 2
    with pytest.raises(ModelNotFoundError, match=r"colours version 1 is not served\. Serving: 2"):
        model_of(registry, "colours", 1)


def test_the_only_model_is_the_default_even_where_it_was_refused(tmp_path: Path, load: Callable[..., Registry]) -> None:
    flip_byte(write_bundle(tmp_path, "a") / "model.onnx")
    with pytest.raises(ModelRefusedError):
        model_of(load())


def test_answers_for_a_configured_default_model_alone(tmp_path: Path, load: Callable[..., Registry]) -> None:
    write_bundle(tmp_path, "a")
    flip_byte(write_bundle(tmp_path, "b") / "model.onnx")
    assert model_of(load(default_model="a")).manifest.name == "a"
    with pytest.raises(ModelRefusedError):
        model_of(load(default_model="b"))
    with pytest.raises(ModelNotFoundError, match=r"Unknown model 'c'\. Models: a, b"):
        model_of(load(default_model="c"))


def test_with_no_models_it_is_not_ready(load: Callable[..., Registry]) -> None:
    with pytest.raises(NotReadyError, match="train one"):
        model_of(load())


def test_a_variant_that_fails_its_golden_samples_falls_back_to_fp32(
    tmp_path: Path, load: Callable[..., Registry]
) -> None:
    add_variant(write_bundle(tmp_path), "int8", scale=1.0)
    model = model_of(load())
    assert model.choice.variant.name == "fp32"
    assert "int8 was refused: Golden sample" in model.choice.reason


def test_a_variant_that_passes_serves(tmp_path: Path, load: Callable[..., Registry]) -> None:
    add_variant(write_bundle(tmp_path), "int8")
    assert model_of(load()).choice.variant.name == "int8"
    assert model_of(load(variant="fp32")).choice.variant.name == "fp32"


def test_refuses_the_bundle_if_fp32_fails_too(tmp_path: Path, load: Callable[..., Registry]) -> None:
    bundle = write_bundle(tmp_path)
    add_variant(bundle, "int8", scale=1.0)
    flip_byte(bundle / "model.onnx")
    assert "The SHA-256 of model.onnx differs" in refusal(load(), "colours")


def unready(images: Pixels) -> np.ndarray[Any, np.dtype[np.float32]]:
    raise RuntimeError("the device burns")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda images: np.zeros((len(images), 2), np.float32), r"shape \[1, 2\] instead of \[1, 3\]"),
        (lambda images: np.full((len(images), 3), np.nan, np.float32), "nan for class 0 of image 0"),
        (lambda images: np.full((len(images), 3), np.inf, np.float32), "inf for class 0 of image 0"),
        (lambda images: np.full((len(images), 3), 1 / 3, np.float32), "Golden sample"),
        (unready, "failed unexpectedly"),
    ],
)
def test_refuses_a_session_with_wrong_answers(
    tmp_path: Path, load: Callable[..., Registry], answer: Callable[[Pixels], Any], reason: str
) -> None:
    write_bundle(tmp_path)
    registry = load(FakeRuntime(lambda _: FakeSession((8, 8, 3), 3, answer)))
    with pytest.raises(ModelRefusedError, match=reason):
        model_of(registry)


def test_a_released_version_frees_its_session_at_once(tmp_path: Path, load: Callable[..., Registry]) -> None:
    """A model on a GPU may hold gigabytes, which must not wait for the garbage collector."""
    write_bundle(tmp_path)
    sessions: list[weakref.ref[Session]] = []

    def opened(model: bytes) -> Session:
        session = OnnxRuntime(Device.CPU, threads=1, spin=False).open(model)
        sessions.append(weakref.ref(session))
        return session

    registry = load(FakeRuntime(opened))
    gc.disable()
    try:
        asyncio.run(registry.serve(Plan()))
        asyncio.run(registry.close())
        until(lambda: sessions[0]() is None)
    finally:
        gc.enable()
    assert len(sessions) == 1


def ref_of(bundle: Path) -> VersionRef:
    return VersionRef(name=bundle.parent.name, version=int(bundle.name), path=bundle)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(Settings(artifacts=tmp_path), OnnxRuntime(Device.CPU, threads=1, spin=False))
    yield made
    asyncio.run(made.close())


def test_a_version_that_was_not_prepared_does_not_serve(tmp_path: Path, registry: Registry) -> None:
    bad, good = ref_of(write_bundle(tmp_path, "bad")), ref_of(write_bundle(tmp_path, "good"))

    async def run() -> None:
        assert await registry.prepare(good) is None
        refused = PlannedModel(name="bad", refused=(Refused(ref=bad, reason="Another process refused it."),))
        await registry.serve(Plan(models=(refused, PlannedModel(name="good", serving=(good,)))))
        assert model_of(registry, "good").manifest.name == "good"
        assert registry.refused == refused.refused
        assert [(one.ref.name, one.ref.version) for one in registry.loaded] == [("good", 1)]
        await registry.serve(Plan(models=(PlannedModel(name="bad", serving=(bad,)),)))
        assert "has not loaded the version" in refusal(registry, "bad")

    asyncio.run(run())


def test_a_version_that_is_prepared_after_the_close_is_closed_at_once(tmp_path: Path, registry: Registry) -> None:
    bundle = write_bundle(tmp_path)
    asyncio.run(registry.close())
    refused = asyncio.run(registry.prepare(ref_of(bundle)))
    assert refused is not None
    assert refused.reason == "The service is shutting down."
    assert not any(thread.name == "batcher-colours" for thread in threading.enumerate())


def test_a_link_to_another_version_is_refused(tmp_path: Path, registry: Registry) -> None:
    bundle = write_bundle(tmp_path)
    link = tmp_path / "colours" / "2"
    link.symlink_to(bundle)
    refused = asyncio.run(registry.prepare(ref_of(link)))
    assert refused is not None
    assert "is a link to colours version 1" in refused.reason


def test_all_models_close_at_the_same_time(tmp_path: Path, load: Callable[..., Registry]) -> None:
    """The running batch of each model ends only once the close has failed the request that waits for the other."""
    values, others = {"a": 77, "b": 88}, {"a": "b", "b": "a"}
    running, failed = ({name: threading.Event() for name in values} for _ in range(2))
    for name in values:
        write_bundle(tmp_path, name)

    def wait(images: Pixels) -> None:
        for name in [name for name, value in values.items() if (images == value).all()]:
            running[name].set()
            assert failed[others[name]].wait(SOON)

    registry = load(colours(wait), default_model="a")

    async def infer(name: str, value: int) -> int:
        return len(await model_of(registry, name).infer([JsonInstance([[value]])]))

    async def close() -> None:
        first = [asyncio.create_task(infer(name, value)) for name, value in values.items()]
        for event in running.values():
            await asyncio.to_thread(event.wait, SOON)
        waiting = {name: asyncio.create_task(infer(name, 1)) for name in values}
        await asyncio.sleep(0)
        for name, task in waiting.items():
            task.add_done_callback(lambda _, name=name: failed[name].set())  # type: ignore[misc]
        await registry.close()
        assert await asyncio.gather(*first) == [1, 1]
        refused = await asyncio.gather(*waiting.values(), return_exceptions=True)
        assert [type(error) for error in refused] == [NotReadyError, NotReadyError]

    asyncio.run(close())


def test_gives_up_a_load_that_does_not_return_and_loads_others_meanwhile(tmp_path: Path) -> None:
    let_go = threading.Event()
    hung, good = ref_of(write_bundle(tmp_path, "hung", scale=2.0)), ref_of(write_bundle(tmp_path, "good"))
    hung_graph = (hung.path / "model.onnx").read_bytes()
    cpu = OnnxRuntime(Device.CPU, threads=1, spin=False)

    def open_slowly(graph: bytes) -> Session:
        assert graph != hung_graph or let_go.wait(SOON)
        return cpu.open(graph)

    registry = Registry(Settings(artifacts=tmp_path), FakeRuntime(open_slowly), load_seconds=1)

    async def run() -> None:
        refused = await registry.prepare(hung)
        assert refused is not None
        assert "took longer than 1 seconds" in refused.reason
        assert await registry.prepare(good) is None
        let_go.set()
        await registry.close()

    asyncio.run(run())
    until(lambda: not any(thread.name == "files" for thread in threading.enumerate()))
