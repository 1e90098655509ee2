"""The messages of Open Inference Protocol v2 over HTTP, with the extensions that Convoy supports.

KServe defines the protocol, Triton the extensions. Requests are strict: an unknown field or parameter, true instead of
1, or "3" instead of 3 is an error that names the field.
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
    "description": "The elements in row-major order, flat or nested: integers 0 to 255, or base64 strings for BYTES.",
}


class Datatype(StrEnum):
    UINT8 = "UINT8"
    FP32 = "FP32"
    BYTES = "BYTES"


class InputDatatype(StrEnum):
    """UINT8: pixels of the model's shape. BYTES: encoded images of any size."""

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
    shape: Annotated[tuple[int, ...], Field(description="-1 is the number of images")]
    parameters: Annotated[dict[str, str], Field(description="other accepted formats")]


class ModelMetadata(Frozen):
    name: str
    versions: Annotated[tuple[str, ...], Field(description="versions that are ready")]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class RequestParameters(Frozen):
    timeout: Annotated[Size, Field(description="deadline in microseconds; 0: the service's own deadline")] = 0
    priority: Annotated[Size, Field(description="accepted without effect: all requests have the same priority")] = 0
    binary_data_output: Annotated[StrictBool, Field(description="default of each output's binary_data")] = False


class InputParameters(Frozen):
    binary_data_size: Annotated[Size | None, Field(description="number of bytes of this input after the JSON")] = None


class OutputParameters(Frozen):
    binary_data: Annotated[
        StrictBool | None, Field(description="true: as binary data after the JSON; false: in the JSON")
    ] = None
    classification: Annotated[
        Positive | None, Field(description='return this many of the highest values, as "value:index:label"')
    ] = None


class RequestInput(Frozen):
    """An input tensor: in data, or in parameters.binary_data_size bytes after the JSON."""

    name: str
    shape: tuple[Dimension, ...]
    datatype: InputDatatype
    parameters: InputParameters = InputParameters()
    data: Annotated[list[Any] | None, WithJsonSchema(TENSOR_DATA)] = None


class RequestOutput(Frozen):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(Frozen):
    """The request body. If model_name or model_version is given, it must match the path."""

    model_name: str | None = None
    model_version: str | None = None
    id: Annotated[str | None, Field(description="returned in the response")] = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[tuple[RequestInput, ...], Field(min_length=1)]
    outputs: Annotated[tuple[RequestOutput, ...], Field(description="empty: probabilities")] = ()


class ResponseParameters(Frozen):
    binary_data_size: Size


class ResponseOutput(Frozen):
    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    parameters: ResponseParameters | None = None
    data: Annotated[
        list[float] | list[str] | None, Field(description="in row-major order; absent if the output is binary")
    ] = None


class InferResponse(Frozen):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: tuple[ResponseOutput, ...]


class IndexRequest(Frozen):
    ready: Annotated[StrictBool, Field(description="list only versions that are ready")] = False


class ModelState(StrEnum):
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


class IndexEntry(Frozen):
    name: str
    version: str
    state: ModelState
    reason: Annotated[str, Field(description="why the version is unavailable; empty if it is ready")] = ""


class LoadParameters(Frozen):
    version: Annotated[Positive | None, Field(description="serve only this version, until the next load")] = None


class LoadRequest(Frozen):
    parameters: LoadParameters = LoadParameters()


class UnloadParameters(Frozen):
    unload_dependents: Annotated[
        StrictBool, Field(description="accepted without effect: models have no dependents")
    ] = False


class UnloadRequest(Frozen):
    parameters: UnloadParameters = UnloadParameters()
