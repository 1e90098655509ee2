"""Both clients against the real service."""

import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoy_client import (
    DeadlineExceededError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from convoy_client.images import File, batch
from schemas.image import decode_image, encode_png
from schemas.manifest import InputSpec
from tests.clients.python.conftest import Caller
from tests.support.bundles import COLOURS, solid
from tests.support.encoded_images import encode
from tests.support.http_requests import BROKEN
from tests.support.http_server import QuietHandler, http_server
from tests.support.service_process import Service
from tests.support.zip_files import zipped

Ask = Callable[..., Any]

GREEN = np.full((6, 9, 3), COLOURS["green"], np.uint8)
GREY = np.full((6, 9), 100, np.uint8)
SIZE = InputSpec(height=16, width=16, channels=3)


def turned() -> Image.Image:
    """A JPEG whose EXIF data says that it lies on its side: red above blue as stored."""
    image = Image.new("RGB", (8, 16), COLOURS["red"])
    image.paste(COLOURS["blue"], (0, 8, 8, 16))
    exif = image.getexif()
    exif[0x0112] = 6
    return Image.open(io.BytesIO(encode(image, "JPEG", exif=exif, quality=95)))


@pytest.fixture
def green(tmp_path: Path) -> Path:
    path = tmp_path / "grün.png"
    path.write_bytes(solid("green"))
    return path


@pytest.mark.parametrize(
    "given",
    [
        str,
        Path,
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: path.open("rb"),
        Image.open,
        lambda path: Image.open(path).convert("CMYK"),
        lambda _: GREEN,
        lambda _: GREEN[None],
        lambda _: np.asfortranarray(GREEN[None]),
        lambda path: [path],
        lambda path: iter([path]),
        lambda _: [GREEN],
    ],
)
def test_classifies_an_image_in_each_form(ask: Ask, green: Path, given: Callable[[Path], object]) -> None:
    image = given(green)
    answer = ask("predict", image)
    assert (answer.model, answer.version) == ("colours", 1)
    (prediction,) = answer.predictions
    assert (prediction.label, prediction.index) == ("green", 1)
    assert prediction.top[0].label == "green"
    assert (prediction.reason, prediction.error, prediction.explanation) == (None, None, None)
    if isinstance(image, io.BufferedReader):
        image.close()


def test_classifies_different_forms_in_one_call_in_order(ask: Ask, green: Path) -> None:
    grey = Image.new("L", (5, 5), 100)
    images = [solid("red"), green, solid("blue"), GREEN, GREEN[:2], grey, GREY]
    predictions = ask("predict", images, top_k=1).predictions
    assert [one.label for one in predictions[:5]] == ["red", "green", "blue", "green", "green"]
    assert predictions[5] == predictions[6]
    assert all(len(one.top) == 1 for one in predictions)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_an_array_in_a_list_of_several_shapes_is_answered_as_in_a_stack(ask: Ask, channels: int | None) -> None:
    shape = (7, 5) if channels is None else (7, 5, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (stacked,) = ask("predict", pixels[None]).predictions
    assert ask("predict", [pixels, GREEN]).predictions[0] == stacked


def test_a_pillow_image_is_turned_upright_as_its_file_is() -> None:
    image = turned()
    (sent,) = batch(image)
    assert isinstance(sent, File)
    upright = decode_image(encode(image, "PNG", exif=image.getexif()), SIZE)
    assert np.array_equal(decode_image(sent.data, SIZE), upright)
    assert not np.array_equal(decode_image(encode_png(np.asarray(image)), SIZE), upright)


def test_selects_model_and_version(ask: Ask) -> None:
    assert ask("predict", GREEN, model="colours", version=1).version == 1
    with pytest.raises(ModelNotFoundError, match="cats") as raised:
        ask("predict", GREEN, model="cats?")
    assert raised.value.problem
    assert raised.value.problem.code == "model_not_found"
    assert raised.value.request_id


def test_on_error_item_returns_the_other_predictions(ask: Ask) -> None:
    with pytest.raises(InvalidImageError) as raised:
        ask("predict", [BROKEN, solid("red")])
    assert [error.index for error in raised.value.errors] == [0]
    broken, red = ask("predict", [BROKEN, solid("red")], on_error="item").predictions
    assert (broken.label, broken.error) == (None, raised.value.errors[0])
    assert (red.label, red.error) == ("red", None)


def test_the_service_refuses_what_the_model_cannot_do(ask: Ask) -> None:
    with pytest.raises(InvalidRequestError, match="threshold"):
        ask("predict", GREEN, reject=True)


def test_evaluates_files_by_name_of_class(ask: Ask, green: Path) -> None:
    report = ask("evaluate", [green, solid("red"), solid("red")], ["green", "red", "blue"])
    assert (report.n, report.model, report.variant) == (3, "colours", "fp32")
    assert report.accuracy == pytest.approx(2 / 3)
    assert report.confusion_matrix == ((1, 0, 0), (0, 1, 0), (1, 0, 0))
    assert [(one.index, one.label, one.predicted) for one in report.worst_mistakes] == [(2, "blue", "red")]


@pytest.mark.parametrize("labels", [["green", "red"], [1, 0], np.array([1, 0]), np.array(["green", "red"])])
def test_evaluates_files_and_arrays_by_name_or_index(ask: Ask, labels: object) -> None:
    red = np.full_like(GREEN, COLOURS["red"])
    for images in ([solid("green"), red], [GREEN, red], np.stack([GREEN, red])):
        report = ask("evaluate", images, labels)
        assert (report.n, report.accuracy) == (2, 1)


def test_evaluates_an_archive(ask: Ask, tmp_path: Path) -> None:
    archive = tmp_path / "colours.zip"
    archive.write_bytes(zipped({f"{colour}/0.png": solid(colour) for colour in COLOURS}))
    assert ask("evaluate", archive).n == 3
    np.savez(tmp_path / "green.npz", images=GREEN[None], labels=["green"])
    assert ask("evaluate", (tmp_path / "green.npz").read_bytes()).accuracy == 1


def test_lists_the_models(ask: Ask) -> None:
    answer = ask("models")
    model = next(each for each in answer.models if each.name == "colours")
    assert answer.default == "colours"
    assert (model.name, model.version, model.state, model.labels) == ("colours", 1, "ready", tuple(COLOURS))
    assert (model.input.height, model.input.width, model.input.channels) == (8, 8, 3)


def test_explains_with_a_map(ask: Ask) -> None:
    answer = ask("explain", [GREEN, solid("red")], top_k=1)
    assert [one.label for one in answer.predictions] == ["green", "red"]
    explanation = answer.predictions[0].explanation
    assert (explanation.label, explanation.height, explanation.width) == ("green", 8, 8)
    assert np.array(explanation.map).shape == (8, 8)
    assert Image.open(io.BytesIO(base64.b64decode(explanation.overlay_png))).format == "PNG"
    assert ask("models").models[0].explanation.height == 8


def test_a_model_without_maps_cannot_explain(ask: Ask) -> None:
    with pytest.raises(InvalidRequestError):
        ask("explain", GREEN, model="unexplained")


def test_a_missing_key_is_an_error_of_its_own(caller: Caller, service: Service) -> None:
    with pytest.raises(UnauthorizedError, match="key"):
        caller.ask(service.url, "models")


def test_the_service_applies_the_deadline(ask: Ask) -> None:
    """Far below the time of any request, so the service or the client ends it."""
    with pytest.raises(DeadlineExceededError):
        ask("predict", [solid("green", size=(1000, 1000))] * 50, timeout=0.01)


def test_a_service_that_is_down_is_unavailable_after_all_attempts(caller: Caller, unused_url: str) -> None:
    with pytest.raises(UnavailableError, match="unreachable"):
        caller.ask(unused_url, "models", timeout=0.2)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Long: "], ids=["body", "headers"])
def test_the_deadline_limits_a_response_that_trickles_in(caller: Caller, start: bytes) -> None:
    """Every read of it is fast, and it never ends."""
    stop = threading.Event()

    class Trickling(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name in the base class
            self.close_connection = True
            self.wfile.write(start)
            while not stop.wait(0.01):
                self.wfile.write(b" ")

    with http_server(Trickling) as url:
        try:
            with pytest.raises(DeadlineExceededError, match=r"0\.3 seconds"):
                caller.ask(url, "models", timeout=0.3)
        finally:
            stop.set()
