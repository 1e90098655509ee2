"""The rows of docs/results.md: the commands to measure and their targets."""

from dataclasses import dataclass

from trainer.recipe import Recipe, with_settings
from trainer.recipes.registry import find_recipe


@dataclass(frozen=True)
class Row:
    """One command. data is its folder below --data; aim is the target accuracy.

    seconds limits the training time, and command_seconds the time of the whole command. If data.limit is set, each
    seed draws other images.
    """

    recipe_name: str
    preset: str = "default"
    data: str = ""
    device: str = "cpu"
    seeds: int = 3
    settings: tuple[str, ...] = ()
    aim: float | None = None
    seconds: float | None = None
    command_seconds: float | None = None

    @property
    def name(self) -> str:
        preset = "" if self.preset == "default" else f" {self.preset}"
        settings = "".join(f" {setting}" for setting in self.settings)
        return f"{self.recipe_name}{preset}{settings}{' on a GPU' * (self.device == 'cuda')}"

    @property
    def command(self) -> str:
        preset = "" if self.preset == "default" else f" --preset {self.preset}"
        settings = "".join(f" --set {setting}" for setting in self.settings)
        return f"train {self.recipe_name}{preset}{settings}{' --device cuda' * (self.device == 'cuda')}"

    @property
    def recipe(self) -> Recipe:
        settings = dict(setting.split("=", 1) for setting in self.settings)
        return with_settings(find_recipe(self.recipe_name, self.preset), settings)


PROBE_ONLY = "transfer.fine_tune=off"
FIVE_MINUTES = ("data.input=160,160,3", "transfer.fine_tune=240")

ROWS = (
    Row("digits", seeds=5),
    Row("mnist"),
    Row("mnist", "sprint", aim=0.99),
    Row("mnist", "tiny", aim=0.993),
    Row("mnist", "published"),
    Row("cifar10", "sprint", aim=0.70),
    Row("cifar10", "quick", aim=0.70, seconds=20),
    Row("cifar10", aim=0.82, seconds=60),
    Row("cifar10", "long", aim=0.90, seconds=360),
    Row("cifar10", "published", aim=0.75),
    Row("cats-dogs", data="cats-dogs", aim=0.97),
    # Without fine-tuning, the seed changes nothing but the images that a limit draws.
    Row("cats-dogs", data="cats-dogs", seeds=1, settings=(PROBE_ONLY,), aim=0.97, command_seconds=120),
    Row("cats-dogs", data="cats-dogs", seeds=5, settings=("data.limit=200", PROBE_ONLY), aim=0.95, command_seconds=40),
    Row("cats-dogs", data="cats-dogs", seeds=5, settings=("data.limit=50", PROBE_ONLY), aim=0.92, command_seconds=40),
    Row("cats-dogs", "scratch", data="cats-dogs", aim=0.86, seconds=900),
    Row("photos", data="flowers"),
    Row("photos", data="flowers", settings=FIVE_MINUTES, aim=0.81, command_seconds=360),
    Row("photos", "scratch", data="flowers", aim=0.80, seconds=900),
    Row("photos", "published", data="flowers"),
    Row("transfer", data="flowers", seeds=8),
    Row("transfer", "few-scratch", data="flowers", seeds=8),
    Row("transfer", "few-scratch-long", data="flowers"),
    Row("cifar10-94", device="cuda", seeds=10, aim=0.94, seconds=3),
    Row("cifar10-94", "96", device="cuda", aim=0.96),
)
