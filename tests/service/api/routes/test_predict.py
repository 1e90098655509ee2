from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.service.conftest import Serve
from tests.support.altered_bundles import flip_byte
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.encoded_images import chunk, encode, noise, png_of
from tests.support.http_requests import BROKEN, b64, form, labels_of, npy, problem_of

ALL = list(COLOURS)


def pixels(colour: str) -> list[list[list[int]]]:
    return [[list(COLOURS[colour])] * 4] * 6


def bomb() -> bytes:
    """A small PNG whose header claims to be huge."""
    return png_of(50_000, 50_000, 8, 2, chunk(b"IDAT", bytes(20_000)))


def test_json_may_mix_encoded_images_and_pixels(client: TestClient) -> None:
    instances = [b64(solid("red")), pixels("green"), b64(solid("blue", (31, 17), "JPEG"))]
    response = client.post("/predict", json={"instances": instances})
    assert labels_of(response) == ALL
    body = response.json()
    assert (body["model"], body["version"]) == ("colours", 1)
    assert body["predictions"][1]["index"] == 1
    assert body["predictions"][1]["probability"] > 0.99


def test_a_form_takes_files(client: TestClient) -> None:
    response = client.post("/predict", files=form(*(solid(colour) for colour in ALL)), data={"top_k": "2"})
    assert labels_of(response) == ALL
    assert {len(prediction["top"]) for prediction in response.json()["predictions"]} == {2}


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_raw_body_is_one_image(client: TestClient, image_format: str) -> None:
    headers = {"content-type": f"image/{image_format.lower()}"}
    response = client.post("/predict?top_k=1", content=solid("green", (40, 30), image_format), headers=headers)
    assert labels_of(response) == ["green"]


def test_npy_is_many_images(client: TestClient) -> None:
    array = np.array([pixels(colour) for colour in ALL] * 100, np.uint8)
    response = client.post("/predict", content=npy(array), headers={"content-type": "application/x-npy"})
    assert labels_of(response) == ALL * 100


@pytest.mark.parametrize("path", ["/predict", "/models/colours/predict", "/models/colours/versions/1/predict"])
def test_every_form_of_the_path_answers(client: TestClient, path: str) -> None:
    assert labels_of(client.post(path, json={"instances": [b64(solid("red"))]})) == ["red"]


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/models/dogs/predict", "Unknown model 'dogs'. Models: colours."),
        (
            "/models/colours/versions/2/predict",
            "colours version 2 is not served. Serving: 1; CONVOY_VERSIONS=all serves every version.",
        ),
    ],
)
def test_an_unknown_model_is_404(client: TestClient, path: str, detail: str) -> None:
    assert problem_of(client.post(path, json={}), 404, "model_not_found").detail == detail


def test_a_version_that_is_not_a_number_is_422(client: TestClient) -> None:
    problem_of(client.post("/models/colours/versions/latest/predict", json={}), 422, "invalid_request")


def test_answers_by_the_default_model_when_the_request_names_none(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, "more")
    body = {"instances": [pixels("red")]}
    assert serve().post("/predict", json=body).json()["model"] == "colours"
    assert serve(default_model="more").post("/predict", json=body).json()["model"] == "more"


def test_a_refused_model_is_503_with_its_reason_while_another_answers(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    client = serve()
    problem = problem_of(client.post("/models/bad/predict", json={}), 503, "model_refused")
    assert "The SHA-256 of model.onnx differs" in problem.detail
    assert labels_of(client.post("/models/colours/predict", json={"instances": [pixels("red")]})) == ["red"]


def test_each_bad_image_is_named_by_index_and_reason(client: TestClient) -> None:
    instances = [b64(solid("red")), b64(BROKEN), pixels("blue"), {"url": "file:///etc/passwd"}]
    problem = problem_of(client.post("/predict", json={"instances": instances}), 422, "invalid_image")
    assert [error.index for error in problem.errors] == [1, 3]
    assert "not an image of a supported format" in problem.errors[0].reason
    assert "['url']" in problem.errors[1].reason


@pytest.mark.parametrize("where", ["query", "body"])
def test_with_on_error_item_the_good_images_are_answered(client: TestClient, where: str) -> None:
    body = {"instances": [b64(BROKEN), b64(solid("blue"))]} | ({"on_error": "item"} if where == "body" else {})
    response = client.post("/predict", json=body, params={"on_error": "item"} if where == "query" else {})
    failed, answered = response.json()["predictions"]
    assert failed["error"]["index"] == 0
    assert answered["label"] == "blue"


def test_an_option_in_query_and_body_must_agree(client: TestClient) -> None:
    body = {"instances": [pixels("red")], "top_k": 2}
    assert client.post("/predict?top_k=2", json=body).status_code == 200
    problem = problem_of(client.post("/predict?top_k=1", json=body), 422, "invalid_request")
    assert problem.detail == "top_k is 1 in the query and 2 in the body; send one."


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("topk=1", "Unknown parameter 'topk' in the query; known parameters: top_k, on_error, reject, explain."),
        ("top_k=0", "top_k in the query must be 1 or more, not '0'."),
        ("top_k=two", "top_k in the query must be an integer, not 'two'."),
        ("top_k=" + "9" * 5000, "top_k in the query must be a smaller integer, not '99"),
        ("reject=perhaps", "reject in the query must be true or false, not 'perhaps'."),
        ("on_error=ignore", "on_error in the query must be 'request' or 'item', not 'ignore'."),
        ("top_k=1&on_error=item&top_k=1", "top_k is in the query more than once; send it once."),
    ],
)
def test_an_invalid_query_is_described(client: TestClient, query: str, message: str) -> None:
    problem = problem_of(client.post(f"/predict?{query}", json={"instances": [1]}), 422, "invalid_request")
    assert problem.detail.startswith(message)


@pytest.mark.parametrize(
    ("version", "message"), [("latest", "must be an integer, not 'latest'."), ("0", "must be 1 or more, not '0'.")]
)
def test_an_invalid_version_is_described(client: TestClient, version: str, message: str) -> None:
    response = client.post(f"/models/colours/versions/{version}/predict", json={"instances": [1]})
    assert problem_of(response, 422, "invalid_request").detail == f"version in the path {message}"


def test_an_image_that_claims_too_many_pixels_is_not_decoded(client: TestClient) -> None:
    image = bomb()
    assert len(image) > 20_000
    response = client.post("/predict", content=image, headers={"content-type": "image/png"})
    problem = problem_of(response, 422, "invalid_image")
    assert "The image is far larger than the limit of" in problem.detail
    assert "50,000,000" in problem.detail


def test_the_limit_of_images_applies_to_every_body_format(serve: Serve) -> None:
    client = serve(max_images=2)
    three = [b64(solid("red"))] * 3
    answers = [
        client.post("/predict", json={"instances": three}),
        client.post("/predict", files=form(*[solid("red")] * 3)),
        client.post(
            "/predict", content=npy(np.zeros((3, 8, 8), np.uint8)), headers={"content-type": "application/x-npy"}
        ),
    ]
    for answer in answers:
        assert "more than the 2 images allowed" in problem_of(answer, 413, "too_many_images").detail
    assert "holds 3 images, more than" in answers[0].text
    assert "holds 3 images, more than" in answers[2].text
    assert len(labels_of(client.post("/predict", files=form(*[solid("red")] * 2)))) == 2


def test_an_idle_model_admits_a_request_at_the_limit_of_images(serve: Serve) -> None:
    client = serve(max_images=300, queue_images=10, max_batch=8)
    assert len(labels_of(client.post("/predict", json={"instances": [pixels("red")] * 300}))) == 300


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(serve: Serve, chunked: bool) -> None:
    client = serve(max_body_bytes=1000)
    body = b"x" * 1001
    headers = {"content-type": "image/png"}
    response = client.post("/predict", content=iter([body[:500], body[500:]]) if chunked else body, headers=headers)
    assert "larger than the 1,000 bytes allowed" in problem_of(response, 413, "body_too_large").detail
    problem_of(client.post("/predict", content=body[:1000], headers=headers), 422, "invalid_image")


def test_an_expect_100_request_over_the_limit_is_refused_at_once(serve: Serve) -> None:
    headers = {"content-type": "image/png", "expect": "100-continue"}
    response = serve(max_body_bytes=10).post("/predict", content=b"x" * 11, headers=headers)
    problem_of(response, 413, "body_too_large")


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"x", "multipart/form-data", 400),
        (b"x", "application/x-npy", 400),
        (b"", "image/png", 422),
        (b"x", "text/plain", 415),
        (b"x", "application/x-www-form-urlencoded", 415),
        (b"x", "", 415),
    ],
)
def test_a_body_that_does_not_match_its_content_type_is_a_problem(
    client: TestClient, content: bytes, content_type: str, status: int
) -> None:
    response = client.post("/predict", content=content, headers={"content-type": content_type})
    problem_of(response, status, "unsupported_media_type" if status == 415 else "invalid_request")


def test_the_error_of_a_forms_file_has_its_name(client: TestClient) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    files = [
        ("files", (name, data)) for name, data in (("red.png", solid("red")), ("a.png", b""), ("IMG_1.HEIC", heic))
    ]
    problem = problem_of(client.post("/predict", files=files), 422, "invalid_image")
    assert [(error.index, error.reason) for error in problem.errors] == [
        (1, "a.png: The file is empty."),
        (2, "IMG_1.HEIC: The HEIC image is damaged or cut short."),
    ]
    assert "a.png: The file is empty." in problem.detail
    failed = client.post("/predict?on_error=item", files=files).json()["predictions"][1]
    assert failed["error"] == {"index": 1, "reason": "a.png: The file is empty."}


def test_an_image_without_content_type_is_classified(client: TestClient) -> None:
    assert labels_of(client.post("/predict", content=solid("red"))) == ["red"]


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_a_photo_of_a_phone_is_classified(client: TestClient, image_format: str) -> None:
    photo = encode(Image.new("RGB", (32, 32), "red"), image_format)
    for content_type in ("image/heic", "image/avif", "application/octet-stream"):
        answer = client.post("/predict", content=photo, headers={"content-type": content_type})
        assert labels_of(answer) == ["red"]


def test_a_jpeg_that_ends_early_is_refused(client: TestClient) -> None:
    photo = encode(noise(64, 64), "JPEG")
    assert client.post("/predict", content=photo).status_code == 200
    problem_of(client.post("/predict", content=photo[: len(photo) // 2] + photo[-2:]), 422, "invalid_image")
