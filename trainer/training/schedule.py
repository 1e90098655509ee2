"""The position of a run in its steps and its time budget, and the learning rate at that position."""

import math
import time

from trainer.recipe import Recipe, ScheduleConfig, ScheduleName
from trainer.training.distributed import World
from trainer.training.progress import Reporter

# The first step is slower than the others, so the forecast of a run's duration is made from the steps after it.
FORECAST_STEP = 4
_LONG_SECONDS = 60
_ONE_CYCLE_START = 1 / 25


def learning_rate_factor(config: ScheduleConfig, progress: float) -> float:
    """Returns the factor on the learning rate, 0..1, at progress 0..1 of the run; it is 1 at the end of the warm-up."""
    if config.name is ScheduleName.CONSTANT:
        return 1.0
    if progress < config.warm_up:
        rise = progress / config.warm_up
        if config.name is ScheduleName.ONE_CYCLE:
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - math.cos(math.pi * rise)) / 2
        return rise
    left = (1 - progress) / (1 - config.warm_up) if config.warm_up < 1 else 1.0
    return left if config.name is ScheduleName.TRIANGULAR else (1 - math.cos(math.pi * left)) / 2


class Schedule:
    """Counts the steps and the seconds of a run, including those before it was resumed.

    `elapsed` holds the seconds at the last tick. With a time budget it is the same in every process, because it decides
    about the next step.
    """

    def __init__(self, recipe: Recipe, steps: int, world: World) -> None:
        self._recipe = recipe
        self._world = world
        self.steps = steps
        self.resume(step=0, elapsed=0.0)

    def resume(self, step: int, elapsed: float) -> None:
        self.step, self.elapsed = step, elapsed
        self._started = time.perf_counter() - elapsed
        self._first_step = step + 1
        self._forecast_from = elapsed

    def advance(self) -> None:
        """Counts one step."""
        self.step += 1
        if self._world.size == 1:  # several processes would wait for each other here
            self.tick()

    def tick(self) -> None:
        elapsed = time.perf_counter() - self._started
        self.elapsed = self._world.broadcast(elapsed) if self._recipe.max_seconds else elapsed

    @property
    def progress(self) -> float:
        """The completed share of the run, 0..1: of its steps, or of its time budget if that is further."""
        return min(1.0, max(self.step / self.steps, self._spent))

    @property
    def out_of_time(self) -> bool:
        return self._spent >= 1

    @property
    def _spent(self) -> float:
        """The spent share of the time budget; 0 without one."""
        return self.elapsed / self._recipe.max_seconds if self._recipe.max_seconds else 0.0

    def learning_rate(self) -> float:
        """Returns the rate at the middle of the next step, so that no step has a rate of exactly 0."""
        progress = min(1.0, max((self.step + 0.5) / self.steps, self._spent))
        return self._recipe.optimizer.learning_rate * learning_rate_factor(self._recipe.schedule, progress)

    def forecast(self, reporter: Reporter) -> None:
        """Reports once, after a few steps, how long a long run without a time budget will take."""
        measured = self.step - self._first_step
        if measured == 0:
            self._forecast_from = self.elapsed
        if measured != FORECAST_STEP - 1 or self._recipe.max_seconds:
            return
        seconds = (self.elapsed - self._forecast_from) / measured
        left = self.steps - self.step
        if seconds * left >= _LONG_SECONDS:
            bound = "at most " if self._recipe.patience else ""
            duration = _format_duration(seconds * left)
            reporter.note(f"Training will take {bound}about {duration}: {left:,} steps of {seconds:.2g} s.")


def _format_duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
