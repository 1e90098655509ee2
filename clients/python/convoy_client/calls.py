"""The calls that both clients make: arguments -> a request, and the type of its result."""

import base64
import io
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from convoy_client.errors import InvalidInputError
from convoy_client.images import Array, File, Images, batch, is_array, read
from convoy_client.options import Options
from convoy_client.results import EvaluationReport, ModelList, Predictions

OnError: TypeAlias = Literal["request", "item"]
Labels: TypeAlias = "Sequence[str | int] | Array"

# The service's own limits, by default.
REQUEST_SECONDS = 60.0
EVALUATE_SECONDS = 600.0

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request that changes nothing, so it may be repeated. body has httpx's arguments: content, files, data, json.

    content has no Content-Type: the service recognises .npy, .npz and zip.
    """

    method: str
    path: str
    result: type[T]
    seconds: float
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


def predict(
    options: Options,
    images: Images,
    *,
    model: str | None = None,
    version: int | None = None,
    top_k: int | None = None,
    on_error: OnError = "request",
    reject: bool = False,
    timeout: float | None = None,
) -> Call[Predictions]:
    """Classifies images: one image, or several.

    An image is a path, bytes, a binary file object, a Pillow image or a NumPy array: uint8 [height, width] or
    [height, width, channels]. A stack of arrays, [n, height, width] or [n, height, width, channels], is the fastest
    form. model and version select what answers: by default the service's default model, and its current version.
    on_error="item" returns predictions for the valid images, and an error for each invalid one. reject=True returns no
    label below the model's confidence threshold. timeout is the deadline of the whole call, in seconds: 60 by default.
    """
    params = _params(top_k=top_k, on_error=on_error, reject=reject)
    return _predict(images, model, version, params, options.seconds(timeout, REQUEST_SECONDS))


def explain(
    options: Options,
    images: Images,
    *,
    model: str | None = None,
    version: int | None = None,
    top_k: int | None = None,
    on_error: OnError = "request",
    reject: bool = False,
    timeout: float | None = None,
) -> Call[Predictions]:
    """Classifies images as predict does, and shows where in the image the evidence is: `explanation` has the map.

    The service refuses this for a model without maps (InvalidRequestError), and for many images in one call.
    """
    params = _params(top_k=top_k, on_error=on_error, reject=reject) | {"explain": "true"}
    return _predict(images, model, version, params, options.seconds(timeout, REQUEST_SECONDS))


def evaluate(
    options: Options,
    images: Images,
    labels: "Labels | None" = None,
    *,
    model: str | None = None,
    version: int | None = None,
    on_error: OnError = "request",
    reject: bool = False,
    timeout: float | None = None,
) -> Call[EvaluationReport]:
    """Measures a model on labelled images.

    labels has one entry per image: the name of a class, or its index. Without labels, images is an archive: a zip of
    class folders, or an .npz file with the arrays `images` and `labels`. timeout is the deadline of the whole call, in
    seconds: 600 by default. The other arguments are those of predict.
    """
    if labels is None and isinstance(images, list | tuple):
        raise InvalidInputError("labels is missing; give one label per image, or an archive instead of images.")
    body = {"content": read(images).data} if labels is None else _labelled(batch(images), _plain(labels))
    params = _params(on_error=on_error, reject=reject)
    seconds = options.seconds(timeout, EVALUATE_SECONDS)
    return Call("POST", _path("evaluate", model, version), EvaluationReport, seconds, params, body)


def models(options: Options, *, timeout: float | None = None) -> Call[ModelList]:
    """Lists the models: versions, states, labels and test accuracy. timeout is in seconds: 60 by default."""
    return Call("GET", "/models", ModelList, options.seconds(timeout, REQUEST_SECONDS))


def _predict(
    images: Images, model: str | None, version: int | None, params: Mapping[str, str], seconds: float
) -> Call[Predictions]:
    sent = batch(images)
    body = _form(sent) if isinstance(sent, list) else {"content": _npy(sent)}
    return Call("POST", _path("predict", model, version), Predictions, seconds, params, body)


def _path(action: str, model: str | None, version: int | None) -> str:
    if model is None:
        if version is not None:
            raise InvalidInputError(f"version is {version}, but model is not given; name the model too.")
        return f"/{action}"
    if model in {"", ".", ".."}:  # a part of a path with another meaning
        raise InvalidInputError(f"model is '{model}'; give the name of a model.")
    chosen = f"/versions/{quote(str(version), safe='')}" if version is not None else ""
    return f"/models/{quote(model, safe='')}{chosen}/{action}"


def _params(*, top_k: int | None = None, on_error: OnError, reject: bool) -> dict[str, str]:
    """Returns the options that differ from the service's defaults."""
    params = {"top_k": str(top_k)} if top_k is not None else {}
    params |= {"on_error": on_error} if on_error != "request" else {}
    return params | ({"reject": "true"} if reject else {})


def _form(files: Sequence[File], labels: Sequence[str] = ()) -> dict[str, Any]:
    parts = [("files", (file.name, file.data, "application/octet-stream")) for file in files]
    return {"files": parts, "data": {"labels": list(labels)} if labels else {}}


def _labelled(images: "Array | list[File]", labels: list[str] | list[int]) -> dict[str, Any]:
    if not isinstance(images, list):
        return {"content": _npz(images, labels)}
    names = [label for label in labels if isinstance(label, str)]
    if names:
        return _form(images, names)
    # In a form, every label is a name; in JSON, an integer is an index.
    return {"json": {"instances": [{"b64": base64.b64encode(file.data).decode()} for file in images], "labels": labels}}


def _plain(labels: Labels) -> list[str] | list[int]:
    """Returns the labels without NumPy's types, which JSON does not have. Raises InvalidInputError."""
    if isinstance(labels, str):
        raise InvalidInputError("labels is a text; give a list with one label for each image.")
    listed: list[Any] = labels.ravel().tolist() if is_array(labels) else list(labels)
    if all(isinstance(label, str) for label in listed):
        return [str(label) for label in listed]
    try:
        return [operator.index(label) for label in listed]
    except TypeError as error:
        raise InvalidInputError(
            "labels must be all names of classes (text), or all class indices (integers)."
        ) from error


def _npy(pixels: Array) -> bytes:
    import numpy as np  # noqa: PLC0415 - the caller has imported it

    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def _npz(pixels: Array, labels: list[str] | list[int]) -> bytes:
    import numpy as np  # noqa: PLC0415 - the caller has imported it

    buffer = io.BytesIO()
    np.savez(buffer, images=np.ascontiguousarray(pixels), labels=np.asarray(labels))
    return buffer.getvalue()
