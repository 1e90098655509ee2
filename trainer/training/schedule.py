"""How far a run is: its steps, its time, and what both make of the learning rate."""

import time

from trainer.recipe import Recipe
from trainer.training.distributed import World
from trainer.training.optimizers import learning_rate_factor
from trainer.training.progress import Reporter

# The first step is slower than the others; from it to this one is enough to say how long the run will take.
FORECAST_STEP = 4
_LONG_SECONDS = 60


class Pace:
    """elapsed is the time since the run began, in seconds, as of the last tick: the same in every process.

    What was spent before the run was taken up again counts.
    """

    def __init__(self, recipe: Recipe, steps: int, world: World) -> None:
        self._recipe = recipe
        self._world = world
        self._started = self._second_step = time.perf_counter()
        self._steps_here = 0
        self.steps = steps
        self.step = 0
        self.elapsed = 0.0

    def resume(self, step: int, elapsed: float) -> None:
        self.step, self.elapsed = step, elapsed
        self._started = time.perf_counter() - elapsed

    def tick(self) -> None:
        elapsed = time.perf_counter() - self._started
        # A budget decides on the next step, so that all processes must have spent the same.
        self.elapsed = self._world.number_of_the_first(elapsed) if self._recipe.max_seconds else elapsed

    def stepped(self) -> None:
        self.step += 1
        self._steps_here += 1
        self.tick()

    @property
    def ended(self) -> bool:
        """Whether the budget of time is spent."""
        return bool(self._recipe.max_seconds) and self.elapsed >= self._recipe.max_seconds

    def learning_rate(self) -> float:
        """Of the next step; the schedule is read at the step's middle, so no step is taken at exactly 0.

        With a budget of time the run is as far as the budget is spent, if that is further.
        """
        progress = (self.step + 0.5) / self.steps
        if self._recipe.max_seconds:
            progress = max(progress, self.elapsed / self._recipe.max_seconds)
        return self._recipe.optimizer.learning_rate * learning_rate_factor(self._recipe.schedule, min(progress, 1.0))

    def forecast(self, reporter: Reporter) -> None:
        """Says once, early, how long a run will take that a person has to wait for and that no budget ends."""
        if self._steps_here == 1:
            self._second_step = time.perf_counter()
        elif self._steps_here == FORECAST_STEP and not self._recipe.max_seconds:
            step = (time.perf_counter() - self._second_step) / (FORECAST_STEP - 1)
            left = self.steps - self.step
            if step * left >= _LONG_SECONDS:
                most = "at most " if self._recipe.patience else ""
                reporter.note(f"training will take {most}about {_spoken(step * left)}: {left:,} steps of {step:.2g} s")


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
