"""The body of an infer request -> the request and its images; probabilities -> the body of an infer response.

A body is JSON; or JSON followed by the input as binary data (little-endian, unpadded), if the header
Inference-Header-Content-Length has the length of the JSON; or one bare tensor of one image, if that header is 0.

Values are counted before the JSON is parsed, and the shape is checked against the model's before the data is read. A
binary tensor is a view of the body. Images are decoded after admission.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from pydantic import ValidationError

from schemas.bundle import INPUT_NAME, MAP_NAME, OUTPUT_NAMES, FloatArray
from schemas.image import Pixels
from schemas.inference_protocol import (
    BINARY_HEADER,
    Datatype,
    InferRequest,
    InferResponse,
    InputDatatype,
    InputParameters,
    RequestInput,
    RequestOutput,
    RequestParameters,
    ResponseOutput,
    ResponseParameters,
)
from schemas.manifest import ModelManifest
from service.codecs.json import SPARE_KEYS, json_cost, without_bom
from service.errors import (
    InvalidRequestError,
    MalformedBodyError,
    TooManyImagesError,
    TooManyValuesError,
    UnsupportedFeatureError,
)
from service.inference.inputs import EncodedImage, Image, JsonInstance, PixelArray
from service.settings import Settings
from service.validation import fault, shortened

PROBABILITIES = OUTPUT_NAMES[0]
_MAX_OBJECTS = 1000  # a request has a few; the rest is room for an id that contains braces
_LENGTH_BYTES = 4  # before each BYTES element
_UNSUPPORTED = ("shared_memory_", "sequence_")  # parameters of Triton's extensions


def read_infer(
    body: bytes, header: str | None, manifest: ModelManifest, settings: Settings
) -> tuple[InferRequest, list[Image]]:
    """Returns the request and its images, one per row of the input. header is Inference-Header-Content-Length.

    Raises MalformedBodyError, InvalidRequestError, TooManyValuesError, TooManyImagesError, UnsupportedFeatureError.
    """
    length = len(body) if header is None else _json_length(header, len(body))
    bare = header is not None and length == 0
    request = _request_of_one_tensor(len(body), manifest) if bare else _parse(body[:length], settings)
    _check_names(request, manifest)
    (tensor,) = request.inputs
    _check_shape(tensor, manifest, settings)
    return request, _images(tensor, memoryview(body)[length:])


def _json_length(header: str, size: int) -> int:
    # int() accepts signs, spaces, underscores and the digits of other scripts, so the text is checked first.
    if not (header.isascii() and header.isdecimal()) or len(header) > len(str(size)) or int(header) > size:
        raise MalformedBodyError(
            f"{BINARY_HEADER} is '{shortened(header)}'; it must be the length of the JSON in bytes, at most the "
            f"{size:,} of the whole body (uncompressed)."
        )
    return int(header)


def _request_of_one_tensor(size: int, manifest: ModelManifest) -> InferRequest:
    tensor = RequestInput(
        name=INPUT_NAME,
        shape=(1, *manifest.input.shape),
        datatype=InputDatatype.UINT8,
        parameters=InputParameters(binary_data_size=size),
    )
    return InferRequest(inputs=(tensor,), parameters=RequestParameters(binary_data_output=True))


def _parse(body: bytes, settings: Settings) -> InferRequest:
    cost = json_cost(body)
    if cost.objects > _MAX_OBJECTS or cost.keys > SPARE_KEYS or cost.values > settings.max_json_values:
        raise TooManyValuesError(
            f"The JSON holds more than the {settings.max_json_values:,} values, {_MAX_OBJECTS:,} objects or "
            f"{SPARE_KEYS:,} fields allowed; send the tensor as binary data."
        )
    try:
        return InferRequest.model_validate_json(without_bom(body))
    except ValidationError as error:
        raise invalid(error) from error


def invalid(error: ValidationError) -> MalformedBodyError | InvalidRequestError | UnsupportedFeatureError:
    """Describes the first fault of a message."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBodyError(f"The body is not JSON: {first['ctx']['error']}.")
    where = shortened(".".join(map(str, first["loc"])), 100)
    if not where:
        return InvalidRequestError("The body must be a JSON object.")
    if first["type"] == "extra_forbidden" and str(first["loc"][-1]).startswith(_UNSUPPORTED):
        return UnsupportedFeatureError(
            f"{where} belongs to an extension that is not implemented; GET /v2 lists those that are."
        )
    if first["type"] == "extra_forbidden":
        return InvalidRequestError(f"Unknown field {where}; remove it.")
    return InvalidRequestError(f"{where} {fault(first)}.")


def _check_names(request: InferRequest, manifest: ModelManifest) -> None:
    body, path = (request.model_name, request.model_version), (manifest.name, str(manifest.version))
    if any(one not in {None, other} for one, other in zip(body, path, strict=True)):
        raise InvalidRequestError("model_name or model_version in the body differs from the path; remove it.")
    inputs = [tensor.name for tensor in request.inputs]
    if inputs != [INPUT_NAME]:
        raise InvalidRequestError(f"The inputs are {shortened(inputs)}; {manifest.name} has one, '{INPUT_NAME}'.")
    outputs = [output.name for output in request.outputs]
    known = output_shapes(manifest)
    if len(set(outputs)) < len(outputs) or not known.keys() >= set(outputs):
        names = f"'{PROBABILITIES}' and '{MAP_NAME}', each once" if MAP_NAME in known else f"one, '{PROBABILITIES}'"
        raise InvalidRequestError(f"The outputs are {shortened(outputs)}; {manifest.name} has {names}.")
    if any(output.name == MAP_NAME and output.parameters.classification for output in request.outputs):
        raise InvalidRequestError(f"classification is for '{PROBABILITIES}'; remove it from '{MAP_NAME}'.")


def output_shapes(manifest: ModelManifest) -> dict[str, tuple[int, ...]]:
    """Returns the outputs of the protocol, with their shapes without the batch."""
    maps = {MAP_NAME: manifest.map_shape} if manifest.map_shape else {}
    return {PROBABILITIES: (len(manifest.labels),), **maps}


def _check_shape(tensor: RequestInput, manifest: ModelManifest, settings: Settings) -> None:
    row = manifest.input.shape if tensor.datatype is InputDatatype.UINT8 else ()
    if not tensor.shape or tensor.shape[1:] != row or tensor.shape[0] < 1:
        raise InvalidRequestError(
            f"The shape of {INPUT_NAME} is {shortened(list(tensor.shape))}; as {tensor.datatype} it must be "
            f"[images{''.join(f', {size}' for size in row)}], with at least one image."
        )
    if tensor.shape[0] > settings.max_images:
        raise TooManyImagesError(settings.max_images, tensor.shape[0])


def _images(tensor: RequestInput, binary: memoryview) -> list[Image]:
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise InvalidRequestError(
            f"{INPUT_NAME} must have either data, or parameters.binary_data_size and that many bytes after the JSON."
        )
    if (size or 0) != len(binary):
        raise InvalidRequestError(
            f"{INPUT_NAME} announces {size or 0:,} bytes of binary data, but {len(binary):,} follow the JSON."
        )
    if tensor.datatype is InputDatatype.UINT8:
        pixels = (
            _binary_pixels(binary, tensor.shape) if tensor.data is None else _json_pixels(tensor.data, tensor.shape)
        )
        return [PixelArray(row) for row in pixels]
    if tensor.data is None:
        return [EncodedImage(element) for element in _binary_elements(binary, tensor.shape[0])]
    return _json_elements(tensor.data, tensor.shape)


def _binary_pixels(binary: memoryview, shape: Sequence[int]) -> Pixels:
    if len(binary) != math.prod(shape):
        raise InvalidRequestError(
            f"UINT8 {list(shape)} takes {math.prod(shape):,} bytes, but the binary data has {len(binary):,}."
        )
    pixels: Pixels = np.frombuffer(binary, np.uint8)
    return pixels.reshape(shape)


def _json_pixels(data: list[Any], shape: Sequence[int]) -> Pixels:
    flat = _flat(data, shape)
    if set(map(type, flat)) != {int} or min(flat) < 0 or max(flat) > np.iinfo(np.uint8).max:
        wrong = next(i for i, value in enumerate(flat) if type(value) is not int or not 0 <= value <= 255)
        raise InvalidRequestError(
            f"Element {wrong} of {INPUT_NAME}'s data is {shortened(flat[wrong])}, not UINT8 (an integer, 0 to 255)."
        )
    pixels: Pixels = np.frombuffer(bytes(flat), np.uint8)
    return pixels.reshape(shape)


def _flat(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Returns the elements row by row. data is flat, or nested as the shape."""
    if len(data) == math.prod(shape) and not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    for size in shape:
        if any(type(part) is not list or len(part) != size for part in level):
            raise InvalidRequestError(
                f"The data of {INPUT_NAME} is neither flat ({math.prod(shape):,} elements) nor nested as its shape "
                f"{list(shape)}."
            )
        level = list(chain.from_iterable(level))
    return level


def _json_elements(data: list[Any], shape: Sequence[int]) -> list[Image]:
    texts = _flat(data, shape)
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(f"BYTES data of {INPUT_NAME} must be strings, each an image file in base64.")
    return [JsonInstance({"b64": text}) for text in texts]


def _binary_elements(binary: memoryview, count: int) -> list[bytes]:
    elements, at = [], 0
    for i in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(binary[at:start], "little")
        if start > len(binary) or at > len(binary):
            raise InvalidRequestError(f"Element {i} of {INPUT_NAME} extends beyond the {len(binary):,} bytes sent.")
        elements.append(bytes(binary[start:at]))
    if at != len(binary):
        raise InvalidRequestError(
            f"{len(binary) - at:,} bytes follow the {count:,} elements of {INPUT_NAME}; remove them."
        )
    return elements


# Tensors -> the body of an infer response: JSON, followed by the binary data that the request asks for.


def write_infer(
    request: InferRequest, tensors: Mapping[str, FloatArray], manifest: ModelManifest
) -> tuple[bytes, dict[str, str]]:
    """Returns the body and its headers. tensors has each requested output, float32; by default probabilities."""
    outputs, raws = [], []
    for wanted in request.outputs or (RequestOutput(name=PROBABILITIES),):
        output, raw = _written(wanted, tensors[wanted.name], request.parameters, manifest.labels)
        outputs.append(output)
        raws.append(raw)
    response = InferResponse(
        model_name=manifest.name, model_version=str(manifest.version), id=request.id, outputs=tuple(outputs)
    )
    text = response.model_dump_json(exclude_none=True).encode()
    if all(output.data is not None for output in outputs):
        return text, {"Content-Type": "application/json"}
    return b"".join((text, *raws)), {"Content-Type": "application/octet-stream", BINARY_HEADER: str(len(text))}


def _written(
    wanted: RequestOutput, values: FloatArray, defaults: RequestParameters, labels: Sequence[str]
) -> tuple[ResponseOutput, bytes]:
    own = wanted.parameters
    binary = defaults.binary_data_output if own.binary_data is None else own.binary_data
    if own.classification is not None:
        return _classes(values, own.classification, labels, binary=binary)
    raw = values.astype("<f4").tobytes() if binary else b""
    data = None if binary else values.ravel().tolist()
    return _output(wanted.name, Datatype.FP32, values.shape, data, raw), raw


def _classes(values: FloatArray, count: int, labels: Sequence[str], *, binary: bool) -> tuple[ResponseOutput, bytes]:
    """Returns the highest values of each image as "value:index:label", in descending order; ties by ascending index."""
    highest = np.argsort(-values, axis=1, kind="stable")[:, :count]
    texts = [
        f"{row[index]!s}:{index}:{labels[index]}"
        for row, indices in zip(values, highest, strict=True)
        for index in indices
    ]
    raw = b"".join(map(_element, texts)) if binary else b""
    return _output(PROBABILITIES, Datatype.BYTES, highest.shape, None if binary else texts, raw), raw


def _element(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def _output(
    name: str, datatype: Datatype, shape: tuple[int, ...], data: list[float] | list[str] | None, raw: bytes
) -> ResponseOutput:
    parameters = ResponseParameters(binary_data_size=len(raw)) if data is None else None
    return ResponseOutput(name=name, shape=shape, datatype=datatype, parameters=parameters, data=data)
