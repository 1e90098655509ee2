"""The environment -> one frozen Settings. Read once, in the supervisor, and handed on from there."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.image import DEFAULT_MAX_PIXELS
from schemas.manifest import ModelName, VariantName
from service.api_keys import Keys
from service.errors import SettingsError
from service.repository.version_policy import parse_policy

PREFIX = "CONVOY_"
DEFAULT_MAX_BODY_BYTES = 64 * 2**20
DEFAULT_MAX_ARCHIVE_BYTES = 2**30

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Reload(StrEnum):
    """When the artifacts folder is looked at again."""

    POLL = "poll"  # every second
    EXPLICIT = "explicit"  # when a load is asked for
    OFF = "off"  # never: load and unload are refused too


class LogFormat(StrEnum):
    LINE = "line"
    JSON = "json"


class Settings(BaseSettings):
    """Each field is the variable CONVOY_<FIELD>; an empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is every interface")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one and logs it")
    workers: Literal["auto"] | Positive = Field(
        default="auto", description="processes that share the port; `auto`: on a CPU one a core, on a GPU one"
    )
    artifacts: Path = Field(default=Path("artifacts"), description="folder of bundles, `<model>/<version>/`")
    default_model: ModelName | None = Field(
        default=None, description="model that answers /predict and /evaluate; not needed where there is only one"
    )
    versions: str = Field(
        default="latest",
        description="versions that serve: `latest`, `all`, or pins as in `mnist=3,digits=1` (of the others the latest)",
    )
    reload: Reload = Field(
        default=Reload.POLL,
        description="`poll`: new versions are taken as they appear; `explicit`: when a load is asked for; `off`: never",
    )
    device: Device = Field(
        default=Device.AUTO,
        description="`cuda`: a machine that cannot is an error; `auto`: CUDA where it works, else the CPU",
    )
    variant: Literal["auto"] | VariantName = Field(
        default="auto",
        description="`fp32`, `int8` or `fp16`; `auto`: the fastest one that the bundle has for the device",
    )
    max_body_bytes: Positive = Field(
        default=DEFAULT_MAX_BODY_BYTES, description="bytes a request body may have, and an image in an archive"
    )
    max_pixels: Positive = Field(
        default=DEFAULT_MAX_PIXELS, description="pixels an image may claim; more is not decoded"
    )
    max_images: Positive = Field(default=10_000, description="images a request may hold")
    max_json_values: Positive = Field(
        default=2_000_000,
        description="numbers in a JSON body, a list counted as three more; npy is the way for more pixels",
    )
    max_archive_bytes: Positive = Field(
        default=DEFAULT_MAX_ARCHIVE_BYTES, description="bytes that the files of a zip or .npz may have once unpacked"
    )
    max_batch: int = Field(default=32, ge=1, le=65_536, description="images in one inference")
    queue_images: Positive = Field(
        default=20_000,
        description="images a model lets wait; beyond that 503. One request counts as half of them at most",
    )
    max_wait_ms: Seconds = Field(
        default=0, description="milliseconds that an idle model waits for a batch to fill; 0 starts at once"
    )
    body_memory_bytes: Positive = Field(
        default=2**30, description="bytes that the bodies of all requests together may hold in one process; then 503"
    )
    request_timeout: SomeSeconds = Field(
        default=60, description="seconds a request may take, unless X-Request-Timeout says less; then 504"
    )
    evaluate_timeout: SomeSeconds = Field(default=600, description="the same for /evaluate")
    drain_delay: Seconds = Field(
        default=0, description="seconds after SIGTERM in which /readyz says 503 and requests are still taken"
    )
    drain_seconds: Positive = Field(
        default=30, description="seconds that accepted requests have to finish after SIGTERM"
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="keys for predictions, by comma; one may be `sha256:` and its hash in hex. None: open to all",
    )
    admin_keys: SecretStr = Field(
        default=SecretStr(""),
        description="keys for load and unload, likewise. None: open to callers on this machine alone",
    )
    log_format: LogFormat = Field(default=LogFormat.LINE, description="`line` for people, `json` for machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    access_log: bool = Field(default=False, description="one log line a request")
    otel: bool = Field(
        default=False, description="spans by OpenTelemetry, sent as the OTEL_* variables say; needs the extra [otel]"
    )

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr) -> SecretStr:
        try:
            Keys(keys)
        except ValueError as error:
            raise PydanticCustomError("keys", "{said}", {"said": str(error)}) from None
        return keys

    @field_validator("versions")
    @classmethod
    def _are_a_policy(cls, versions: str) -> str:
        try:
            parse_policy(versions)
        except ValueError as error:
            raise PydanticCustomError("versions", "{said}", {"said": str(error)}) from error
        return versions


def read_settings() -> Settings:
    """Raises SettingsError naming the first variable whose value cannot be used."""
    try:
        return Settings()
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        field = str(first["loc"][0])
        # Each member of a union says what it would have taken, as in: Input should be 'auto'.
        also = [other["msg"].removeprefix("Input should be ") for other in others if other["loc"][0] == field]
        said = " or ".join([_lower_first(first["msg"]), *also])
        secret = Settings.model_fields[field].annotation is SecretStr
        given = "" if secret else f"={first['input']}"
        raise SettingsError(f"{PREFIX}{field.upper()}{given} cannot be used: {said}.") from error


def readable(settings: Settings) -> dict[str, Any]:
    """For JSON that goes to another process of ours, and nowhere else: the secrets are in it."""
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    return settings.model_dump(mode="json") | secrets


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """CONVOY_* variables that are no setting: a misspelt one is said, not swallowed."""
    known = {variable for variable, _, _ in settings_table()}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def settings_table() -> list[tuple[str, str, str]]:
    """(variable, default, description) of every setting, as the README shows them."""
    return [
        (f"{PREFIX}{name.upper()}", _shown(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
