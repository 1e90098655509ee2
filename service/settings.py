"""One frozen Settings object, read from the environment once, by the supervisor."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.image import DEFAULT_MAX_PIXELS
from schemas.manifest import NAME_PATTERN, ModelName, VariantName
from service.api_keys import Keys
from service.errors import SettingsError
from service.validation import reason, requirement

PREFIX = "CONVOY_"
_URL = re.compile(r"(tcp|udp|sctp)://")
# What Kubernetes sets for every Service in the namespace whose name begins with convoy.
_KUBERNETES = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ORIGIN = re.compile(r"(?!https:.*:443$|http:.*:80$)https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_ROOT_PATH = re.compile(r"(/[\w.~-]+)*", re.ASCII)
T = TypeVar("T")

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
    """When the artifacts folder is scanned again."""

    POLL = "poll"  # every second
    EXPLICIT = "explicit"  # on a load
    OFF = "off"  # never; load and unload are refused too


class LogFormat(StrEnum):
    LINE = "line"
    JSON = "json"


class Rule(StrEnum):
    """Which versions of a model serve."""

    PROMOTED = "promoted"  # the one that promoted.json names; without that file the latest
    LATEST = "latest"
    ALL = "all"


@dataclass(frozen=True)
class Policy:
    """CONVOY_VERSIONS: a model in pins serves only that version; the rule applies to every other model."""

    rule: Rule = Rule.PROMOTED
    pins: Mapping[str, int] = field(default_factory=dict)


def parse_policy(text: str) -> Policy:
    """Parses CONVOY_VERSIONS. Raises ValueError."""
    if text in set(Rule):
        return Policy(Rule(text))
    pins: dict[str, int] = {}
    for pin in text.split(","):
        name, separator, version = pin.strip().partition("=")
        if not separator:
            raise ValueError(f"'{pin.strip()}' must be promoted, latest, all, or pins such as mnist=3,digits=1")
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"'{name}' is not a model name")
        if not re.fullmatch(r"[1-9][0-9]{0,17}", version):
            raise ValueError(f"'{version}' must be a version of {name}: a positive integer")
        if name in pins:
            raise ValueError(f"{name} is pinned twice")
        pins[name] = int(version)
    return Policy(pins=pins)


def parse_origins(text: str) -> tuple[str, ...]:
    """Parses CONVOY_CORS_ORIGINS: origins as browsers send them (RFC 6454), or "*". Raises ValueError."""
    origins = tuple(origin.strip() for origin in text.split(",")) if text.strip() else ()
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"'{origin}' must be *, or an origin such as https://app.example.org or http://localhost:3000: lower "
                "case, without a path and without the default port"
            )
    return origins


def parse_root_path(text: str) -> str:
    """Checks CONVOY_ROOT_PATH. Raises ValueError."""
    if not _ROOT_PATH.fullmatch(text):
        raise ValueError("it must be a path such as /convoy, without a slash at its end")
    return text


def _parsed_by(parse: Callable[[Any], object]) -> AfterValidator:
    """Returns a validator that keeps the value and makes the ValueError of parse the whole message."""

    def check(value: T) -> T:
        try:
            parse(value)
        except ValueError as error:
            raise PydanticCustomError("setting", "{reason}", {"reason": str(error)}) from None
        return value

    return AfterValidator(check)


ApiKeys = Annotated[SecretStr, _parsed_by(Keys)]


class Settings(BaseSettings):
    """Each field is the variable CONVOY_<FIELD>; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="address to listen on; `0.0.0.0` listens on every interface")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; `0` picks a free port and logs it")
    uds: Path | None = Field(
        default=None,
        description="Unix socket to listen on, in place of host and port; its owner and group may connect",
    )
    root_path: Annotated[str, _parsed_by(parse_root_path)] = Field(
        default="", description="path of the service behind a proxy that removes this path, such as `/convoy`"
    )
    workers: Literal["auto"] | Positive = Field(
        default="auto", description="number of worker processes; `auto` is one per CPU core, or one on a GPU"
    )
    threads: Literal["auto"] | Positive = Field(
        default="auto",
        description="threads of one inference on the CPU; `auto` divides the cores among the workers, and gives an "
        "image that runs alone more of them",
    )
    artifacts: Path = Field(default=Path("artifacts"), description="folder of bundles, `<model>/<version>/`")
    default_model: ModelName | None = Field(
        default=None,
        description="model that answers /predict and /evaluate; by default the one in default.json, "
        "else the first model",
    )
    versions: Annotated[str, _parsed_by(parse_policy)] = Field(
        default="promoted",
        description="versions that serve: `promoted` (the latest without promoted.json), `latest`, `all`, or pins such "
        "as `mnist=3,digits=1` (other models: promoted)",
    )
    reload: Reload = Field(
        default=Reload.POLL,
        description="`poll` loads new versions as they appear; `explicit` only on request; `off` never",
    )
    device: Device = Field(
        default=Device.AUTO,
        description="`cpu`, `cuda` (fails to start without CUDA) or `auto` (CUDA if it works, else the CPU)",
    )
    variant: Literal["auto"] | VariantName = Field(
        default="auto",
        description="`fp32`, `int8`, `fp16`, or `auto`: the bundle's fastest variant for the device",
    )
    max_body_bytes: Positive = Field(
        default=DEFAULT_MAX_BODY_BYTES, description="maximum bytes of a request body, and of each image in an archive"
    )
    max_pixels: Positive = Field(
        default=DEFAULT_MAX_PIXELS, description="maximum pixels of an image; larger images are not decoded"
    )
    max_images: Positive = Field(default=10_000, description="maximum images in a request")
    max_explained: Positive = Field(
        default=100, description="maximum images in a request with `explain`; each answer holds a picture"
    )
    max_json_values: Positive = Field(
        default=2_000_000,
        description="maximum number of values in a JSON body; a list counts as 3",
    )
    max_archive_bytes: Positive = Field(
        default=DEFAULT_MAX_ARCHIVE_BYTES,
        description="maximum total size of the unpacked files of a zip or .npz, in bytes",
    )
    max_batch: int = Field(default=32, ge=1, le=65_536, description="maximum images in one inference")
    queue_images: Positive = Field(
        default=20_000,
        description="maximum images waiting for a model (half of it per request); above it, requests get a 503",
    )
    max_wait_ms: Seconds = Field(
        default=0, description="milliseconds that an idle model waits for a batch to fill; 0 starts at once"
    )
    body_memory_bytes: Positive = Field(
        default=2**30, description="maximum bytes of all request bodies in one process; above it, requests get a 503"
    )
    request_timeout: SomeSeconds = Field(
        default=60, description="seconds until a request gets a 504, unless its X-Request-Timeout is shorter"
    )
    evaluate_timeout: SomeSeconds = Field(default=600, description="seconds until an evaluation gets a 504")
    keep_alive_seconds: Positive = Field(
        default=75,
        description="idle timeout of connections, in seconds; set it above the idle timeout of a proxy in front",
    )
    drain_delay: Seconds = Field(
        default=0,
        description="drain delay in seconds: after SIGTERM, /readyz answers 503 and requests are still accepted",
    )
    drain_seconds: Positive = Field(
        default=30, description="grace period in seconds for accepted requests, after the drain delay"
    )
    api_keys: ApiKeys = Field(
        default=SecretStr(""),
        description="API keys for predictions, separated by commas; a key may be `sha256:<hex>`. Empty: open to all",
    )
    admin_keys: ApiKeys = Field(
        default=SecretStr(""),
        description="API keys for promote, load and unload. Empty: open to clients on the same machine only",
    )
    cors_origins: Annotated[str, _parsed_by(parse_origins)] = Field(
        default="",
        description="origins whose web pages may call the service, separated by commas, such as "
        "`https://app.example.org`; `*`: all",
    )
    log_format: LogFormat = Field(default=LogFormat.LINE, description="`line` for people, `json` for machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level to log: `debug`, `info`, `warning` or `error`"
    )
    access_log: bool = Field(default=False, description="log one line per request")
    otel: bool = Field(
        default=False,
        description="send OpenTelemetry spans, configured by the OTEL_* variables; needs the extra [otel]",
    )

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_kubernetes(cls, port: object) -> object:
        """Kubernetes sets CONVOY_PORT=tcp://10.0.0.1:8000 for a Service named convoy."""
        return cls.model_fields["port"].default if isinstance(port, str) and _URL.match(port) else port


def read_settings() -> Settings:
    """Raises SettingsError for the first variable whose value is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        field = str(first["loc"][0])
        reasons = [_reason(one) for one in (first, *others) if one["loc"][0] == field]  # one per member of a union
        why = " or ".join([reasons[0], *(other.removeprefix("it must ") for other in reasons[1:])])
        secret = Settings.model_fields[field].annotation is SecretStr
        value = "" if secret else f"={first['input']}"
        raise SettingsError(f"{PREFIX}{field.upper()}{value} is not valid: {why}.") from error


def readable(settings: Settings) -> dict[str, Any]:
    """Returns the settings as JSON with the secrets readable: for a worker process only."""
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    return settings.model_dump(mode="json") | secrets


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Returns the CONVOY_* variables that are not settings, such as a misspelt one."""
    known = {variable for variable, _, _ in settings_table()}
    unknown = {name for name in environ if name.startswith(PREFIX)} - known
    return sorted(name for name in unknown if not (_KUBERNETES.fullmatch(name) or _URL.match(environ[name])))


def settings_table() -> list[tuple[str, str, str]]:
    """Returns variable, default and description of every setting, as the documentation lists them."""
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


def _reason(error: Mapping[str, Any]) -> str:
    must = requirement(error)
    return f"it must {must}" if must else reason(error)


# Cores and worker processes

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Returns the number of cores that the affinity and the control groups of this process allow, at least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(bound, _share(cgroups, membership))))


def worker_count(wanted: Literal["auto"] | int, *, gpu: bool) -> int:
    """Returns the number of worker processes: for auto one per core, or one on a GPU."""
    if wanted != "auto":
        return wanted
    return 1 if gpu else usable_cores()


def _share(cgroups: Path, membership: Path) -> float:
    """Returns the CPU time that the control group and those above it allow, in cores; infinite without a limit."""
    share = math.inf
    for group in _groups(cgroups, membership):
        limits = (
            _quota(group / "cpu.max"),  # version 2: "quota period" in one file
            _quota(group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"),  # version 1
        )
        share = min(share, *limits)
    return share


def _groups(cgroups: Path, membership: Path) -> list[Path]:
    """Returns the folders that may hold a limit. In a container, the root that it sees is its own group."""
    groups = [cgroups, cgroups / "cpu"]
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return groups
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in {"", "cpu", "cpu,cpuacct"}:
            continue
        root = cgroups / "cpu" if controllers else cgroups
        path = PurePosixPath(name.lstrip("/"))
        groups += [root / part for part in (path, *path.parents)]
    return groups


def _quota(*files: Path) -> float:
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or the word max
        return math.inf


# Exposure


def exposure_warning(settings: Settings) -> str | None:
    """Returns the warning about a service that other machines can reach without a key."""
    if Keys(settings.api_keys) or settings.uds or is_loopback(settings.host):
        return None
    return (
        f"CONVOY_HOST={settings.host} can be reached from other machines, and CONVOY_API_KEYS is empty: "
        "any client may request predictions"
    )


def is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:  # an IPv4 client of a dual-stack socket
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
