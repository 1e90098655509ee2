"""Rows of numbers out of a CSV file, some megabytes at a time."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from trainer.data.pixel_range import Numbers
from trainer.errors import DataError
from trainer.training.progress import tracked

_BLOCK_BYTES = 4 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
