"""Images as rows of numbers in text files, in any of three layouts.

    pairs             input.csv and labels.csv, or X_train.csv and y_train.csv, and the same of a test split: one image
                      a row, one label a row
    label column      train.csv, and others by name (test, val): a column of labels beside the columns of pixels
    string of pixels  a column of labels and one of all pixels, separated by spaces; Usage may name the split

A row of pixels is [height][width][channels]. Separator, header, columns, range of values and shape of the images are
detected and printed; the settings data.header, data.label_column, data.value_range and data.shape override them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import JsonValue

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from schemas.value_range import ValueRange, outside, shown_range, to_bytes
from trainer.data.dataset import Labels, SourceData, data_name
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, decode_once
from trainer.data.labels import Values, index_classes, read_labels, rename_classes
from trainer.data.pixel_range import decide_range
from trainer.data.table import (
    ID_NAMES,
    LABEL_NAMES,
    Shape,
    Table,
    Texts,
    blocks_of_lines,
    find_columns,
    first_fault,
    open_table,
    place_of_label,
    read_pixels,
    read_texts,
    square,
)
from trainer.errors import DataError
from trainer.recipe import DataConfig

SUFFIXES = (".csv", ".tsv")
_RGB = 3
_PAIRS = {
    "train": (
        ("input.csv", "labels.csv"),
        ("x_train.csv", "y_train.csv"),
        ("train_images.csv", "train_labels.csv"),
        ("images.csv", "labels.csv"),
        ("x.csv", "y.csv"),
    ),
    "validation": (
        ("input_val.csv", "labels_val.csv"),
        ("x_val.csv", "y_val.csv"),
        ("val_images.csv", "val_labels.csv"),
    ),
    "test": (
        ("input_test.csv", "labels_test.csv"),
        ("x_test.csv", "y_test.csv"),
        ("test_images.csv", "test_labels.csv"),
    ),
}
_CODE = (__name__, "trainer.data.pixel_range", "trainer.data.labels", "trainer.data.table")
_PART_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "publictest": "validation",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}


@dataclass(frozen=True)
class CsvSource:
    """place is a file, or the folder of the files; cache is the folder for decoded images (None: the usual one)."""

    place: Path
    config: DataConfig
    cache: Path | None = None

    def check(self) -> None:
        """Raises DataError if the files are missing or have no readable layout."""
        self._tables()

    def shape(self) -> Shape:
        """Returns height, width and channels of the images. Raises DataError."""
        if self.config.input.spec is not None:
            return self.config.input.spec.shape
        tables, _ = self._tables()
        return self._shape(next(iter(tables.values()))[0])

    def resized(self, size: InputSpec) -> Self:
        return replace(self, config=self.config.with_input(size))

    def load(self) -> SourceData:
        """Raises DataError naming the file, and the line and column of a wrong value."""
        config = self.config
        settings: dict[str, JsonValue] = config.model_dump(
            mode="json", include={"shape", "value_range", "header", "label_column", "input"}
        )
        files, folder = self._files(), self.place if self.place.is_dir() else self.place.parent
        entry = decode_once(Decoding("csv", folder, files, settings, _CODE), self.cache, self._decode)
        labels, parts = rename_classes(entry.classes, config.labels, entry.parts)
        height, width, channels = parts["train"].images.shape[1:]
        spec = config.input.spec or InputSpec(height=height, width=width, channels=channels)
        return SourceData(
            data_name(self.place), labels, spec, parts["train"], parts.get("test"), entry.notes, parts.get("validation")
        )

    def _files(self) -> list[Path]:
        if self.place.is_file():
            return [self.place]
        if not self.place.is_dir():
            raise DataError(f"{self.place} does not exist. Give a CSV file, or the folder of the files, with --data.")
        found = sorted(path for path in self.place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise DataError(f"{self.place} has no CSV files.")
        return found

    def _tables(self) -> tuple[dict[str, tuple[Table, Table]], list[str]]:
        """Returns the tables of images and of labels by part, and a sentence for each file that is left out."""
        files = {path.name.lower(): path for path in self._files()}
        pairs = {part: pair for part, pairs in _PAIRS.items() if (pair := _pair_of(pairs, set(files)))}
        if pairs:
            train = pairs.get("train", _PAIRS["train"][0])
            missing = [name for pair in (train, *pairs.values()) for name in pair if name not in files]
            if missing:
                raise DataError(f"{self.place / missing[0]} is missing. Each file of images needs a file of labels.")
            return {part: self._pair(files[images], files[labels]) for part, (images, labels) in pairs.items()}, []
        tables: dict[str, Table] = {}
        faults: dict[Path, DataError] = {}
        for path in files.values():
            named = part_of_name(path)
            part = named if named and len(files) > 1 else "train"
            try:
                table = find_columns(open_table(path, self.config.header), self.config.label_column)
            except DataError as error:
                if named == "train":
                    raise
                faults[path] = error
                continue
            if part in tables:
                both = f"{tables[part].path.name} and {path.name}"
                raise DataError(f"Both {both} could be the {part} split. Give one file with --data.")
            tables[part] = table
        if "train" not in tables:
            raise next(iter(faults.values()), DataError(f"{self.place} has no CSV file of training images."))
        left_out = [f"left out {path.name}: {error}" for path, error in faults.items()]
        return {part: (tables[part], tables[part]) for part in _PAIRS if part in tables}, left_out

    def _pair(self, images: Path, labels: Path) -> tuple[Table, Table]:
        table, of_labels = (open_table(path, self.config.header) for path in (images, labels))
        if of_labels.columns > 1 and of_labels.names:
            named = [i for i, name in enumerate(of_labels.names) if name in LABEL_NAMES]
            kept = [i for i, name in enumerate(of_labels.names) if name not in ID_NAMES]
            of_labels = replace(of_labels, label=tuple(named[:1] or kept))
        if table.names and table.names[0] in ID_NAMES:
            table = replace(table, pixels=tuple(range(1, table.columns)))
        return table, of_labels

    def _decode(self, writer: EntryWriter) -> Decoded:
        tables, left_out = self._tables()
        shapes = {images.path.name: self._shape(images) for images, _ in tables.values()}
        if len(set(shapes.values())) > 1:
            different = " and ".join(f"{file} {_shown(shape)}" for file, shape in shapes.items())
            raise DataError(f"The files hold images of different shapes: {different}.")
        value_range = self.config.value_range or decide_range(
            {images.path.name: read_pixels(images) for images, _ in tables.values()}
        )
        parts: dict[str, Texts] = {}  # by table, the part of each row
        labels: dict[str, Values] = {}
        for name, (images, of_labels) in tables.items():
            values = self._labels(images, of_labels)
            parts[name] = parts_of_rows(images) if images.usage is not None else np.full(len(values), name)
            labels |= {part: values[parts[name] == part] for part in np.unique(parts[name]).tolist()}
        classes, indices = index_classes(labels)
        notes = []
        for name, (images, _) in tables.items():
            shape = shapes[images.path.name]
            self._write(writer, images, parts[name], indices, shape, value_range)
            notes.append(
                f"{images.path.name}: {len(parts[name]):,} images of {_shown(shape)}, "
                f"{'a' if images.names else 'no'} header, values {shown_range(value_range)}"
            )
        return Decoded(notes=(*notes, *left_out), classes=classes)

    def _labels(self, images: Table, table: Table) -> Values:
        """Raises DataError unless there is one label per image."""
        count = sum(map(len, blocks_of_lines(images)))
        texts = read_texts(table, table.label or tuple(range(table.columns)))
        if images.names and not table.names and len(texts) == count + 1 and texts[0].tolist() == ["0"]:
            texts, table = texts[1:], replace(table, names=("0",))  # pandas writes 0 above an unnamed column
        if len(texts) != count:
            raise DataError(
                f"{images.path.name} has {count:,} images and {table.path.name} {len(texts):,} labels. If the first "
                "line is a header of numbers, set data.header=true."
            )
        values = read_labels(texts, partial(place_of_label, table))
        names = [table.names[i] for i in table.label or ()] if table.names else []
        if len(names) > 1 and not all(re.fullmatch(r"\D*\d+", name) for name in names):  # one-hot, not class_0, class_1
            return np.array(names)[values]
        return values

    def _shape(self, table: Table) -> Shape:
        """Raises DataError if the number of values fits no shape."""
        first = next(read_pixels(table), None)
        if first is None:
            raise DataError(f"{table.path} holds no rows.")
        values = first.shape[1]
        shape = self.config.shape or square(values)
        if shape is None:
            raise DataError(
                f"{table.path.name} has {values:,} values a row, which is not a square grey or RGB image. Set "
                "data.shape to height,width,channels."
            )
        if math.prod(shape) != values:
            raise DataError(
                f"{table.path.name} has {values:,} values a row, but {_shown(shape)} needs {math.prod(shape):,}. Set "
                "data.shape to height,width,channels."
            )
        return shape

    def _write(
        self,
        writer: EntryWriter,
        table: Table,
        parts: Texts,
        indices: Mapping[str, Labels],
        shape: Shape,
        value_range: ValueRange,
    ) -> None:
        """Writes each image to the part of its row."""
        spec = self.config.input.spec or InputSpec(height=shape[0], width=shape[1], channels=shape[2])
        with ExitStack() as stack:
            opened = {part: stack.enter_context(writer.part(part, spec.shape)) for part in np.unique(parts).tolist()}
            start = 0
            for block in read_pixels(table, watched=True):
                if outside(block, value_range).any():
                    raise DataError(f"{table.path}: {first_fault(table, partial(_outside, value_range))}")
                pixels = to_bytes(block, value_range).reshape(-1, *shape)
                rows = parts[start : start + len(pixels)]
                for part, written in opened.items():
                    written.append(fit_pixels(image, spec) for image in pixels[rows == part])
                start += len(pixels)
            for part, written in opened.items():
                written.label(indices[part].tolist())


def part_of_name(path: Path) -> str | None:
    """Returns the split that the name of a file contains, as in train_labels.csv; None without one."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((_PART_WORDS[word] for word in words if word in _PART_WORDS), None)


def _pair_of(pairs: Sequence[tuple[str, str]], files: set[str]) -> tuple[str, str] | None:
    """Returns the names of which both are files; otherwise, the first names if one of them is a file."""
    complete = next((pair for pair in pairs if files.issuperset(pair)), None)
    return complete or (pairs[0] if files.intersection(pairs[0]) else None)


def parts_of_rows(table: Table) -> Texts:
    """Returns the part of each row. Without a test split of its own, PublicTest is the test split."""
    words = np.char.lower(np.char.strip(read_texts(table, (table.usage or 0,))[:, 0]))
    unknown = sorted(set(words.tolist()) - set(_PART_WORDS))
    if unknown:
        raise DataError(f"{table.path.name}: the split '{unknown[0]}' is unknown; use {', '.join(_PART_WORDS)}.")
    parts = np.array([_PART_WORDS[word] for word in words.tolist()])
    if "test" not in parts:
        parts[words == "publictest"] = "test"
    return parts


def _outside(value_range: ValueRange, value: float) -> str | None:
    wrong = outside(np.float64(value), value_range)
    return f"is outside {shown_range(value_range)}, which data.value_range can change" if wrong else None


def _shown(shape: Shape) -> str:
    height, width, channels = shape
    return f"{height}x{width} {'RGB' if channels == _RGB else 'grey'}"
