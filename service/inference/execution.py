"""Decides where a model runs its batches: on the event loop or in a worker thread."""

import math
import time
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import Field

from schemas.base import Frozen
from schemas.manifest import InputSpec
from service.backends.base import CPU, Session

LOOP_SECONDS = 0.003
"""How long one batch may hold up the event loop: docs/decisions/0015-inference-on-the-event-loop.md."""
THREAD_SECONDS = 0.1
"""How long one batch in a thread may take on a CPU. Longer batches gain nothing and delay every other request."""

_REPEATS = 5


class Mode(StrEnum):
    EVENT_LOOP = "event_loop"
    THREAD = "thread"


class Execution(Frozen):
    """The thread that runs a model, and its batch size."""

    mode: Annotated[
        Mode,
        Field(description="event_loop: on the event loop's thread; thread: in a worker thread"),
    ]
    reason: Annotated[str, Field(description="why it is this mode")]
    max_batch: Annotated[int, Field(ge=1, description="largest number of images in one batch")]


def choose_execution(session: Session, spec: InputSpec, max_batch: int) -> Execution:
    """Times warm batches on a CPU. A batch that fits into LOOP_SECONDS costs less than a hop to a thread and back."""
    if session.provider != CPU:
        return Execution(mode=Mode.THREAD, reason=f"Models on {session.provider} use a thread.", max_batch=max_batch)
    single = _seconds(session, spec, 1)
    measured = f"One image takes {1000 * single:.2f} ms"
    limit = f"the event loop's limit of {1000 * LOOP_SECONDS:g} ms"
    if single > LOOP_SECONDS:
        fitting = min(max(1, math.floor(THREAD_SECONDS / single)), max_batch)
        return Execution(mode=Mode.THREAD, reason=f"{measured}, more than {limit}.", max_batch=fitting)
    full = _seconds(session, spec, max_batch)
    each = max(full - single, 0.0) / max(max_batch - 1, 1)
    fitting = max_batch if full <= LOOP_SECONDS else 1 + math.floor((LOOP_SECONDS - single) / each)
    reason = f"{measured} and {max_batch} take {1000 * full:.2f} ms; a batch of {fitting} is within {limit}."
    return Execution(mode=Mode.EVENT_LOOP, reason=reason, max_batch=fitting)


def _seconds(session: Session, spec: InputSpec, batch: int) -> float:
    """Returns the least CPU time, which other processes do not affect, unlike the time on the clock."""
    images = np.zeros((batch, *spec.shape), np.uint8)
    fastest = math.inf
    for _ in range(_REPEATS):
        started = time.thread_time()
        session.run(images)
        fastest = min(fastest, time.thread_time() - started)
    return fastest
