"""Large CSV files through pandas or polars, where one is installed: faster, and in less memory.

300 000 rows of ten numbers take 0.4 s of CPU and 150 MB by pandas, 0.7 s and 220 MB by polars, and
2.6 s and 580 MB without (`demos/benchmarks/large_csv.py`).

They are asked for what leaves no doubt alone: rows as long as the header, and columns that are
plain numbers throughout, or texts. Whatever else there is (a gap, a date, a decimal comma, a row
too short) they would read in a way of their own, and the answer here is None: the reader of
`hamshoot.problem.sheets` then says what it is, and in which row. A table read here is the same as
there, to the last bit (`demos/benchmarks/fuzz.py` compares them).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.sheets import Sheet, check_form, check_header, sheet_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes of a file below which the import of either takes longer than reading without it.
LARGE_BYTES = 5_000_000
#: Bytes of the beginning in which header and separator are looked for.
BEGINNING = 1_000_000


def read_large(path: Path, separator: str | None, decimal: str) -> Sheet | None:
    """Columns of a large file by pandas or polars; None where neither may or can read it.

    Parameters
    ----------
    path, separator, decimal
        As in `hamshoot.problem.sheets.read_sheet`.

    Notes
    -----
    Rows are counted as if none were blank: where one has a fault, the other reader names it.
    """
    check_form(separator, decimal)
    if path.stat().st_size < LARGE_BYTES:
        return None
    for package, columns_of in (("pandas", _by_pandas), ("polars", _by_polars)):
        if importlib.util.find_spec(package) is None:
            continue
        head = _head(path, separator, decimal)
        if head is None:
            return None
        columns = columns_of(path, head.header, head.separator, decimal)
        if columns is None:
            return None
        count = len(next(iter(columns.values())))
        return Sheet(path.name, columns, range(2, count + 2), decimal, head.separator)
    return None


def _head(path: Path, separator: str | None, decimal: str) -> Sheet | None:
    """The first rows as the exact reader has them; None where it refuses them."""
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    try:
        text = beginning.decode("utf-8-sig")
        head = sheet_of(text[: text.rindex("\n") + 1], str(path), separator, decimal)
        check_header(head.header, str(path))
    except ValueError:
        return None
    return head


def _by_pandas(
    path: Path, header: list[str], separator: str, decimal: str
) -> dict[str, list[str] | NDArray] | None:
    import pandas

    # The nearest double of what is written: since pandas 3 the default, which warns of the name.
    old = int(pandas.__version__.partition(".")[0]) < 3
    exact: dict[str, Any] = {"float_precision": "round_trip"} if old else {}
    try:
        frame = pandas.read_csv(
            path, sep=separator, decimal=decimal, encoding="utf-8-sig", low_memory=False,
            keep_default_na=False, na_values=[], skipinitialspace=True, index_col=None, **exact)
    except (ValueError, pandas.errors.ParserError, pandas.errors.EmptyDataError):
        return None
    if not isinstance(frame.index, pandas.RangeIndex):
        return None
    return _plain([str(name) for name in frame.columns], header,
                  (frame[name].to_numpy() for name in frame.columns))


def _by_polars(
    path: Path, header: list[str], separator: str, decimal: str
) -> dict[str, list[str] | NDArray] | None:
    import polars

    try:
        frame = polars.read_csv(
            path, separator=separator, decimal_comma=decimal == ",", infer_schema_length=None)
    except (polars.exceptions.PolarsError, ValueError):
        return None
    if any(frame.null_count().row(0)):
        return None
    return _plain(frame.columns, header, (column.to_numpy() for column in frame))


def _plain(names: list[str], header: list[str], columns: Any
           ) -> dict[str, list[str] | NDArray] | None:
    """Finite numbers and texts by name; None for any other column."""
    if [name.strip() for name in names] != header:
        return None
    plain: dict[str, list[str] | NDArray] = {}
    for name, values in zip(header, columns, strict=True):
        if values.dtype.kind in "iuf":
            plain[name] = values.astype(float)
            if not np.isfinite(plain[name]).all():
                return None
        elif values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values):
            plain[name] = [value.strip() for value in values]
        else:
            return None
    return plain
