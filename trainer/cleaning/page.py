"""Writes what `clean` has found: a page of thumbnails, and a CSV file for `train --exclude`."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from schemas.files import atomic_write
from trainer.cleaning.findings import Finding, Kind
from trainer.data.dataset import LabelledImages
from trainer.errors import WriteError

PAGE, LIST = "index.html", "exclude.csv"
COLUMNS = ("file", "label", "finding", "detail", "certainty")
_SHOWN = 500  # of each kind
_SIDE = 128
_EXPLAINED = {
    Kind.LABEL: "Models that were trained without these images expect another label.",
    Kind.EQUAL: "The pixels are those of another image.",
    Kind.NEARLY_EQUAL: "Probably the same photo as another, resized, cropped or compressed again.",
    Kind.UNREADABLE: "These files cannot be read as images.",
}
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { max-width: 75rem; margin: 1rem auto; padding: 0 1rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; padding: 0; }
li { list-style: none; overflow-wrap: anywhere; }
img { height: 8rem; margin-right: .25rem; }
"""


def write_findings(folder: Path, data: str, images: LabelledImages, findings: Sequence[Finding]) -> None:
    """Creates the folder, or replaces the files in it. Raises WriteError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / PAGE, _page(data, images, findings).encode(errors="xmlcharrefreplace"))
        atomic_write(folder / LIST, _list(findings).encode(errors="surrogateescape"))
    except OSError as error:
        raise WriteError(f"{folder} cannot be written ({error.strerror}). Choose another folder with --out.") from error


def _list(findings: Sequence[Finding]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows((one.file, one.label, one.kind, one.detail, f"{one.certainty:.3f}") for one in findings)
    return text.getvalue()


def _page(data: str, images: LabelledImages, findings: Sequence[Finding]) -> str:
    sections = []
    for kind, explained in _EXPLAINED.items():
        some = [one for one in findings if one.kind is kind]
        if some:
            items = "\n".join(_item(images, one) for one in some[:_SHOWN])
            more = f"<p>{len(some) - _SHOWN:,} more are in {LIST}.</p>" if len(some) > _SHOWN else ""
            title = f"{kind.value.capitalize()}: {len(some):,}"
            sections.append(f"<h2>{title}</h2>\n<p>{explained}</p>\n<ul>\n{items}\n</ul>\n{more}")
    name = html.escape(data)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}: images to look at</title>
<style>{_STYLE}</style>
<h1>{name}: {len(findings):,} findings in {len(images):,} images</h1>
<p>In {LIST}, delete the rows of images that you want to keep. Then train without the others:
<code>train … --exclude {LIST}</code></p>
{"".join(sections) or "<p>Nothing was found.</p>"}
</html>
"""


def _item(images: LabelledImages, one: Finding) -> str:
    pictures = "".join(_thumbnail(images, i) for i in one.positions)
    described = {
        Kind.LABEL: f"labelled <b>{html.escape(one.label)}</b>, looks like <b>{html.escape(one.detail)}</b> "
        f"({one.certainty:.0%})",
        Kind.EQUAL: f"equal to {html.escape(one.detail)}",
        Kind.NEARLY_EQUAL: f"like {html.escape(one.detail)} ({one.certainty:.1%})",
        Kind.UNREADABLE: html.escape(one.detail),
    }
    return f"<li>{pictures}<br>{html.escape(one.file)}<br>{described[one.kind]}</li>"


def _thumbnail(images: LabelledImages, position: int) -> str:
    pixels = images.images[position]
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    image.convert("RGB").save(content, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}">'
