"""Tables of Parquet and arrays of Zarr for training problems: in memory, or left where they are.

A table that fits into memory becomes a `Sheet` and goes the way of a CSV file, with names, gaps and
categories; a larger one stays in its file, and its columns have to be complete numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.problem.open_rows import kind_of, open_rows
from hamshoot.problem.parquet_rows import PARQUET, Layout, ParquetRows, damaged, layout_of
from hamshoot.problem.readers import Table, check_reading, columns_of, read_csv, table_of
from hamshoot.problem.sheets import Sheet
from hamshoot.problem.stored_files import Source, failures, source_of
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_parquet(
    path: str | PathLike, targets: int | Sequence[str] = 1, drop: Sequence[str] = (), *,
    missing: str = "refuse", categories: str | Sequence[str] = "refuse", classes: bool = False,
    weights: str | None = None, lazy: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Table:
    """Read a Parquet file, or a folder of such.

    Parameters
    ----------
    path : str or path
        Or a URL of fsspec.
    targets, drop, missing, categories, classes, weights
        As in `hamshoot.problem.readers.read_csv`.
    lazy : bool, optional
        Whether rows stay in the file and are read when they are needed; by default where they take
        more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double precision.
    storage_options : mapping, optional
        Of the file system of a URL.

    Raises
    ------
    ImportError
        If pyarrow, or what a URL needs, is not installed.
    ValueError
        As `read_csv`; rows are counted from 1. Of rows that stay in the file, columns of words and
        gaps are refused, and so are weights.
    """
    check_reading(missing, categories, classes, lazy)
    layout = layout_of(source_of(path, storage_options))
    if len(layout.kinds) == 1:
        raise ValueError(f"{layout.source.name}: expected at least two columns, an input and a "
                         f"target, got {brief(next(iter(layout.kinds)))} alone")
    if lazy is None:
        lazy = 8 * layout.rows * len(layout.kinds) > mapped.MEMORY_BYTES
    if lazy:
        choices = dict(missing=(missing, "refuse"), categories=(categories, "refuse"),
                       classes=(classes, False), weights=(weights, None))
        return _in_place(layout, targets, drop, choices)
    words = [] if isinstance(categories, str) else list(categories)
    if classes:
        words += [targets] if isinstance(targets, str) else \
            list(layout.kinds)[-1:] if not isinstance(targets, Sequence) else list(targets)
    return table_of(sheet_of_parquet(layout, words), targets=targets, drop=drop, missing=missing,
                    categories=categories, classes=classes, weights=weights)


def _in_place(layout: Layout, targets: Any, drop: Any, choices: Mapping[str, Any]) -> Table:
    """Columns that are left in the file."""
    for name, (given, default) in choices.items():
        if given != default:
            raise ValueError(f"{name}: expected {default!r} where rows stay in the file, got "
                             f"{brief(given)}; a table that fits into memory is read with "
                             "lazy = false")
    columns: dict[str, Any] = {name: np.empty(0) for name in layout.kinds}
    header = Sheet(layout.source.name, columns, range(layout.rows))
    target_names, input_names = columns_of(header, targets, drop, None)
    X: Any = ParquetRows(layout, input_names)  # as an array to those who ask for rows
    Y: Any = ParquetRows(layout, target_names)
    return Table(X, Y, X.columns, Y.columns)


def sheet_of_parquet(layout: Layout, words: Sequence[str] = ()) -> Sheet:
    """All columns in memory, as those of a CSV file: complete numbers, or cells of text.

    Parameters
    ----------
    layout : Layout
    words : sequence of str
        Columns that are labels, whatever they hold.
    """
    import pyarrow
    import pyarrow.dataset as datasets

    source = layout.source
    files = list(dict.fromkeys(piece.place for piece in layout.pieces))
    try:
        data = datasets.dataset(files or source.files(PARQUET), format="parquet",
                                filesystem=source.system, partitioning="hive",
                                partition_base_dir=source.path)
        table = data.to_table(columns=list(layout.kinds), use_threads=False)
    except failures(pyarrow.ArrowException) as error:
        raise damaged(source.name, error) from None
    columns: dict[str, Any] = {}
    for name in layout.kinds:
        column = table.column(name)
        numbers = None if name in words or not layout.numeric(name) else _complete(column)
        columns[name] = [_cell(value) for value in column.to_pylist()] if numbers is None else \
            numbers
    return Sheet(source.name, columns, range(1, layout.rows + 1))


def new_rows(path: str | PathLike, words: Sequence[str] = ()) -> Sheet:
    """The columns of a Parquet file, for predictions; some as they are written."""
    return sheet_of_parquet(layout_of(source_of(path)), words)


def read_zarr(path: str | PathLike, *, storage_options: Mapping[str, Any] | None = None) -> Table:
    """Arrays X and Y of a Zarr group, left where they are, and X_test and Y_test in memory.

    Names of columns are taken from an attribute ``columns`` of an array, where it has one.

    Raises
    ------
    ImportError
        If zarr, or what a URL needs, is not installed.
    ValueError
        If there is no X or Y, or one that is no array of numbers.
    """
    source = source_of(path, storage_options)
    arrays = {name: _member(source, name, storage_options)
              for name in ("X", "Y", "X_test", "Y_test")}
    for name in ("X", "Y"):
        if arrays[name] is None:
            raise ValueError(f"{source.name}: expected a Zarr group with arrays X and Y, found no "
                             f"{name}")
    X, Y = arrays["X"], arrays["Y"]
    if len(X) != len(Y):
        raise ValueError(f"{source.name}: expected as many rows in Y as in X, {len(X)}, got "
                         f"{len(Y)}")
    tests: dict[str, Any] = {name: None if arrays[name] is None else np.asarray(arrays[name])
             for name in ("X_test", "Y_test")}
    return Table(X, Y, X.columns, Y.columns, **tests)


#: Options of each kind of file that `read_table` reads.
OF_TABLES = ("targets", "drop", "missing", "categories", "classes", "weights")
OPTIONS = {"csv": (*OF_TABLES, "separator", "decimal"), "parquet": (*OF_TABLES, "lazy"),
           "zarr": ()}
KINDS = {"csv": "a CSV file", "parquet": "a Parquet table", "zarr": "a Zarr group"}


def read_table(place: str | PathLike, options: Mapping[str, Any]) -> Table:
    """A table of a CSV or Parquet file or the arrays of a Zarr group, by its name.

    Parameters
    ----------
    place : str or path
        Or a URL of fsspec.
    options : mapping
        Of `read_csv` or `read_parquet`; Zarr has none.

    Raises
    ------
    ValueError
        As these, and for an option that the kind of file has not.
    """
    source = source_of(place)
    kind = kind_of(source)
    if kind == "npy" or (kind is None and source.path.lower().endswith(".npz")):
        raise ValueError(f"{source.url}: expected a table (CSV, Parquet), or a Zarr group with "
                         "arrays X and Y")
    kind = kind or "csv"
    for name in options:
        if name not in OPTIONS[kind]:
            known = ", ".join(OPTIONS[kind]) or "none"
            raise ValueError(f"{name}: {source.name} is {KINDS[kind]}, which has no such option; "
                             f"it takes {known}")
    read: Any = {"csv": read_csv, "parquet": read_parquet, "zarr": read_zarr}[kind]
    table: Table = read(place, **options)
    return table


def _member(source: Source, name: str, options: Mapping[str, Any] | None) -> Any:
    """An array of a group; None where there is none."""
    group = source.url.rstrip("/")
    if not (source.has(f"{name}/zarr.json") or source.has(f"{name}/.zarray")):
        return None
    return open_rows(f"{group}/{name}", storage_options=options)


def _complete(column: Any) -> NDArray | None:
    """A column of numbers, (N,); None where one is missing or not finite, as cells can tell."""
    import pyarrow

    if column.null_count:
        return None
    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    values: NDArray = column.cast(pyarrow.float64(), safe=False).to_numpy().astype(float)
    return values if np.isfinite(values).all() else None


def _cell(value: Any) -> str:
    """What a CSV file would have in a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value).strip()
