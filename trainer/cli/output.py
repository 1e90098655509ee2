"""What commands print: sentences on stderr, tables and JSON on stdout."""

import io
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

_ANY_WIDTH = 10_000  # a pipe gets whole rows


def say(*sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """right names the columns of numbers. A terminal folds long cells; a pipe gets one line per row."""
    table = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_printable, row))
    width = None if sys.stdout.isatty() else _ANY_WIDTH
    text = io.StringIO()  # rich would end the process with status 1 if the reader of stdout has gone
    Console(file=text, markup=False, highlight=False, emoji=False, width=width).print(table)
    print(text.getvalue(), end="")


def _printable(cell: str) -> str:
    """Escapes line ends and control characters, which a file name may have, and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cell)
