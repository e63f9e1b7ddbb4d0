"""A CSV file as columns of cells: its separator, header and rows, and where each row stands.

Read by the `csv` module, cell by cell, which knows every row; large files that pandas or polars
reads without a doubt are left to them, see `hamshoot.problem.frames`.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamshoot.problem.cells import DECIMALS, number
from hamshoot.support.checks import brief, check_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Separators that are recognised, in the order in which they are preferred.
SEPARATORS = (",", ";", "\t", "|")
#: Rows by which the separator is chosen, and characters in which they are looked for.
GLANCE, GLANCE_CHARACTERS = 20, 2_000_000


@dataclass(frozen=True, eq=False)
class Sheet:
    """Columns of a table.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    columns : dict of str to (list of str or ndarray)
        By name, in the order of the header: stripped cells, or numbers already.
    rows : sequence of int
        Number of each row in the file, the header's included, blank rows counted.
    decimal : {".", ","}
    separator : str
    """

    name: str
    columns: dict[str, list[str] | NDArray]
    rows: Sequence[int]
    decimal: str = "."
    separator: str = ","

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(self.rows)

    def listed(self) -> str:
        """The first names, for messages."""
        names = [brief(name)[1:-1] for name in self.header[:8]]
        more = len(self.columns) - 8
        return f"it has {', '.join(names)}" + (f" and {more} more" if more > 0 else "")


def read_sheet(path: Path, separator: str | None = None, decimal: str = ".") -> Sheet:
    """Read a CSV file: UTF-8, or UTF-16 with its byte order mark.

    Parameters
    ----------
    path : Path
    separator : str, optional
        One character; by default the one of `SEPARATORS` by which the header and the first rows
        have the same number of cells.
    decimal : {".", ","}
        Kept with the sheet, for whoever reads its numbers.

    Raises
    ------
    ValueError
        For what is no regular file, no text and no CSV, and rows of unequal length; with the row.
    """
    return sheet_of(text_of(path), str(path), separator, decimal)


def check_form(separator: Any, decimal: Any) -> None:
    """Raise ValueError unless they are one character and a decimal point or comma, that differ."""
    if separator is not None and not (isinstance(separator, str) and len(separator) == 1
                                      and separator not in "\"\r\n "):
        raise ValueError("separator: expected one character, as ';' or '\\t', "
                         f"got {brief(separator)}")
    if decimal not in DECIMALS:
        raise ValueError(f"decimal: expected '.' or ',', got {brief(decimal)}")
    if separator == decimal:
        raise ValueError(f"separator: expected another character than the decimal {decimal!r}")


def text_of(path: Path) -> str:
    """Text of a CSV file.

    Raises
    ------
    ValueError
        For a missing file, a directory, a pipe or a device (which would be waited for), and what
        is no text.
    """
    check_regular(path, "a CSV file")
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def decoded(content: bytes, name: str) -> str:
    """Text of bytes in UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises
    ------
    ValueError
        For bytes in no such encoding, with the line.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}: not a UTF-8 text file, expected a CSV file (line {line} holds the byte "
            f"0x{content[error.start]:02x}; in a spreadsheet, save it as CSV UTF-8)"
        ) from None


def sheet_of(text: str, name: str, separator: str | None = None, decimal: str = ".") -> Sheet:
    """A `Sheet` of the text of a CSV file; see `read_sheet`.

    Parameters
    ----------
    text : str
    name : str
        Of the file, for messages.
    separator, decimal
        As in `read_sheet`.
    """
    check_form(separator, decimal)
    separator = separator or _separator(text, decimal)
    records = _records(text, name, separator)
    first: list[str] = next((cells for _, cells in records if _holds(cells)), [])
    if not first:
        raise ValueError(f"{name}: empty, expected a header row and data")
    rows, body = [], []
    for row, cells in records:
        if len(cells) != len(first):
            raise ValueError(_uneven(name, row, len(cells), len(first), separator))
        rows.append(row)
        body.append([cell.strip() for cell in cells])
    while body and not any(body[-1]):  # separators alone, as spreadsheets leave them at the end
        body.pop()
        rows.pop()
    columns = list(map(list, zip(*body, strict=True))) if body else [[] for _ in first]
    # Columns without a name and without a cell are of separators that end every line.
    kept = [(column.strip(), cells) for column, cells in zip(first, columns, strict=True)
            if column.strip() or any(cells) or not cells]
    check_header([column for column, _ in kept], name)
    return Sheet(Path(name).name, dict(kept), rows, decimal, separator)


def check_header(header: Sequence[str], name: str) -> None:
    """Raise ValueError for a header of numbers, of one name twice, or of two without a name."""
    if all(number(column) is not None for column in header):
        raise ValueError(f"{name}: the first row is all numbers, expected a header of column names")
    twice = next((column for column, count in Counter(header).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: column {brief(twice)} appears twice in the header" if twice else
                         f"{name}: two columns have no name in the header; name them")


# -- rows ------------------------------------------------------------------------------------------


def _records(text: str, name: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row that is not blank; one of separators alone is not."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True,
                        strict=True)
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            if len(cells) > 1 or _holds(cells):
                yield row, cells
    except csv.Error as error:
        raise ValueError(f"{name}, row {row + 1}: not a CSV file ({error})") from None


def _holds(cells: Sequence[str]) -> bool:
    """Whether a cell of a row has anything in it."""
    return any(cell.strip() for cell in cells)


def _separator(text: str, decimal: str) -> str:
    """The separator by which header and first rows have the same number of cells, and most.

    Cells are counted as quotes have them: a comma in a quoted name separates nothing.
    """
    best, chosen = (False, 1), ","
    for separator in SEPARATORS:
        if separator == decimal:
            continue
        counts = _counts(text, separator)
        fits = len(set(counts)) == 1
        if counts and (fits and counts[0] > 1, counts[0]) > best:
            best, chosen = (fits and counts[0] > 1, counts[0]), separator
    return ";" if chosen == decimal else chosen


def _counts(text: str, separator: str) -> list[int]:
    """Cells of the first rows; none of a text that is no CSV with this separator."""
    counts: list[int] = []
    try:
        for _, cells in _records(text[:GLANCE_CHARACTERS], "", separator):
            counts.append(len(cells))
            if len(counts) > GLANCE:
                return counts
    except ValueError:
        pass
    # Where the text was cut the last row is not whole.
    return counts[:-1] if len(text) > GLANCE_CHARACTERS and len(counts) > 1 else counts


def _uneven(name: str, row: int, got: int, expected: int, separator: str) -> str:
    """Of a row with another number of cells than the header."""
    told = f"{name}, row {row}: expected {expected} cells as in the header, got {got}"
    if separator == "," and got > expected:
        return (f"{told}; a comma within a cell needs quotes around it, and decimal commas "
                "another separator")
    return told
