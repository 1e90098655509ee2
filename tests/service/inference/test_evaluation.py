"""Labelled images, and what models said of them, as reports. The models here answer as the test wants."""

import asyncio
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest

from schemas.bundle import FloatArray, open_bundle
from schemas.image import Pixels
from schemas.manifest import ModelManifest
from schemas.metrics import wilson_interval
from schemas.prediction import OnError
from service.backends.fake import FakeSession
from service.backends.variants import VariantChoice
from service.codecs.archive import ZIP
from service.codecs.base import Purpose, Submission
from service.errors import InvalidRequestError
from service.inference.evaluation import check_comparable, compare
from service.inference.execution import Execution, Mode
from service.inference.inputs import ArchivedImage, ArchivedPixels, Image, PixelArray
from service.inference.model import Model
from tests.support.bundles import write_bundle
from tests.support.encoded_images import encode
from tests.support.request_bodies import request_body
from tests.support.zip_files import npz, zipped

MakeModel = Callable[..., Model]
MEGABYTE = 2**20


def as_told(images: Pixels) -> FloatArray:
    """The first three values of each image are its classes' probabilities, in 255ths."""
    return images.reshape(len(images), -1)[:, :3].astype(np.float32) / np.float32(255)


def image(*probabilities: float) -> PixelArray:
    """One that is answered with these."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = np.array(probabilities) * 255
    return PixelArray(pixels)


SURE_RED, RATHER_RED, RATHER_BLUE = image(1, 0, 0), image(0.6, 0.2, 0.2), image(0.2, 0.2, 0.6)
BROKEN = ArchivedImage("red/broken.png", lambda: b"this is no image")


@pytest.fixture
def manifest(tmp_path: Path) -> ModelManifest:
    return open_bundle(write_bundle(tmp_path)).manifest


@pytest.fixture
def model_of(manifest: ModelManifest) -> MakeModel:
    def make(answer: Callable[[Pixels], FloatArray] = as_told, **fields: object) -> Model:
        own = manifest.model_copy(update=fields)
        session = FakeSession(own.input.shape, len(own.labels), answer)
        choice = VariantChoice(own.fp32, "for the test")
        execution = Execution(mode=Mode.THREAD, reason="for the test", max_batch=32)
        return Model(own, choice, session, execution, queue=20_000, max_pixels=10_000)

    return make


def test_worst_mistakes_have_their_position_in_the_request(model_of: MakeModel) -> None:
    images: list[Image] = [RATHER_RED, BROKEN, SURE_RED, RATHER_RED, RATHER_BLUE]
    labels = ["red", "red", "blue", "green", "blue"]
    report = asyncio.run(model_of().evaluate(images, labels, OnError.ITEM))
    assert [(one.index, one.label, one.predicted, one.name) for one in report.worst_mistakes] == [
        (2, "blue", "red", None),
        (3, "green", "red", None),
    ]
    assert report.worst_mistakes[0].probability == 1
    assert (report.n, report.accuracy) == (4, 0.5)


def test_names_the_file_of_a_mistake_and_of_an_error_in_an_archive(model_of: MakeModel) -> None:
    picture = encode(np.full((8, 8, 3), [255, 0, 0], np.uint8), "PNG")
    submission = parse(zipped({"blue/7.png": picture, "red/8.png": picture, "red/9.png": b"this is no image"}))
    report = asyncio.run(model_of().evaluate(submission.images, submission.labels, OnError.ITEM))
    assert [(one.index, one.name) for one in report.worst_mistakes] == [(0, "blue/7.png")]
    assert [(error.index, error.reason[:20]) for error in report.errors] == [(2, "red/9.png: The data ")]


def test_the_worst_mistakes_are_bounded(model_of: MakeModel) -> None:
    report = asyncio.run(model_of().evaluate([SURE_RED] * 50, ["blue"] * 50, None))
    assert [one.index for one in report.worst_mistakes] == list(range(20))


def test_classes_have_intervals_if_there_are_images_to_count(model_of: MakeModel) -> None:
    report = asyncio.run(model_of().evaluate([SURE_RED] * 9 + [RATHER_BLUE], ["red"] * 10, None))
    red, green, blue = report.per_class
    assert (red.precision_interval, red.recall_interval) == (wilson_interval(9, 9), wilson_interval(9, 10))
    assert (green.precision_interval, green.recall_interval) == (None, None)
    assert (blue.precision_interval, blue.recall_interval) == (wilson_interval(0, 1), None)
    assert "green, blue" in report.notes[0]


def test_names_a_folder_that_is_not_a_label(model_of: MakeModel) -> None:
    submission = parse(zipped({"red/1.png": b"", "purple/2.png": b""}))
    with pytest.raises(InvalidRequestError, match=r"folder of purple/2\.png is not one of the model's labels: red,"):
        asyncio.run(model_of().evaluate(submission.images, submission.labels, None))


def always(index: int) -> Callable[[Pixels], FloatArray]:
    return lambda images: np.tile(np.eye(3, dtype=np.float32)[index], (len(images), 1))


def test_two_versions_are_compared_on_the_same_images(model_of: MakeModel) -> None:
    a, b = model_of(always(2), version=2), model_of(as_told, version=3)
    images, labels = [SURE_RED] * 9 + [RATHER_BLUE] * 5 + [SURE_RED], ["red"] * 9 + ["blue"] * 6
    found = compare(*(asyncio.run(model.score(images, labels, None)) for model in (a, b)))
    assert (found.a.version, found.a.accuracy, found.b.version, found.b.accuracy) == (2, 6 / 15, 3, 14 / 15)
    assert (found.comparison.only_a_right, found.comparison.only_b_right, found.comparison.both_right) == (1, 9, 5)
    assert found.comparison.p_value == pytest.approx(binomtest(1, 10, 0.5).pvalue)
    assert found.comparison.verdict == (
        "colours version 3 is better than colours version 2 by more than chance (p = 0.021)."
    )
    for version in (a, b):
        alone = asyncio.run(version.evaluate(images, labels, None))
        assert alone == (found.a if version is a else found.b)


def test_leaves_images_that_one_version_cannot_read_out_of_the_comparison(model_of: MakeModel) -> None:
    class Moody:
        """Readable the first time alone."""

        asked = decode_cost = 0

        def decode(self, *_: object) -> Pixels:
            self.asked += 1
            return (SURE_RED if self.asked == 1 else BROKEN).decode(manifest_spec, 100)

    a, b = model_of(version=1), model_of(version=2)
    manifest_spec = a.manifest.input
    images: list[Image] = [SURE_RED, Moody(), RATHER_BLUE]
    found = compare(*(asyncio.run(model.score(images, ["red"] * 3, OnError.ITEM)) for model in (a, b)))
    assert (found.a.n, found.b.n, found.comparison.n) == (3, 2, 2)


def test_refuses_to_compare_versions_with_different_labels(manifest: ModelManifest) -> None:
    other = manifest.model_copy(update={"version": 2, "labels": ("red", "green", "teal")})
    with pytest.raises(InvalidRequestError, match=r"Versions 1 and 2 of colours.*has the labels blue, teal"):
        check_comparable(manifest, other, ["red"])


def test_matches_labels_in_another_order_by_name_and_refuses_indices(
    manifest: ModelManifest, model_of: MakeModel
) -> None:
    turned = manifest.model_copy(update={"version": 2, "labels": ("blue", "green", "red")})
    with pytest.raises(InvalidRequestError, match="order their labels differently; send label names"):
        check_comparable(manifest, turned, ["red", 0])
    check_comparable(manifest, turned, ["red", "blue"])
    a, b = model_of(), model_of(lambda images: as_told(images)[:, ::-1], version=2, labels=turned.labels)
    found = compare(*(asyncio.run(model.score([SURE_RED, RATHER_BLUE], ["red", "blue"], None)) for model in (a, b)))
    assert found.comparison.both_right == 2


def parse(data: bytes) -> Submission:
    return ZIP.parse(request_body(data, purpose=Purpose.EVALUATE, max_pixels=10_000))


COUNT, SIDE = 10_000, 40


def large_zip() -> bytes:
    picture = encode(np.zeros((SIDE, SIDE, 3), np.uint8), "BMP")  # as large as its pixels, and packs to next to nothing
    return zipped({f"red/{i}.bmp": picture for i in range(COUNT)})


def large_npz() -> bytes:
    return npz(images=np.zeros((COUNT, SIDE, SIDE, 3), np.uint8), labels=np.zeros(COUNT, np.uint8))


@pytest.mark.parametrize("make", [large_zip, large_npz])
def test_ten_thousand_images_are_never_unpacked_all_at_once(model_of: MakeModel, make: Callable[[], bytes]) -> None:
    data, model = make(), model_of(always(0))
    unpacked = COUNT * SIDE * SIDE * 3
    tracemalloc.start()
    submission = parse(data)
    report = asyncio.run(model.evaluate(submission.images, submission.labels, None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    held = [np.frombuffer(one_unpacked(one), np.uint8).copy() for one in submission.images]
    _, control = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.n, report.accuracy, len(held)) == (COUNT, 1, COUNT)
    assert peak < 32 * MEGABYTE
    assert control > unpacked > 45 * MEGABYTE  # what holding all of them takes


def one_unpacked(image: Image) -> bytes | npt.NDArray[np.uint8]:
    assert isinstance(image, ArchivedImage | ArchivedPixels)
    return image.unpack()
