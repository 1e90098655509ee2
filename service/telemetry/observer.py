"""What the core tells whoever counts: telemetry in the service, nobody in most tests."""

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    DECODE = "decode"
    QUEUE = "queue"
    INFERENCE = "inference"


@dataclass(frozen=True)
class Serving:
    """The version that answers where none is named, and what it runs as."""

    version: int
    variant: str
    provider: str


class Observer(Protocol):
    """Of one model, over all its versions. Called from the event loop and from the worker's thread: must not block."""

    def stage(self, stage: Stage, seconds: float) -> None:
        """Of one request in the queue; of one batch in decode and inference."""

    def batch(self, images: int) -> None:
        """A batch was run."""

    def waiting(self, change: int) -> None:
        """So many images more wait now; negative: fewer. Each version has a queue, and the model's is their sum."""

    def answered(self, images: int) -> None:
        """So many images were answered, refused ones among them not counted."""

    def overloaded(self) -> None:
        """A request was turned away for want of room."""


class Silent:
    """Tells nobody."""

    def stage(self, stage: Stage, seconds: float) -> None: ...

    def batch(self, images: int) -> None: ...

    def waiting(self, change: int) -> None: ...

    def answered(self, images: int) -> None: ...

    def overloaded(self) -> None: ...


SILENT: Observer = Silent()


class Watcher(Protocol):
    """What the registry tells of all models. Must not block."""

    def observer(self, model: str) -> Observer:
        """Who counts what this model does."""

    def loaded(self, model: str, *, succeeded: bool) -> None:
        """A version was loaded and checked, or refused."""

    def state(self, model: str, serving: Serving | None, refused: int, fallbacks: Set[str] = frozenset()) -> None:
        """What answers for the model now (None: nothing does), and how many of its versions are refused.

        fallbacks are the variants in whose place any version that serves runs as fp32.
        """


class Nobody:
    """Watches nothing."""

    def observer(self, model: str) -> Observer:  # noqa: ARG002 - the protocol's
        return SILENT

    def loaded(self, model: str, *, succeeded: bool) -> None: ...

    def state(self, model: str, serving: Serving | None, refused: int, fallbacks: Set[str] = frozenset()) -> None: ...
