"""A picture of images in rows and columns, each with a caption."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from schemas.image import Pixels

MAX_IMAGES = 400
DPI = 110
_IMAGE, _GAP, _LINE, _TITLE_LINE = 1.5, 0.2, 0.14, 0.22  # inches


class Captioned(NamedTuple):
    """image is uint8 [height, width, channels], grey or RGB."""

    image: Pixels
    caption: str
    colour: str = "black"


def image_grid(title: str, cells: Sequence[Captioned], columns: int = 5) -> Figure:
    """Draws the first 400 images, row by row, each with its caption above."""
    cells = cells[:MAX_IMAGES]
    rows = max(1, -(-len(cells) // columns))
    lines = max((cell.caption.count("\n") + 1 for cell in cells), default=1)
    top = _TITLE_LINE * (title.count("\n") + 1.5)
    cell_width, cell_height = _IMAGE + _GAP, _IMAGE + _GAP + _LINE * lines
    width, height = columns * cell_width, top + rows * cell_height
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.5 * _TITLE_LINE / height, title, ha="center", va="top", fontsize=11)
    axes = figure.add_axes((0, 0, 1, 1))  # one for all images: separate axes take longer to draw than the images
    axes.axis("off")
    for i, (image, caption, colour) in enumerate(cells):
        middle = (i % columns + 0.5) * cell_width
        bottom = top + (i // columns + 1) * cell_height - _GAP
        scale = _IMAGE / max(image.shape[:2])
        right, up = scale * image.shape[1] / 2, scale * image.shape[0]
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        extent = (middle - right, middle + right, bottom, bottom - up)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto")
        axes.text(middle, bottom - up - 0.04, caption, ha="center", va="bottom", fontsize=8, color=colour)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG. Characters that the font lacks become boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=DPI, format="png")


def shortened(label: str, length: int = 16) -> str:
    """Returns a label short enough for a caption: its start and its end."""
    end = length // 3
    return plain(label if len(label) <= length else f"{label[: length - end - 1]}…{label[-end:]}")


def plain(text: str) -> str:
    """Returns text that matplotlib draws: dollar signs would begin a formula, and names may not be UTF-8."""
    return text.encode(errors="replace").decode().replace("$", r"\$")
