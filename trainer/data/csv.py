"""Images and labels as rows of numbers: input.csv, labels.csv, input_test.csv, labels_test.csv.

A row of an input file is one image, [height][width][channels] row by row; a row of a labels file is its class index.
Header, value range and image shape are detected and stated; each can be set where the detection is wrong.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from schemas.image import fit_pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import Labels, SourceData, class_names
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, decode_once
from trainer.data.pixel_range import Numbers, ValueRange, detect_range, outside, shown_range, to_bytes
from trainer.data.progress_bar import tracked
from trainer.errors import DataError

Shape = tuple[int, int, int]

_RGB = 3
_PARTS = {"train": ("input.csv", "labels.csv"), "test": ("input_test.csv", "labels_test.csv")}
_CODE = (__name__, "trainer.data.pixel_range")
_BLOCK_BYTES = 4 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class CsvSource:
    """labels are the classes' names, in the order of their indices; without them the indices are the names.

    shape is [height, width, channels] of a row, value_range what black and white are, header whether each file's first
    line is one; each is detected where None. input is what images are resized to, their own shape where None. cache is
    the folder that decoded images are kept in, None the usual one.
    """

    folder: Path
    name: str
    labels: tuple[str, ...] = ()
    shape: Shape | None = None
    value_range: ValueRange | None = None
    header: bool | None = None
    input: InputSpec | None = None
    cache: Path | None = None

    def load(self) -> SourceData:
        """Raises DataError naming the file, and the line and column of a wrong value."""
        files = [self.folder / file for files in _PARTS.values() for file in files]
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise DataError(
                f"{missing} is missing; the folder must hold input.csv, labels.csv and the same with _test."
            )
        settings: dict[str, JsonValue] = {
            "shape": list(self.shape or ()),
            "value_range": list(self.value_range or ()),
            "header": self.header,
            "input": self.input.model_dump(mode="json") if self.input else None,
        }
        entry = decode_once(Decoding("csv", self.folder, files, settings, _CODE), self.cache, self._decode)
        train, test = entry.parts["train"], entry.parts["test"]
        labels = class_names(self.labels, train, test)
        height, width, channels = train.images.shape[1:]
        spec = self.input or InputSpec(height=height, width=width, channels=channels)
        return SourceData(self.name, labels, spec, train, test, entry.told)

    def _decode(self, writer: EntryWriter) -> Decoded:
        form = self._form("input.csv", self.value_range)
        told = self._decode_part(writer, "train", form)
        test_form = self._form("input_test.csv", form.value_range)  # not detected twice, for the two must be alike
        if test_form.shape != form.shape:
            raise DataError(
                f"input.csv holds images of {_shown(form.shape)} and input_test.csv of "
                f"{_shown(test_form.shape)}; they must be alike."
            )
        return Decoded(told=(told, self._decode_part(writer, "test", test_form)))

    def _form(self, file: str, value_range: ValueRange | None) -> "_Form":
        path = self.folder / file
        header = has_header(path) if self.header is None else self.header
        first = next(read_rows(path, header=header), None)
        if first is None:
            raise DataError(f"{path} holds no rows.")
        values = first.shape[1]
        shape = self.shape or _detect_shape(values, file)
        if math.prod(shape) != values:
            raise DataError(
                f"{file} has {values:,} values a row, but {_shown(shape)} needs {math.prod(shape):,}; "
                "set data.shape to height,width,channels."
            )
        return _Form(header, shape, value_range or detect_range(read_rows(path, header=header)))

    def _decode_part(self, writer: EntryWriter, name: str, form: "_Form") -> str:
        input_name, labels_name = _PARTS[name]
        path, shape = self.folder / input_name, form.shape
        spec = self.input or InputSpec(height=shape[0], width=shape[1], channels=shape[2])
        with writer.part(name, spec.shape) as part:
            for block in read_rows(path, header=form.header, watched=True):
                if outside(block, form.value_range).any():
                    raise DataError(f"{path}: {first_fault(path, form.header, partial(_outside, form.value_range))}")
                pixels = to_bytes(block, form.value_range).reshape(-1, *shape)
                part.append(fit_pixels(image, spec) for image in pixels)
            labels = self._labels(self.folder / labels_name)
            part.label(labels.tolist())
            if len(labels) != len(part):
                raise DataError(
                    f"{input_name} has {len(part):,} images and {labels_name} {len(labels):,} labels; "
                    "where the first line is a header of numbers, set data.header=true."
                )
            return (
                f"{input_name}: {len(part):,} images of {_shown(shape)}, {'a' if form.header else 'no'} header, "
                f"values {shown_range(form.value_range)}"
            )

    def _labels(self, path: Path) -> Labels:
        header = has_header(path) if self.header is None else self.header
        blocks = list(read_rows(path, header=header))
        if not blocks:
            raise DataError(f"{path} holds no rows.")
        if blocks[0].shape[1] != 1:
            raise DataError(f"{path} has {blocks[0].shape[1]:,} values a row; a label is one class index.")
        values = np.concatenate(blocks)[:, 0]
        if not ((values >= 0) & (values == np.round(values))).all():  # written so that NaN is wrong
            raise DataError(f"{path}: {first_fault(path, header, _no_index)}")
        return values.astype(np.int64)


@dataclass(frozen=True)
class _Form:
    """How a file is to be read, as set or detected."""

    header: bool
    shape: Shape
    value_range: ValueRange


def _outside(value_range: ValueRange, value: float) -> str | None:
    low, high = value_range
    said = f"is outside {shown_range(value_range)}, which data.value_range can change"
    return None if low <= value <= high else said


def _no_index(value: float) -> str | None:
    return None if value >= 0 and value.is_integer() else "is no class index (0, 1, ...)"


def _detect_shape(values: int, name: str) -> Shape:
    """A square of RGB or of grey; no number is both, for the root of 3 is irrational."""
    for channels in (_RGB, 1):
        side = math.isqrt(values // channels)
        if side * side * channels == values:
            return side, side, channels
    raise DataError(
        f"{name} has {values:,} values a row, which is no square image in RGB or grey; "
        "set data.shape to height,width,channels."
    )


def _shown(shape: Shape) -> str:
    height, width, channels = shape
    return f"{height}x{width} {'RGB' if channels == _RGB else 'grey'}"


def has_header(path: Path) -> bool:
    """Whether the first line begins with something that is no number."""
    try:
        with path.open("rb") as file:
            first = file.readline().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return bool(first.strip()) and not _is_number(first.split(b",")[0].decode(errors="replace"))


def read_rows(path: Path, *, header: bool, watched: bool = False) -> Iterator[Numbers]:
    """Blocks [rows, values] of uint8 or float32; empty lines are passed over. watched shows a bar on a terminal.

    Raises DataError naming the line and column of what is no number, and the line of another length.
    """
    blocks = _blocks_of_lines(path, header)
    columns, whole = None, True
    try:
        total = -(-path.stat().st_size // _BLOCK_BYTES)
        for lines in tracked(blocks, f"reading {path.name}", total) if watched else blocks:
            block = _parsed(lines, columns, whole=whole)
            columns, whole = block.shape[1], block.dtype == np.uint8
            yield block
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise DataError(f"{path}: {first_fault(path, header)}") from error


def _parsed(lines: list[bytes], columns: int | None, *, whole: bool) -> Numbers:
    """Bytes are tried while there have been no others: they are read twice as fast as fractions."""
    try:
        block: Numbers = np.loadtxt(lines, np.uint8 if whole else np.float32, comments=None, delimiter=",", ndmin=2)
    except ValueError:
        if not whole:
            raise
        return _parsed(lines, columns, whole=False)
    if block.shape[1] != (columns or block.shape[1]):
        raise ValueError("a row of another length")
    return block


def _blocks_of_lines(path: Path, header: bool) -> Iterator[list[bytes]]:
    with path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        if header:
            file.readline()
        while lines := file.readlines(_BLOCK_BYTES):
            filled = [line for line in lines if line.strip()]
            if filled:
                yield filled


def first_fault(path: Path, header: bool, fault: Callable[[float], str | None] = lambda _: None) -> str:
    """A sentence with line and column, found by a second, slow look at a file that is known to be wrong.

    fault says what is the matter with a value, None where it is right.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            columns = 0
            for number, line in _numbered(file):
                if number == 1 and header:
                    continue
                values = line.split(",")
                for column, value in enumerate(values, start=1):
                    if not _is_number(value):
                        return f"line {number}, column {column}: '{value[:20]}' is no number."
                    if said := fault(float(value)):
                        return f"line {number}, column {column}: {value.strip()[:20]} {said}."
                columns = columns or len(values)
                if len(values) != columns:
                    return f"line {number} has {len(values):,} values, and the lines before it {columns:,}."
    except UnicodeDecodeError:
        return "it is not text."
    return "it cannot be read as numbers."


def _numbered(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, line.rstrip("\r\n")


def _is_number(text: str) -> bool:
    """As numpy reads them: float alone would take 1_000 and other scripts' digits."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text
