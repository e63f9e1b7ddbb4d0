"""Columns of Parquet files as rows that stay there, read one row group at a time.

A file, or a folder of files, whose names of folders may be columns too (``year=2024``). Rows are in
the order of the files' names, then as in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.problem.stored_files import Source, failures
from hamshoot.problem.stored_rows import MissingMap, Piece, StoredRows
from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows that are put in order at a time: of some columns they fit a core's cache.
STRIPE = 4096
#: How names of Parquet files end, in a folder.
PARQUET = (".parquet", ".pq", ".parq")


class Layout(NamedTuple):
    """What the footers of Parquet files say.

    Attributes
    ----------
    source : Source
    kinds : dict of str to DataType
        Columns of all files, by name.
    pieces : tuple of Piece
        All row groups.
    """

    source: Source
    kinds: dict[str, Any]
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """N."""
        return sum(piece.rows for piece in self.pieces)

    def numeric(self, name: str) -> bool:
        """Whether a column holds numbers, or true and false."""
        return _numeric(self.kinds[name])


def layout_of(source: Source) -> Layout:
    """Columns and row groups of a Parquet file or a folder of such; read are the footers alone.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If there is none, a file is damaged, or the files have different columns.
    """
    try:
        import pyarrow
        import pyarrow.dataset as datasets
    except ImportError:
        raise missing(f"reading {source.name}", "pyarrow", "parquet") from None
    files = source.files(PARQUET) if source.is_folder() else source.files(())
    if not files:
        raise ValueError(f"{source.name}: expected Parquet files ({', '.join(PARQUET)}) in this "
                         "folder, found none")
    try:
        data = datasets.dataset(files, format="parquet", filesystem=source.system,
                                partitioning="hive", partition_base_dir=source.path)
        fragments = sorted(data.get_fragments(), key=lambda one: one.path)
        footers = [(one, one.metadata) for one in fragments]
    except failures(pyarrow.ArrowException) as error:
        raise damaged(source.name, error) from None
    names = data.schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{source.name}: column {brief(twice)} appears twice")
    pieces: list[Piece] = []
    kinds = {field.name: field.type for field in data.schema}
    for one, footer in footers:
        folders = datasets.get_partition_keys(one.partition_expression)
        _check_alike(source, one, kinds, folders)
        version = source.version(one.path)
        constants = tuple((name, float(value)) for name, value in folders.items()
                          if isinstance(value, (int, float)))
        pieces += [Piece(one.path, group, footer.row_group(group).num_rows, version, constants)
                   for group in range(footer.num_row_groups) if footer.row_group(group).num_rows]
    return Layout(source, kinds, tuple(pieces))


def _check_alike(source: Source, fragment: Any, kinds: dict[str, Any], folders: Any) -> None:
    """Raise ValueError for a file without a column of the others, or with another kind of it."""
    own = {field.name: field.type for field in fragment.physical_schema}
    for name, kind in kinds.items():
        if name in folders:
            continue
        where = source.shown(fragment.path)
        if name not in own:
            raise ValueError(f"{where}: has no column {brief(name)}, which other files beside it "
                             "have")
        if _numeric(own[name]) != _numeric(kind):
            raise ValueError(f"{where}: column {brief(name)} is of {own[name]}, in other files "
                             f"beside it of {kind}")


def damaged(name: str, error: BaseException) -> ValueError:
    """The error of what pyarrow cannot read, with the first line of its reason."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{name}: not a complete Parquet file ({reason[:200]})")


class ParquetRows(StoredRows):
    """Columns of Parquet files (N, d).

    Parameters
    ----------
    layout : Layout
    columns : sequence of str
        Of numbers, in the order of the d columns.

    Raises
    ------
    ValueError
        For a column that there is not, or of something else than numbers, and a row group too
        large to be read.
    """

    advice = "write it with smaller ones, as by row_group_size=100_000 of pyarrow"

    def __init__(self, layout: Layout, columns: Sequence[str]):
        name, kinds = layout.source.name, layout.kinds
        if isinstance(columns, str) or not columns:
            raise ValueError(f"columns: expected a list of at least one column name, got "
                             f"{brief(columns)}")
        for column in columns:
            if column not in kinds:
                shown = ", ".join(brief(one)[1:-1] for one in list(kinds)[:8])
                more = f" and {len(kinds) - 8} more" if len(kinds) > 8 else ""
                raise ValueError(f"{name} has no column {brief(column)}; it has {shown}{more}")
            if not _numeric(kinds[column]):
                raise ValueError(
                    f"{name}: column {brief(column)} holds {_words(kinds[column])}, expected "
                    "numbers where rows stay in the file; leave it out with drop, write it as "
                    "numbers, or read a table that fits into memory with lazy = false")
        single = all(str(kinds[column]) in ("float", "halffloat") for column in columns)
        super().__init__(name, np.float32 if single else np.float64, columns, len(columns),
                         layout.pieces)
        self.source = layout.source
        self.check_pieces()

    def identity(self) -> tuple:
        """Its URL and columns."""
        return self.source.url, self.columns

    def unit(self, piece: Piece) -> str:
        """A row group of a file."""
        where = self.source.shown(piece.place)
        return f"row group {piece.number}" if where == self.source.url else \
            f"row group {piece.number} of {where}"

    def read_piece(self, piece: Piece) -> NDArray:
        """A row group, decoded by one thread."""
        self.source.check(piece.place, piece.version)
        folders = dict(piece.constants)
        names = self.columns or ()
        table = self._table(piece, [name for name in names if name not in folders])
        if table.num_rows != piece.rows:
            raise MissingMap(f"{self.name}: {self.unit(piece)} has {table.num_rows} rows, and had "
                             f"{piece.rows} when it was opened")
        columns = [np.full(piece.rows, folders[name]) if name in folders else
                   _numbers(table.column(name)) for name in names]
        out = np.empty((piece.rows, self.width), self.dtype)
        for a in range(0, piece.rows, STRIPE):
            for j, values in enumerate(columns):
                out[a : a + STRIPE, j] = values[a : a + STRIPE]
        return out

    def _table(self, piece: Piece, names: list[str]) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise missing(f"reading {self.name}", "pyarrow", "parquet") from None
        opened = self.source.open(piece.place)
        try:
            with parquet.ParquetFile(opened, pre_buffer=False) as file:
                return file.read_row_group(piece.number, columns=names, use_threads=False)
        except failures(pyarrow.ArrowException) as error:
            raise MissingMap(str(damaged(self.source.shown(piece.place), error))) from None
        finally:
            if self.source.system is not None:
                opened.close()

    def to_dict(self) -> dict[str, Any]:
        """Its URL and columns, and what the files were."""
        return {"kind": "parquet", "url": self.source.url, "columns": list(self.columns or ()),
                "shape": list(self.shape), "versions": versions_of(self.pieces)}


def versions_of(pieces: Sequence[Piece]) -> list[list[Any]]:
    """The files of the pieces, each once: size and tag, in order."""
    return [list(version) for version in {one.place: one.version for one in pieces}.values()]


def _numeric(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
                or types.is_decimal(kind))


def _words(kind: Any) -> str:
    """A type of Arrow, for people."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind) or types.is_string(kind) or types.is_large_string(kind):
        return "words"
    if types.is_temporal(kind):
        return f"dates or times ({kind})"
    return str(kind)


def _numbers(column: Any) -> NDArray:
    """A column of a table as numbers, NaN where there is none."""
    import pyarrow

    if not pyarrow.types.is_floating(column.type):
        if pyarrow.types.is_boolean(column.type):
            column = column.cast(pyarrow.uint8())
        column = column.cast(pyarrow.float64(), safe=False)
    return column.to_numpy()
