import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from schemas.bundle import FloatArray, open_bundle
from schemas.image import Pixels
from schemas.manifest import InputSpec
from schemas.metrics import measure
from schemas.prediction import FailedPrediction, OnError, Prediction, PredictResponse
from service.backends.fake import FakeSession
from service.backends.variants import VariantChoice
from service.errors import (
    DeadlineError,
    InferenceError,
    InvalidImagesError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    ServiceError,
)
from service.inference.execution import Execution, Mode
from service.inference.explanation import Explainer
from service.inference.inputs import EncodedImage, Image, PixelArray
from service.inference.model import Model
from service.inference.pipeline import LOOP_DECODE_COST, LOOP_PIXELS
from service.inference.predictions import Predictions
from service.inference.request_context import RequestContext
from service.telemetry.counters import Counters
from service.telemetry.metrics import ModelMetrics
from service.telemetry.statistics import StatisticsOf
from tests.support.bundles import COLOURS, solid, write_bundle

BROKEN = EncodedImage(b"no image")
MakeModel = Callable[..., Model]


def brightness(images: Pixels) -> FloatArray:
    """Probabilities [batch, 3]: the first class has the share of the image's brightest value."""
    share = images.reshape(len(images), -1).max(axis=1) / np.float32(255)
    return np.stack([share, (1 - share) / 2, (1 - share) / 2], axis=1).astype(np.float32)


def grey(value: int) -> PixelArray:
    return PixelArray(np.full((8, 8, 3), value, np.uint8))


@pytest.fixture
def model_of(tmp_path: Path) -> MakeModel:
    manifest = open_bundle(write_bundle(tmp_path, with_maps=True)).manifest

    def make(
        answer: Callable[[Pixels], FloatArray] = brightness,
        max_batch: int = 4,
        queue: int = 100,
        mode: Mode = Mode.THREAD,
        **more: Any,
    ) -> Model:
        session = FakeSession(manifest.input.shape, len(manifest.labels), answer)
        execution = Execution(mode=mode, reason="for the test", max_batch=max_batch)
        choice = VariantChoice(manifest.fp32, "for the test")
        return Model(manifest, choice, session, execution, queue=queue, max_pixels=1_000_000, **more)

    return make


def predicted(model: Model, images: Sequence[Image], *options: Any) -> PredictResponse:
    return PredictResponse.model_validate_json(asyncio.run(model.predict(images, *options)).to_json())


def test_each_image_gets_its_own_answer_in_order(model_of: MakeModel) -> None:
    values = [(7 * i) % 256 for i in range(130)]
    response = predicted(model_of(), [grey(value) for value in values], 3, None)
    by_label = [{c.label: c.probability for c in p.top} for p in response.predictions if isinstance(p, Prediction)]
    assert [round(255 * said["red"]) for said in by_label] == values


def test_top_k_is_in_falling_order_and_at_most_all_classes(model_of: MakeModel) -> None:
    model = model_of()
    for top_k, count in ((1, 1), (2, 2), (None, 3), (99, 3)):
        (prediction,) = predicted(model, [grey(200)], top_k, None).predictions
        assert isinstance(prediction, Prediction)
        probabilities = [entry.probability for entry in prediction.top]
        assert len(probabilities) == count
        assert probabilities == sorted(probabilities, reverse=True)
        assert (prediction.label, prediction.probability) == (prediction.top[0].label, probabilities[0])


def test_among_equals_the_first_class_wins_as_in_argmax(model_of: MakeModel) -> None:
    model = model_of(lambda images: np.full((len(images), 3), 1 / 3, np.float32))
    (prediction,) = predicted(model, [grey(1)], None, None).predictions
    assert isinstance(prediction, Prediction)
    assert [entry.index for entry in prediction.top] == [0, 1, 2]


@pytest.mark.parametrize("mode", list(Mode))
def test_requests_with_and_without_maps_share_a_batch(model_of: MakeModel, mode: Mode) -> None:
    batches: list[int] = []

    def answer(images: Pixels) -> FloatArray:
        batches.append(len(images))
        return brightness(images)

    model = model_of(answer, mode=mode)

    async def ask() -> tuple[Predictions, Predictions, tuple[FloatArray, FloatArray]]:
        plain, explained = model.predict([grey(51)]), model.predict([grey(102), grey(255)], explain=True)
        return await asyncio.gather(explained, plain, model.infer_with_maps([grey(204)]))

    explained, plain, (probabilities, maps) = asyncio.run(ask())
    assert batches == [4]
    assert [map_.values[0, 0] for map_ in explained.maps if map_] == [102, 255]  # the fake's map is the image
    assert plain.maps == []
    assert plain.probabilities[0, 0] == pytest.approx(51 / 255)
    assert probabilities[0, 0] == pytest.approx(204 / 255)
    assert maps.shape == (1, 8, 8)
    assert maps[0, 0, 0] == 204


def test_a_map_that_is_not_finite_is_an_inference_error(model_of: MakeModel) -> None:
    class Broken(FakeSession):
        def explain(self, images: Pixels) -> tuple[FloatArray, FloatArray]:
            return brightness(images), np.full((len(images), 8, 8), np.nan, np.float32)

    session = Broken((8, 8, 3), 3, brightness)
    manifest = model_of().manifest
    model = model_of(explainer=Explainer(manifest, lambda: session, max_images=9))
    with pytest.raises(InferenceError, match="maps"):
        asyncio.run(model.predict([grey(1)], explain=True))
    assert len(asyncio.run(model.predict([grey(1)])).probabilities) == 1


def test_an_image_that_runs_alone_uses_the_wide_session(model_of: MakeModel) -> None:
    def certain(label: int) -> Callable[[Pixels], FloatArray]:
        return lambda images: np.tile(np.eye(3, dtype=np.float32)[label], (len(images), 1))

    wide = FakeSession((8, 8, 3), 3, certain(2))
    model = model_of(certain(1), mode=Mode.THREAD, wide_session=wide)
    for images, expected in (([grey(1)], [2]), ([grey(1), grey(2)], [1, 1])):
        predictions = predicted(model, images).predictions
        assert [p.index for p in predictions if isinstance(p, Prediction)] == expected


def test_names_each_bad_image(model_of: MakeModel) -> None:
    images: list[Image] = [grey(1), BROKEN, grey(2), BROKEN]
    with pytest.raises(InvalidImagesError, match="Image 1 of 4") as refused:
        predicted(model_of(), images, None, OnError.REQUEST)
    assert [error.index for error in refused.value.errors] == [1, 3]


def test_answers_the_good_images_with_on_error_item(model_of: MakeModel) -> None:
    response = predicted(model_of(), [grey(1), BROKEN, grey(255)], None, OnError.ITEM)
    kinds = [type(prediction) for prediction in response.predictions]
    assert kinds == [Prediction, FailedPrediction, Prediction]
    assert isinstance(response.predictions[2], Prediction)
    assert response.predictions[2].label == "red"


def test_does_not_run_the_model_if_every_image_is_bad(model_of: MakeModel) -> None:
    response = predicted(model_of(lambda _: pytest.fail("ran")), [BROKEN], None, OnError.ITEM)
    assert isinstance(response.predictions[0], FailedPrediction)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda images: np.full((len(images), 3), np.nan, np.float32), "nan for class 0 of image 0"),
        (lambda images: np.full((len(images), 3), 1.5, np.float32), "1.5 for class 0"),
        (lambda images: np.full((len(images), 3), -0.5, np.float32), "-0.5 for class 0"),
        (lambda images: np.zeros((len(images) + 1, 3), np.float32), "an array of shape"),
    ],
)
def test_raises_inference_error_for_outputs_that_are_not_probabilities(
    model_of: MakeModel, answer: Callable[[Pixels], FloatArray], said: str
) -> None:
    with pytest.raises(InferenceError, match=said):
        predicted(model_of(answer), [grey(1)], None, OnError.ITEM)


def test_accepts_a_softmax_that_rounds_above_one(model_of: MakeModel) -> None:
    model = model_of(lambda images: np.array([[1.0000001, 0, 0]] * len(images), np.float32))
    (prediction,) = predicted(model, [grey(1)], 1, None).predictions
    assert isinstance(prediction, Prediction)
    assert prediction.probability == 1


def test_a_model_with_a_thread_decodes_and_infers_there(model_of: MakeModel) -> None:
    threads: list[str] = []

    class Spy(PixelArray):
        def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
            threads.append(threading.current_thread().name)
            return super().decode(spec, max_pixels)

    def answer(images: Pixels) -> FloatArray:
        threads.append(threading.current_thread().name)
        return brightness(images)

    predicted(model_of(answer), [Spy(np.zeros((8, 8, 3), np.uint8))], None, None)
    assert set(threads) == {"batcher-colours_0"}


class WhereDecoded(EncodedImage):
    """Records the threads that decode it."""

    threads: ClassVar[list[str]] = []

    def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
        self.threads.append(threading.current_thread().name)
        return super().decode(spec, max_pixels)


@pytest.mark.parametrize(
    ("data", "threads"),
    [
        (solid("red"), ["MainThread"]),
        (solid("red") + bytes(LOOP_DECODE_COST), ["batcher-colours_0"]),
        (solid("red", (LOOP_PIXELS // 128 + 1, 128)), ["MainThread", "batcher-colours_0"]),
    ],
    ids=["small", "many bytes", "many pixels, which its header shows"],
)
def test_a_model_on_the_event_loop_decodes_large_images_in_the_thread(
    model_of: MakeModel, data: bytes, threads: list[str]
) -> None:
    WhereDecoded.threads.clear()
    model = model_of(mode=Mode.EVENT_LOOP)
    (prediction,) = predicted(model, [WhereDecoded(data)]).predictions
    assert isinstance(prediction, Prediction)
    assert prediction.label == "red"
    assert WhereDecoded.threads == threads


def test_an_image_beyond_the_limit_of_pixels_is_refused_in_either_mode(model_of: MakeModel) -> None:
    large = PixelArray(np.zeros((1001, 1000, 3), np.uint8))
    for mode in Mode:
        with pytest.raises(InvalidImagesError, match="the limit is 1,000,000"):
            predicted(model_of(mode=mode), [large])


def test_decode_threads_decode_a_batch_together(model_of: MakeModel) -> None:
    met = threading.Barrier(2, timeout=20)

    class Meeting(PixelArray):
        def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
            met.wait()
            return super().decode(spec, max_pixels)

    images = [Meeting(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255)]
    response = predicted(model_of(brightness, decode_threads=2), images, 1, None)
    alone = predicted(model_of(brightness), [grey(0), grey(255)], 1, None)
    assert response == alone


def test_with_decode_threads_a_batch_is_decoded_while_the_one_before_it_runs(model_of: MakeModel) -> None:
    decoded = threading.Event()

    class Second(PixelArray):
        def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
            decoded.set()
            return super().decode(spec, max_pixels)

    def answer(images: Pixels) -> FloatArray:
        assert decoded.wait(20)
        return brightness(images)

    images = [grey(0), Second(np.full((8, 8, 3), 255, np.uint8))]
    response = predicted(model_of(answer, max_batch=1, decode_threads=1), images, 1)
    assert [prediction.label for prediction in response.predictions if isinstance(prediction, Prediction)] == [
        "green",
        "red",
    ]


def test_at_most_one_batch_is_decoded_at_a_time(model_of: MakeModel) -> None:
    steps: list[str] = []

    class Spy(PixelArray):
        def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
            steps.append("decode")
            return super().decode(spec, max_pixels)

    def answer(images: Pixels) -> FloatArray:
        steps.append("run")
        return brightness(images)

    predicted(model_of(answer, max_batch=3), [Spy(np.zeros((8, 8, 3), np.uint8))] * 7, None, None)
    assert steps == ["decode"] * 3 + ["run"] + ["decode"] * 3 + ["run", "decode", "run"]


def test_refuses_overload_before_decoding(model_of: MakeModel) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Trap(PixelArray):
        def decode(self, spec: InputSpec, max_pixels: int) -> Pixels:
            raise AssertionError("decoded")

    def answer(images: Pixels) -> FloatArray:
        entered.set()
        assert go_on.wait(20)
        return brightness(images)

    async def ask() -> None:
        model = model_of(answer, max_batch=1, queue=1)
        running = asyncio.create_task(model.predict([grey(1)], None, None))
        await asyncio.to_thread(entered.wait, 20)
        waiting = asyncio.create_task(model.predict([grey(2)] * 2, None, None))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await model.predict([Trap(np.zeros((8, 8, 3), np.uint8))], None, None)
        go_on.set()
        assert len((await running).to_list() + (await waiting).to_list()) == 3

    asyncio.run(ask())


def test_evaluate_measures_the_probabilities(model_of: MakeModel) -> None:
    values = [(11 * i) % 256 for i in range(50)]
    labels = [i % 3 for i in range(50)]
    report = asyncio.run(model_of().evaluate([grey(value) for value in values], labels, None))
    probabilities = brightness(np.stack([grey(value).pixels for value in values]))
    expected = measure(np.array(labels), probabilities, list(COLOURS))
    said = report.model_dump(include=set(type(expected).model_fields))
    for one in said["per_class"]:
        del one["precision_interval"], one["recall_interval"]
    assert said == expected.model_dump()
    assert (report.model, report.version, report.variant, report.provider) == (
        "colours",
        1,
        "fp32",
        "FakeExecutionProvider",
    )


def test_evaluate_leaves_room_in_the_queue_for_others(model_of: MakeModel) -> None:
    """40 images into a queue of 20, of which a window takes at most 16: a single image is never turned away."""
    model = model_of(max_batch=4, queue=20)

    async def ask() -> None:
        evaluating = asyncio.create_task(model.evaluate([grey(1)] * 400, ["red"] * 400, None))
        while not evaluating.done():
            await model.predict([grey(2)], None, None)
        assert (await evaluating).n == 400

    asyncio.run(ask())


def test_an_evaluation_that_was_admitted_is_not_turned_away_halfway(model_of: MakeModel) -> None:
    measuring, others_run, go_on, end = (threading.Event() for _ in range(4))

    def answer(images: Pixels) -> FloatArray:
        events = {2: (measuring, go_on), 99: (others_run, end)}.get(int(images.max()))
        if events:
            entered, gate = events
            entered.set()
            assert gate.wait(20)
        return brightness(images)

    async def ask() -> None:
        model = model_of(answer, max_batch=1, queue=1)
        evaluating = asyncio.create_task(model.evaluate([grey(v) for v in (1, 1, 1, 2, 1)], ["red"] * 5, None))
        await asyncio.to_thread(measuring.wait, 20)
        # Its last image of the first window runs; these fill the queue, and stand there as its second window comes.
        others = asyncio.create_task(model.predict([grey(99)] * 3, None, None))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.to_thread(others_run.wait, 20)
        for _ in range(10):  # turns of the loop for the evaluation to send its second window
            await asyncio.sleep(0)
        end.set()
        assert (await evaluating).n == 5
        assert len((await others).to_list()) == 3

    asyncio.run(ask())


def test_evaluate_leaves_bad_images_out_and_names_them(model_of: MakeModel) -> None:
    images: list[Image] = [grey(255), BROKEN, grey(255)]
    labels = ["red", "green", "blue"]
    with pytest.raises(InvalidImagesError):
        asyncio.run(model_of().evaluate(images, labels, None))
    report = asyncio.run(model_of().evaluate(images, labels, OnError.ITEM))
    assert (report.n, report.accuracy, [error.index for error in report.errors]) == (2, 0.5, [1])


def test_evaluate_names_the_bad_images_if_none_is_good(model_of: MakeModel) -> None:
    with pytest.raises(InvalidImagesError) as caught:
        asyncio.run(model_of().evaluate([BROKEN, BROKEN], ["red", "red"], OnError.ITEM))
    assert [error.index for error in caught.value.errors] == [0, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["red"], "There are 2 images and 1 labels"),
        (["red", "purple"], "Label 1, 'purple', is not one of the model's labels: red, green, blue"),
        (["red", "0"], "Label 1, '0', is"),
        ([0, 3], "Label 1 is the class index 3; the model has the classes 0 to 2"),
        ([-1, 0], "Label 0 is the class index -1"),
    ],
)
def test_refuses_labels_that_do_not_fit(model_of: MakeModel, labels: list[str | int], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        asyncio.run(model_of().evaluate([grey(1), grey(2)], labels, None))


def test_infer_returns_probabilities_or_names_the_first_bad_image(model_of: MakeModel) -> None:
    model = model_of()
    np.testing.assert_array_equal(asyncio.run(model.infer([grey(255), grey(0)])), [[1, 0, 0], [0, 0.5, 0.5]])
    with pytest.raises(InvalidRequestError, match=r"Image 1 of 3 \(counted from 0\) cannot be used: .*image"):
        asyncio.run(model.infer([grey(255), BROKEN, BROKEN]))


class Gate:
    """Answers, once it is let go, and says when it was asked."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def __call__(self, images: Pixels) -> FloatArray:
        self.seen.append(int(images.max()))
        self.entered.set()
        assert self.open.wait(20)
        return brightness(images)


def test_raises_deadline_error_in_time_while_the_session_hangs(model_of: MakeModel) -> None:
    gate = Gate()

    async def ask(model: Model) -> None:
        for _ in range(2):  # the first hangs in the session, the second behind it
            with pytest.raises(DeadlineError):
                await model.predict([grey(1)], None, None, context=RequestContext.within(0.01))
        with pytest.raises(DeadlineError):
            await model.evaluate([grey(1)] * 50, ["red"] * 50, None, context=RequestContext.within(0.01))

    model = model_of(gate)
    asyncio.run(ask(model))
    gate.open.set()


def test_predictions_go_before_an_evaluation_that_came_first(model_of: MakeModel) -> None:
    gate = Gate()

    async def ask(model: Model) -> None:
        busy = asyncio.create_task(model.infer([grey(1)]))
        await asyncio.to_thread(gate.entered.wait, 20)
        evaluating = asyncio.create_task(model.evaluate([grey(2)], ["red"], None))
        await asyncio.sleep(0)
        predicting = asyncio.create_task(model.predict([grey(3)], None, None))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(busy, evaluating, predicting)

    asyncio.run(ask(model_of(gate)))
    assert gate.seen == [1, 3, 2]


def test_an_evaluation_fails_if_the_model_is_closed_meanwhile(model_of: MakeModel) -> None:
    gate = Gate()

    async def ask(model: Model) -> None:
        evaluating = asyncio.create_task(model.evaluate([grey(1)] * 50, ["red"] * 50, None))
        await asyncio.to_thread(gate.entered.wait, 20)
        model.close()
        with pytest.raises(NotReadyError, match="colours shut down"):
            await evaluating
        gate.open.set()
        await model.wait_closed()
        with pytest.raises(NotReadyError, match="colours is shutting down"):
            await model.predict([grey(1)], None, None)

    asyncio.run(ask(model_of(gate)))


def test_each_batch_counts_the_images_that_were_answered(model_of: MakeModel) -> None:
    counters = Counters()
    model = model_of(max_batch=2, metrics=ModelMetrics(counters, "colours", 1))
    asyncio.run(model.predict([grey(1), BROKEN, BROKEN, BROKEN, grey(2)], None, OnError.ITEM))
    counts = counters.take().counts
    assert counts["convoy_images", "colours"] == counts["convoy_batch_images", "colours", "sum"] == 2
    counted = {
        stage: sum(count for series, count in counts.items() if series[2:3] == (stage,) and series[-1] != "sum")
        for stage in ("decode", "queue", "inference")
    }
    assert counted == {"decode": 3, "queue": 1, "inference": 2}


def test_timings_of_a_request_cover_all_of_its_batches(model_of: MakeModel) -> None:
    def slow(images: Pixels) -> FloatArray:
        time.sleep(0.01)
        return brightness(images)

    context = RequestContext()
    asyncio.run(model_of(slow, max_batch=1).predict([grey(1)] * 3, context=context))
    assert context.timings.inference >= 0.03
    assert context.timings.decode > 0
    assert context.timings.output > 0


def test_statistics_count_requests_batches_and_images(model_of: MakeModel) -> None:
    counters = Counters()
    model = model_of(max_batch=2, metrics=ModelMetrics(counters, "colours", 1))
    contexts = [RequestContext(), RequestContext()]
    asyncio.run(model.predict([grey(1)] * 3, None, None, context=contexts[0]))
    asyncio.run(model.infer([grey(1)], context=contexts[1]))
    asyncio.run(model.evaluate([grey(1)], ["red"], None))
    refused = [
        model.predict([BROKEN], None, None),
        model.infer([BROKEN]),
        model.evaluate([grey(1)], ["purple"], None),
        model.predict([grey(1)], None, None, context=RequestContext.within(0)),
    ]
    for coroutine in refused:
        with pytest.raises(ServiceError):
            asyncio.run(coroutine)
    statistics = StatisticsOf(counters.take()).version("colours", 1)
    stats = statistics.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 4)
    assert (statistics.inference_count, statistics.execution_count) == (5, 4)
    counts = [stats.queue.count, stats.compute_input.count, stats.compute_infer.count, stats.compute_output.count]
    assert counts == [3, 3, 3, 3]
    assert [(one.batch_size, one.compute_infer.count) for one in statistics.batch_stats] == [(1, 3), (2, 1)]
    for one in statistics.batch_stats:
        assert one.compute_input.count == one.compute_infer.count == one.compute_output.count
        assert min(one.compute_input.ns, one.compute_infer.ns, one.compute_output.ns) > 0
    assert stats.compute_infer.ns > 1e9 * sum(context.timings.inference for context in contexts)
    assert stats.success.ns > stats.compute_input.ns + stats.compute_infer.ns
    assert statistics.last_inference > 1.7e12  # milliseconds since the epoch
