"""A progress bar over the items of a data set that is read or decoded."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, with a bar on a terminal that shows how many of them are through."""
    console = Console(stderr=True)
    return track(items, what, total=total, console=console, transient=True, disable=not console.is_terminal)
