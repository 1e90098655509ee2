"""Text files of rows of numbers: their separator, header and columns, detected; their pixels and labels, read."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.value_range import Numbers
from trainer.data.progress_bar import tracked
from trainer.errors import DataError

Shape = tuple[int, int, int]
Texts = npt.NDArray[np.str_]

_RGB = 3
_BLOCK_BYTES = 4 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LABEL_NAMES = {"label", "labels", "class", "class_id", "target", "y", "category", "emotion", "digit"}
ID_NAMES = {"", "id", "imageid", "image_id", "index", "unnamed: 0"}
_SEPARATORS = ";\t|"
# A remark, or the line in which Excel names the separator. If it has as many cells as the rows, it is the header.
_REMARK = re.compile(rb"#|%|//|sep=.$", re.IGNORECASE)
_FIRST_LINES = 100
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
USAGE_NAMES = {"usage", "split", "set", "subset", "data set"}


csv.field_size_limit(2**31 - 1)  # one cell may hold all pixels of a large image


@dataclass(frozen=True)
class Table:
    """How one file is read.

    pixels are the columns of pixels (None: all), and `spaced` if one column holds them all. label are the columns of
    labels: several are one-hot. names are those of the columns; there are none without a header.
    """

    path: Path
    separator: str
    quote: str
    decimal: str
    names: tuple[str, ...]
    columns: int
    pixels: tuple[int, ...] | None = None
    spaced: bool = False
    label: tuple[int, ...] | None = None
    usage: int | None = None

    def is_row(self, line: bytes) -> bool:
        """Whether the line is the header or a row: neither empty nor a remark."""
        text = line.strip()
        return bool(text) and not (
            _REMARK.match(text) and (self.columns == 1 or len(next(self.cells([line]))) != self.columns)
        )

    def cells(self, lines: Iterable[bytes]) -> Iterator[list[str]]:
        return _cells(map(_decoded, lines), self.separator, self.quote)


def open_table(path: Path, header: bool | None) -> Table:
    """Detects separator and header. Raises DataError for a file that is empty, or is not text with lines."""
    with _readable(path), path.open("rb") as file:
        content = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16 text. Save it as UTF-8.")
    if b"\0" in content:
        raise DataError(f"{path} is not text. Unpack it, or give a CSV file.")
    if b"\r" in content and b"\n" not in content:
        raise DataError(f"{path} ends its lines with carriage returns alone. Save it with line feeds.")
    lines = [line for line in content.splitlines() if line.strip()][:_FIRST_LINES]
    texts = [_decoded(line) for line in lines if not _REMARK.match(line.strip())][:2]
    if not texts:
        raise DataError(f"{path} holds no rows.")
    separator = _separator(texts)
    quoted = rf"(^|{re.escape(separator)})\s*'[^']*'\s*({re.escape(separator)}|$)"
    quote = "'" if re.search(quoted, texts[-1]) else '"'
    table = Table(path, separator, quote, ".", (), len(list(_cells(texts, separator, quote))[-1]))
    rows = [[cell.strip() for cell in row] for row in islice(table.cells(filter(table.is_row, lines)), 2)]
    decimal = "," if any(_DECIMAL_COMMA.fullmatch(cell) for cell in rows[-1]) else "."
    names = _names(rows) if (_has_header(rows) if header is None else header) else ()
    pixels = tuple(range(table.columns - 1)) if table.columns > 1 and not rows[-1][-1] else None
    return replace(table, decimal=decimal, names=names, pixels=pixels)


def _names(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Returns the names of all columns. R gives the column of row names none, and a last comma has none."""
    header, row = rows[0], rows[-1]
    names = [name.lower().lstrip("#%/ ") for name in header]
    missing = [""] * (len(row) - len(names))
    return tuple([*missing, *names] if row[-1] else [*names, *missing])


def _separator(lines: Sequence[str]) -> str:
    """Returns the separator of cells. A comma inside a number is a decimal comma."""
    first, last = lines[0], lines[-1]
    for sign in _SEPARATORS:
        if sign in last and all("," not in cell or _DECIMAL_COMMA.fullmatch(cell.strip()) for cell in last.split(sign)):
            return sign
    separator = max("," + _SEPARATORS, key=first.count)
    if separator not in first and all(map(_is_number, last.split())):
        return " "
    return separator


def find_columns(table: Table, label_column: str | None) -> Table:
    """Returns the table with its columns of labels, pixels and usage.

    Raises DataError if no column, or more than one, could be the label.
    """
    names = table.names or ("",) * table.columns
    rows = first_rows(table)
    usage = next((i for i, name in enumerate(names) if name in USAGE_NAMES), None)
    spaced = next((i for i, cell in enumerate(rows[0]) if _is_spaced(cell)), None)
    ids = {i for i, name in enumerate(table.names) if name in ID_NAMES}
    empty = {i for i in range(table.columns) if not any(row[i].strip() for row in rows)}
    others = [i for i in range(table.columns) if i not in ids | empty | {usage, spaced}]
    label = () if label_column is not None else _one_hot_columns(others, rows, spaced is not None)
    label = label or (_label_column(table, others, rows, label_column, spaced is not None),)
    pixels = (spaced,) if spaced is not None else tuple(i for i in others if i not in label)
    if not pixels:
        raise DataError(f"{table.path.name} has no column of pixels.")
    return replace(table, pixels=pixels, spaced=spaced is not None, label=label, usage=usage)


def _one_hot_columns(others: Sequence[int], rows: Sequence[Sequence[str]], spaced: bool) -> tuple[int, ...]:
    """Returns the first or the last columns, of which each row has a single 1 and zeros; () if there are none."""
    ends = [list(others)] if spaced else []
    if not spaced and square(len(others)) is None:
        counts = [count for count in range(2, len(others)) if square(len(others) - count)]
        ends = [end for count in counts for end in (list(others[:count]), list(others[-count:]))]
    for end in ends:
        if len(end) > 1 and all(is_one_hot([row[i] for i in end]) for row in rows):
            return tuple(end)
    return ()


def is_one_hot(cells: Sequence[str]) -> bool:
    values = [float(cell) if _is_number(cell) else math.nan for cell in cells]
    return values.count(1) == 1 and values.count(0) == len(values) - 1


def _label_column(
    table: Table, others: Sequence[int], rows: Sequence[Sequence[str]], wanted: str | None, spaced: bool
) -> int:
    if wanted is not None:
        return column_named(table, wanted)
    found = [i for i in others if table.names and table.names[i] in LABEL_NAMES]
    found = found or [i for i in others if any(not _is_number(row[i].replace(table.decimal, ".")) for row in rows)]
    if not found and spaced:
        found = list(others)
    if not found and table.names:  # the one column whose name is not like pixel12 or 3x4
        plain = [i for i in others if not re.search(r"\d", table.names[i])]
        found = plain if len(plain) == 1 else []
    if not found and square(len(others) - 1) and not square(len(others)):
        ends = [others[0], others[-1]]
        found = [i for i in ends if len({row[i] for row in rows}) > 1] or ends
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"no column of {table.path.name} looks like the label. Set data.label_column to its name or number, from 1."
        )
    raise DataError(
        f"Columns {', '.join(str(i + 1) for i in found[:4])} of {table.path.name} could be the label. Set "
        "data.label_column to its name or number, from 1."
    )


def column_named(table: Table, wanted: str) -> int:
    """Returns the position of a column by its name, or its number from 1. Raises DataError."""
    if wanted.lower() in table.names:
        return table.names.index(wanted.lower())
    if wanted.isdecimal() and 1 <= int(wanted) <= table.columns:
        return int(wanted) - 1
    raise DataError(
        f"{table.path.name} has no column '{wanted}'; set data.label_column to a column name, or a number from 1."
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def read_pixels(table: Table, *, watched: bool = False) -> Iterator[Numbers]:
    """Yields blocks [rows, values] of uint8 or float32; empty lines do not count. watched shows a progress bar.

    Raises DataError naming the line and column of a value that is not a number, or a line of another length.
    """
    columns, whole = None, True
    with _readable(table.path):
        total = -(-table.path.stat().st_size // _BLOCK_BYTES)
        blocks = blocks_of_lines(table)
        for lines in tracked(blocks, f"reading {table.path.name}", total) if watched else blocks:
            try:
                block = _parsed(lines, table, columns, whole=whole)
            except ValueError as error:
                raise DataError(f"{table.path}: {first_fault(table)}") from error
            columns, whole = block.shape[1], block.dtype == np.uint8
            yield block


def read_texts(table: Table, columns: Sequence[int]) -> Texts:
    """Returns the cells of these columns as text [rows, columns]."""
    with _readable(table.path):
        rows = table.cells(chain.from_iterable(blocks_of_lines(table)))
        return np.array([[row[i] if i < len(row) else "" for i in columns] for row in rows], np.str_).reshape(
            -1, len(columns)
        )


def _cells(lines: Iterable[str], separator: str, quote: str) -> Iterator[list[str]]:
    if separator == " ":
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=separator, quotechar=quote)


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:  # as Excel writes it where the system's encoding is not UTF-8
        return line.decode("cp1252", errors="replace")


def _parsed(lines: list[bytes], table: Table, columns: int | None, *, whole: bool) -> Numbers:
    """Parses values as uint8 until one is not, because that is faster than parsing float32."""
    kind = np.uint8 if whole else np.float32
    try:
        if table.spaced:
            (at,) = table.pixels or (0,)
            texts = [" ".join(values_of(row[at])) for row in table.cells(lines)]
            block: Numbers = np.loadtxt(texts, kind, comments=None, ndmin=2)
        elif table.decimal == ",":
            texts = ["\x1f".join(row).replace(",", ".") for row in table.cells(lines)]
            block = np.loadtxt(texts, kind, comments=None, delimiter="\x1f", ndmin=2, usecols=table.pixels)
        else:
            separator = None if table.separator == " " else table.separator
            quote = table.quote if table.quote.encode() in lines[0] else None
            block = np.loadtxt(
                lines, kind, comments=None, delimiter=separator, ndmin=2, usecols=table.pixels, quotechar=quote
            )
    except (ValueError, IndexError):
        if not whole:
            raise ValueError("not numbers") from None
        return _parsed(lines, table, columns, whole=False)
    if block.shape[1] != (columns or block.shape[1]):
        raise ValueError("a row of another length")
    return block


def blocks_of_lines(table: Table) -> Iterator[list[bytes]]:
    """Yields the lines that are not empty, without the header."""
    with table.path.open("rb") as file:
        if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
            file.seek(0)
        header = bool(table.names)
        while lines := file.readlines(_BLOCK_BYTES):
            filled = [line for line in lines if table.is_row(line)]
            if header and filled:
                filled, header = filled[1:], False
            if filled:
                yield filled


def first_rows(table: Table) -> list[list[str]]:
    lines = islice(chain.from_iterable(blocks_of_lines(table)), 100)
    rows = [row for row in table.cells(lines) if len(row) == table.columns]
    if not rows:
        raise DataError(f"{table.path} holds no rows.")
    return rows


def place_of_label(table: Table, row: int) -> str:
    with table.path.open("rb") as file:
        filled = (number for number, line in enumerate(file, start=1) if table.is_row(line))
        line = next(islice(filled, row + bool(table.names), None), 0)
    column = (table.label or (0,))[0] + 1
    return f"{table.path}: line {line}, column {column}"


def first_fault(table: Table, fault: Callable[[float], str | None] = lambda _: None) -> str:
    """Returns a sentence about the first fault of a file that could not be parsed, with line and column.

    fault describes what is wrong with a value, or returns None.
    """
    columns = 0
    for number, cells in _numbered_rows(table):
        columns = columns or len(cells)
        for column, cell in enumerate(cells, start=1):
            if table.pixels is None or column - 1 in table.pixels:
                for value in values_of(cell) if table.spaced else [cell.replace(table.decimal, ".")]:
                    wrong = fault(float(value)) if _is_number(value) else "is not a number"
                    if wrong:
                        return f"line {number}, column {column}: '{value.strip()[:20]}' {wrong}."
        if len(cells) != columns:
            return f"line {number} has {len(cells):,} values, and the lines before it {columns:,}."
    return "it cannot be read as numbers, or its rows have different lengths."


def _numbered_rows(table: Table) -> Iterator[tuple[int, list[str]]]:
    with table.path.open("rb") as file:
        filled = ((number, line) for number, line in enumerate(file, start=1) if table.is_row(line))
        for number, line in islice(filled, int(bool(table.names)), None):
            yield number, next(table.cells([line.removeprefix(_BYTE_ORDER_MARK)]))


def square(values: int) -> Shape | None:
    """Returns the shape of a square RGB or grey image. No number is both n*n and 3*n*n."""
    for channels in (_RGB, 1):
        side = math.isqrt(max(values, 0) // channels)
        if side and side * side * channels == values:
            return side, side, channels
    return None


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: words above numbers, a label's name, or 0 to n - 1 as pandas writes."""
    first, second = rows[0], rows[-1]
    if [cell.lower() for cell in first if cell.lower() in LABEL_NAMES]:
        return True
    numbered = [*map(str, range(len(first)))]
    if len(first) > 3 and numbered[: len(first) - 1] in (list(first)[:-1], list(first)[1:]):
        return True
    return len(rows) > 1 and any(
        not _looks_numeric(above) and _looks_numeric(below) for above, below in zip(first, second, strict=False)
    )


def _looks_numeric(cell: str) -> bool:
    return all(map(_is_number, values_of(cell) or [cell]))


def _is_spaced(cell: str) -> bool:
    values = values_of(cell)
    return len(values) > 3 and all(map(_is_number, values))


def values_of(cell: str) -> list[str]:
    """Returns the values of a cell that holds all pixels, as in 0 1 2, [0, 1, 2] or 0,1,2."""
    return cell.strip("[]() ").replace(",", " ").split()


def _is_number(text: str) -> bool:
    """Accepts what numpy reads: float alone would accept 1_000 and other scripts' digits."""
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text
