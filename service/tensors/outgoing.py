"""Probabilities -> the body of an infer answer: JSON, and right behind it what is wanted as binary data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.bundle import OUTPUT_NAMES, FloatArray
from schemas.inference_protocol import (
    BINARY_HEADER,
    Datatype,
    InferRequest,
    InferResponse,
    OutputParameters,
    ResponseOutput,
    ResponseParameters,
)
from schemas.manifest import ModelManifest


@dataclass(frozen=True)
class Encoded:
    """A body, with the headers that say how to read it."""

    body: bytes
    headers: Mapping[str, str]


def write_infer(request: InferRequest, probabilities: Sequence[FloatArray], manifest: ModelManifest) -> Encoded:
    """probabilities has float32 [classes] of each image; the request is one that read_infer gave."""
    asked = request.outputs[0].parameters if request.outputs else OutputParameters()
    binary = request.parameters.binary_data_output if asked.binary_data is None else asked.binary_data
    values = np.stack(probabilities)
    output, raw = (
        _values(values, binary=binary)
        if asked.classification is None
        else _classes(values, asked.classification, manifest.labels, binary=binary)
    )
    response = InferResponse(
        model_name=manifest.name, model_version=str(manifest.version), id=request.id, outputs=(output,)
    )
    text = response.model_dump_json(exclude_none=True).encode()
    if not binary:
        return Encoded(text, {"Content-Type": "application/json"})
    return Encoded(text + raw, {"Content-Type": "application/octet-stream", BINARY_HEADER: str(len(text))})


def _values(values: FloatArray, *, binary: bool) -> tuple[ResponseOutput, bytes]:
    raw = values.astype("<f4").tobytes() if binary else b""
    return _output(Datatype.FP32, values.shape, None if binary else values.ravel().tolist(), raw), raw


def _classes(values: FloatArray, count: int, labels: Sequence[str], *, binary: bool) -> tuple[ResponseOutput, bytes]:
    """Of each image the highest values in falling order, each as "value:index:label"; among equals the lowest index."""
    highest = np.argsort(-values, axis=1, kind="stable")[:, :count]
    texts = [
        f"{row[index]!s}:{index}:{labels[index]}"
        for row, indices in zip(values, highest, strict=True)
        for index in indices
    ]
    raw = b"".join(map(_element, texts)) if binary else b""
    return _output(Datatype.BYTES, highest.shape, None if binary else texts, raw), raw


def _element(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "little") + data


def _output(
    datatype: Datatype, shape: tuple[int, ...], data: list[float] | list[str] | None, raw: bytes
) -> ResponseOutput:
    parameters = ResponseParameters(binary_data_size=len(raw)) if data is None else None
    return ResponseOutput(name=OUTPUT_NAMES[0], shape=shape, datatype=datatype, parameters=parameters, data=data)
