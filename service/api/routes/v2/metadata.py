"""Metadata of the server and of models, and a model's configuration in the fields of Triton's ModelConfig."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from schemas.base import Frozen
from schemas.bundle import INPUT_NAME
from schemas.inference_protocol import EXTENSIONS, PLATFORM, Datatype, ModelMetadata, ServerMetadata, TensorMetadata
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, Version
from service.codecs.inference_protocol import output_shapes
from service.inference.model import Model
from service.repository.registry import Registry
from service.settings import Settings
from service.version import __version__

# The protocol allows one datatype per input, which clients then send.
_ALTERNATIVE = {
    "alternative_datatype": Datatype.BYTES.value,
    "alternative_shape": "[-1]",
    "alternative_content": "one encoded image (PNG, JPEG, ...) of any size per element; in JSON as base64",
}


class ConfigInput(Frozen):
    name: str = INPUT_NAME
    data_type: str = "TYPE_UINT8"
    format: str = "FORMAT_NHWC"
    dims: tuple[int, ...]


class ConfigOutput(Frozen):
    name: str
    data_type: str = "TYPE_FP32"
    dims: tuple[int, ...]


class DynamicBatching(Frozen):
    preferred_batch_size: tuple[int, ...]
    max_queue_delay_microseconds: int


class ConfigParameter(Frozen):
    string_value: str


class ModelConfig(Frozen):
    """dims exclude the batch; max_batch_size is the limit of images in one request."""

    name: str
    platform: str = PLATFORM
    backend: str = "onnxruntime"
    max_batch_size: int
    input: tuple[ConfigInput, ...]
    output: tuple[ConfigOutput, ...]
    dynamic_batching: DynamicBatching
    parameters: dict[str, ConfigParameter]


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter(responses=protocol_errors(405, 500))
    about: dict[str, Any] = {"responses": protocol_errors(400, 404, 503)}

    @routes.get("", summary="Describe the server")
    async def server() -> ServerMetadata:
        return ServerMetadata(name="convoy", version=__version__, extensions=EXTENSIONS)

    @routes.get("/models/{name}", summary="Inputs and outputs of a model", **about)
    async def model(name: ModelName) -> ModelMetadata:
        with registry.lease(name) as leased:
            return _metadata(leased, versions(name))

    @routes.get("/models/{name}/versions/{version}", summary="Inputs and outputs of a version", **about)
    async def model_version(name: ModelName, version: Version) -> ModelMetadata:
        with registry.lease(name, version) as leased:
            return _metadata(leased, versions(name))

    @routes.get("/models/{name}/config", summary="Configuration of a model", **about)
    async def config(name: ModelName) -> ModelConfig:
        with registry.lease(name) as leased:
            return _config(leased, settings)

    @routes.get("/models/{name}/versions/{version}/config", summary="Configuration of a version", **about)
    async def config_version(name: ModelName, version: Version) -> ModelConfig:
        with registry.lease(name, version) as leased:
            return _config(leased, settings)

    def versions(name: str) -> list[str]:
        return [str(entry.ref.version) for entry in registry.loaded if entry.ref.name == name]

    return routes


def _metadata(model: Model, versions: Sequence[str]) -> ModelMetadata:
    manifest = model.manifest
    images = TensorMetadata(
        name=INPUT_NAME, datatype=Datatype.UINT8, shape=(-1, *manifest.input.shape), parameters=_ALTERNATIVE
    )
    outputs = (
        TensorMetadata(name=name, datatype=Datatype.FP32, shape=(-1, *shape), parameters={})
        for name, shape in output_shapes(manifest).items()
    )
    return ModelMetadata(
        name=manifest.name,
        versions=tuple(versions),
        platform=PLATFORM,
        inputs=(images,),
        outputs=tuple(outputs),
    )


def _config(model: Model, settings: Settings) -> ModelConfig:
    manifest = model.manifest
    return ModelConfig(
        name=manifest.name,
        max_batch_size=settings.max_images,
        input=(ConfigInput(dims=manifest.input.shape),),
        output=tuple(ConfigOutput(name=name, dims=shape) for name, shape in output_shapes(manifest).items()),
        dynamic_batching=DynamicBatching(
            preferred_batch_size=(settings.max_batch,),
            max_queue_delay_microseconds=round(settings.max_wait_ms * 1000),
        ),
        parameters={
            "version": ConfigParameter(string_value=str(manifest.version)),
            "variant": ConfigParameter(string_value=model.choice.variant.name),
            "provider": ConfigParameter(string_value=model.provider),
        },
    )
