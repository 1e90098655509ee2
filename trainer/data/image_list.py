"""CSV files that list photos and their labels, with any names of columns: file,label or id,breed or path,split,class.

The photos are in the folder of the CSV file or below it. A list names each by its path, its file name, or its name
without the suffix. A column named split or usage, or the names of several lists (train, val, test), give the splits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import JsonValue

from trainer.data.csv import SUFFIXES, part_of_name, parts_of_rows
from trainer.data.dataset import SourceData, data_name
from trainer.data.decode_cache import Unreadable
from trainer.data.labels import Values, index_classes, read_labels, rename_classes
from trainer.data.photo import is_document
from trainer.data.photo_files import Listing, PhotoFile, PhotoSource
from trainer.data.table import (
    ID_NAMES,
    LABEL_NAMES,
    USAGE_NAMES,
    Table,
    column_named,
    first_rows,
    is_one_hot,
    open_table,
    place_of_label,
    read_texts,
)
from trainer.errors import DataError
from trainer.files import find_files
from trainer.recipe import DataConfig

_MOST_COLUMNS = 20  # more are pixels or one-hot labels
_TRIED_ROWS = 20
_NOT_A_LIST = "submission"  # Kaggle's example of an answer lists the test images, with invented labels

Photos = Mapping[str, list[Path]]
"""The photos below a folder, by each way in which a list may name them."""


@dataclass(frozen=True)
class ImageListSource(PhotoSource):
    """place is the CSV file, or the folder of several of them."""

    place: Path = field(kw_only=True)
    config: DataConfig = field(kw_only=True)

    @property
    def kind(self) -> str:
        return "list"

    @property
    def name(self) -> str:
        return data_name(self.place)

    @property
    def settings(self) -> dict[str, JsonValue]:
        return super().settings | self.config.model_dump(mode="json", include={"header", "label_column"})

    def load(self) -> SourceData:
        data = super().load()
        named = {"train": data.train, "validation": data.validation, "test": data.test}
        present = {name: part for name, part in named.items() if part is not None}
        labels, parts = rename_classes(data.labels, self.config.labels, present)
        train, validation, test = (parts.get(name) for name in named)
        return replace(data, labels=labels, train=train or data.train, validation=validation, test=test)

    def listing(self) -> Listing:
        photos = _photos(self.folder)
        files: list[tuple[str, Path]] = []
        values: list[Values] = []
        bad: list[Unreadable] = []
        tables = list(find_lists(self.place, self.config, photos))
        for part, table in tables:
            paths, labels = _rows(table)
            parts = parts_of_rows(table).tolist() if table.usage is not None else [part] * len(paths)
            found = [_find(photos, path) for path in paths]
            missing = [i for i, each in enumerate(found) if len(each) != 1]
            bad += [Unreadable(file=paths[i], reason=_why_not(found[i])) for i in missing]
            files += [(parts[i], each[0]) for i, each in enumerate(found) if len(each) == 1]
            values.append(labels[[i for i, each in enumerate(found) if len(each) == 1]])
        classes, indices = index_classes(dict(zip(map(str, range(len(values))), values, strict=True)))
        numbers = [int(index) for part in indices.values() for index in part]
        listed = [PhotoFile(path, part, label) for (part, path), label in zip(files, numbers, strict=True)]
        if not any(file.part == "train" for file in listed):
            raise DataError(f"{self.place} lists no training images.")
        sources = [table.path for _, table in tables]
        notes = [f"{path.name}: a list of images and labels" for path in sources]
        return Listing(listed, classes, bad, notes, sources)


def lists_images(place: Path, config: DataConfig) -> bool:
    """Returns whether the CSV file, or one in the folder, lists photos instead of holding pixels."""
    folder = place if place.is_dir() else place.parent
    return place.exists() and any(True for _ in find_lists(place, config, _photos(folder)))


def find_lists(place: Path, config: DataConfig, photos: Photos) -> Iterator[tuple[str, Table]]:
    """Yields the split and the table of each list; its pixels are the column of paths. Raises DataError."""
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
    candidates = [path for path in found if path.is_file() and _NOT_A_LIST not in path.name.lower()]
    for path in candidates:
        table = _open_list(path, config, photos)
        if table is not None:
            yield (part_of_name(path) or "train") if len(candidates) > 1 else "train", table


def _open_list(path: Path, config: DataConfig, photos: Photos) -> Table | None:
    if path.stat().st_size == 0:
        return None
    table = open_table(path, header=False)
    if not 1 < table.columns <= _MOST_COLUMNS:
        return None
    first, *rows = first_rows(table)
    rows = rows[:_TRIED_ROWS]
    if not rows:
        return None
    columns = zip(*rows, strict=True)
    found = [[len(_find(photos, cell)) for cell in cells] for cells in columns]
    # A column of numbers may name photos by accident, as several folders can hold a photo named 1.
    at = max(range(table.columns), key=lambda i: (found[i].count(1), -found[i].count(0)), default=0)
    if not found[at].count(1) or 2 * found[at].count(0) >= len(found[at]):
        return None
    table = open_table(path, header=not _find(photos, first[at]) if config.header is None else config.header)
    usage = next((i for i, name in enumerate(table.names) if name in USAGE_NAMES), None)
    return replace(table, pixels=(at,), usage=usage, label=_label_columns(table, at, usage, config.label_column, rows))


def _label_columns(
    table: Table, path: int, usage: int | None, wanted: str | None, rows: Sequence[Sequence[str]]
) -> tuple[int, ...]:
    """Returns one column, or a column of 0 and 1 for each class."""
    if wanted is not None:
        return (column_named(table, wanted),)
    names = dict(enumerate(table.names))
    others = [i for i in range(table.columns) if i not in {path, usage} and names.get(i) not in ID_NAMES]
    found = [i for i in others if names.get(i) in LABEL_NAMES] or others
    if len(found) != 1 and not (found and all(is_one_hot([row[i] for i in found]) for row in rows)):
        columns = f"Columns {', '.join(str(i + 1) for i in found)}" if found else "No column"
        raise DataError(
            f"{columns} of {table.path.name} could be the label. Set data.label_column to its name or number, from 1."
        )
    return tuple(found)


def _rows(table: Table) -> tuple[list[str], Values]:
    """Returns the paths and the labels; the header names the classes of one-hot columns."""
    columns = table.label or ()
    texts = read_texts(table, [*(table.pixels or ()), *columns])
    labels = read_labels(texts[:, 1:], partial(place_of_label, table))
    one_hot = len(columns) > 1 and table.names
    return texts[:, 0].tolist(), np.array([table.names[i] for i in columns])[labels] if one_hot else labels


def _photos(folder: Path) -> Photos:
    found: dict[str, list[Path]] = {}
    for path in find_files(folder)[0]:
        if not is_document(path):
            for name in {path.relative_to(folder).as_posix(), path.name, path.stem}:
                found.setdefault(name, []).append(path)
    return found


def _find(photos: Photos, text: str) -> list[Path]:
    """Returns the photos that a path, a file name or a name without suffix means."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    return photos.get(path.as_posix()) or photos.get(path.name) or []


def _why_not(found: Sequence[Path]) -> str:
    return "Several files have this name; list their paths." if found else "It is listed, but there is no such file."
