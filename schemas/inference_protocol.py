"""Open Inference Protocol v2 over HTTP: its messages, with the extensions that Convoy has.

The protocol is KServe's, the extensions are Triton's. Requests are strict: an unknown field or parameter, true in the
place of 1, or "3" in the place of 3 is an error that names it.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StrictBool, WithJsonSchema

from schemas.base import Frozen

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"  # Triton's name for an ONNX model
BINARY_HEADER = "Inference-Header-Content-Length"

Size = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Dimension = Annotated[int, Field(strict=True)]

TENSOR_DATA: dict[str, Any] = {
    "type": "array",
    "items": {},
    "description": "The elements row by row, flat or nested as the shape: integers 0 to 255, or base64 for BYTES.",
}


class Datatype(StrEnum):
    UINT8 = "UINT8"
    FP32 = "FP32"
    BYTES = "BYTES"


class InputDatatype(StrEnum):
    """What an input may be sent as: pixels of the model's shape, or encoded images of any."""

    UINT8 = "UINT8"
    BYTES = "BYTES"


class ErrorMessage(Frozen):
    error: Annotated[str, Field(description="one sentence: what is wrong and what to do")]


class ServerMetadata(Frozen):
    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(Frozen):
    name: str
    datatype: Datatype
    shape: Annotated[tuple[int, ...], Field(description="-1: as many as there are images")]
    parameters: Annotated[dict[str, str], Field(description="what else it may be sent as")]


class ModelMetadata(Frozen):
    name: str
    versions: Annotated[tuple[str, ...], Field(description="those that can be asked")]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class RequestParameters(Frozen):
    timeout: Annotated[Size, Field(description="microseconds the request may take; 0: what the service allows")] = 0
    priority: Annotated[Size, Field(description="taken, and without effect: requests are equal")] = 0
    binary_data_output: Annotated[StrictBool, Field(description="outputs that do not say come as binary data")] = False


class InputParameters(Frozen):
    binary_data_size: Annotated[Size | None, Field(description="bytes of this input after the JSON")] = None


class OutputParameters(Frozen):
    binary_data: Annotated[StrictBool | None, Field(description="as binary data after the JSON, or in it")] = None
    classification: Annotated[
        Positive | None, Field(description='instead of the values, the so many highest as "value:index:label"')
    ] = None


class RequestInput(Frozen):
    """data, or as many bytes after the JSON as parameters.binary_data_size says."""

    name: str
    shape: tuple[Dimension, ...]
    datatype: InputDatatype
    parameters: InputParameters = InputParameters()
    data: Annotated[list[Any] | None, WithJsonSchema(TENSOR_DATA)] = None


class RequestOutput(Frozen):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(Frozen):
    """model_name and model_version may be said here too; then they must be those of the path."""

    model_name: str | None = None
    model_version: str | None = None
    id: Annotated[str | None, Field(description="comes back in the answer")] = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[tuple[RequestInput, ...], Field(min_length=1)]
    outputs: Annotated[tuple[RequestOutput, ...], Field(description="none: all of them")] = ()


class ResponseParameters(Frozen):
    binary_data_size: Size


class ResponseOutput(Frozen):
    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    parameters: ResponseParameters | None = None
    data: Annotated[
        list[float] | list[str] | None, Field(description="row by row; not there where the output is binary")
    ] = None


class InferResponse(Frozen):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[ResponseOutput, ...]


class IndexRequest(Frozen):
    ready: Annotated[StrictBool, Field(description="only what can be asked")] = False


class ModelState(StrEnum):
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class IndexEntry(Frozen):
    name: str
    version: str
    state: ModelState
    reason: Annotated[str, Field(description="why it is unavailable, or empty")] = ""


class LoadParameters(Frozen):
    version: Annotated[Positive | None, Field(description="serve this version alone, until the next load")] = None


class LoadRequest(Frozen):
    parameters: LoadParameters = LoadParameters()


class UnloadParameters(Frozen):
    unload_dependents: Annotated[StrictBool, Field(description="taken; no model here has dependents")] = False


class UnloadRequest(Frozen):
    parameters: UnloadParameters = UnloadParameters()
