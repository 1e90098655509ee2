"""What the core tells whoever counts: telemetry in the service, nobody in most tests."""

from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    DECODE = "decode"
    QUEUE = "queue"
    INFERENCE = "inference"


class Observer(Protocol):
    """Of one model, over all its versions. Called from the event loop and from the worker's thread: must not block."""

    def stage(self, stage: Stage, seconds: float) -> None:
        """Of one request in the queue; of one batch in decode and inference."""

    def batch(self, images: int) -> None:
        """A batch was run."""

    def waiting(self, images: int) -> None:
        """So many images wait now."""

    def answered(self, images: int) -> None:
        """So many images were answered, refused ones among them not counted."""

    def overloaded(self) -> None:
        """A request was turned away for want of room."""

    def late(self) -> None:
        """A request's deadline passed."""


class Silent:
    """Tells nobody."""

    def stage(self, stage: Stage, seconds: float) -> None: ...

    def batch(self, images: int) -> None: ...

    def waiting(self, images: int) -> None: ...

    def answered(self, images: int) -> None: ...

    def overloaded(self) -> None: ...

    def late(self) -> None: ...


SILENT: Observer = Silent()
