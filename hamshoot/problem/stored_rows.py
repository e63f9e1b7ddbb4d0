"""Rows that stay where they are: numbers read piece by piece from files and object stores.

A piece is what a format reads at once: a row group of Parquet, a run of chunks of Zarr, a range of
bytes of a remote .npy file. Pieces that were read are kept, as far as `SHELF_BYTES` goes, for all
who read them in this process; whoever reads rows one block after the other decodes every piece
once. What travels between processes is where the pieces lie, and what their numbers have to be.
"""

from __future__ import annotations

import copy
import os
import threading
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes of decoded pieces that a process keeps.
SHELF_BYTES = 500_000_000
#: Bytes of a piece, where the format leaves a choice.
PIECE_BYTES = 16_000_000
#: Bytes of the largest piece that is read: each worker holds one or two at a time.
MOST_PIECE_BYTES = 2_000_000_000
#: Pieces that a thread holds besides: of X and of Y, which it reads in turns.
HELD = 2


class MissingMap(ValueError):
    """The file of data that stay in place is gone, or no longer what it was."""


class Version(NamedTuple):
    """What tells a file from what it is after a change: its size, and a time or a tag."""

    bytes: int
    tag: str


class Piece(NamedTuple):
    """Rows that are read at once.

    Attributes
    ----------
    place : str
        Of the file, for its file system.
    number : int
        Of the row group, or the first row.
    rows : int
    version : Version
        Of the file, when it was opened.
    constants : tuple of (str, float)
        Columns that its folder names, as those of year=2024.
    """

    place: str
    number: int
    rows: int
    version: Version
    constants: tuple[tuple[str, float], ...] = ()


class StoredRows(ABC):
    """Some rows of numbers (N, d) in files, or all; pickles without them.

    Parameters
    ----------
    name : str
        For messages.
    dtype : numpy dtype
        In which rows are read.
    columns : sequence of str, optional
        Names of the d columns.
    width : int
        d.
    pieces : sequence of Piece

    Attributes
    ----------
    sums : list of (int or None)
        CRC-32 of the numbers of each piece, once they were read.
    survey : object
        What one pass over all rows has found (`hamshoot.problem.memory_map.survey`), kept here.
    """

    ndim = 2

    def __init__(self, name: str, dtype: Any, columns: Sequence[str] | None, width: int,
                 pieces: Sequence[Piece]):
        self.name, self.dtype = name, np.dtype(dtype)
        self.columns = None if columns is None else tuple(columns)
        self.pieces = tuple(pieces)
        self.sums: list[int | None] = [None] * len(self.pieces)
        self.width, self.skip = width, 0
        self.length = sum(piece.rows for piece in self.pieces)
        self.rows: NDArray | None = None
        self.survey: Any = None

    @abstractmethod
    def read_piece(self, piece: Piece) -> NDArray:
        """The numbers of a piece, (rows, d), contiguous, in the type of `dtype`.

        Raises
        ------
        MissingMap
            If its file is gone or another one.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `hamshoot.problem.open_rows.reopened` opens again, JSON-ready."""

    @abstractmethod
    def identity(self) -> tuple:
        """What tells these columns from others of the same files."""

    # -- as an array -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)."""
        return (self.length if self.rows is None else len(self.rows)), self.width

    @property
    def size(self) -> int:
        """N d."""
        return self.shape[0] * self.width

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Rows in memory, (k, d), of a slice or indices; of one index the row (d,)."""
        if isinstance(key, tuple):
            return self[key[0]][..., key[1]]
        if isinstance(key, slice) and self.rows is None:
            a, b, step = key.indices(len(self))
            if step == 1:
                return self._between(a, max(a, b))
        chosen = np.arange(len(self))[key]
        wanted = np.atleast_1d(chosen if self.rows is None else self.rows[chosen])
        return self._gathered(wanted).reshape(*np.shape(chosen), self.width)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {len(self)} rows of {self.width} numbers)"

    def part(self, a: int, b: int) -> StoredRows:
        """Rows a to b, with the pieces alone that hold them."""
        if self.rows is not None:
            return self._cut(self.rows[a:b])
        return self._trimmed(a, b)

    def take(self, rows: Any) -> StoredRows:
        """Some of the rows, still where they are."""
        chosen = np.arange(len(self))[rows]
        return self._cut(chosen if self.rows is None else self.rows[chosen])

    @property
    def connected(self) -> bool:
        """Whether they come through connections that a forked process must not share."""
        return bool(getattr(getattr(self, "source", None), "connected", False))

    @property
    def whole(self) -> bool:
        """Whether these are all rows, as they were opened."""
        return self.rows is None and self.skip == 0 and \
            self.length == sum(piece.rows for piece in self.pieces)

    def called(self, column: int) -> str:
        """A column by name, or number, for messages."""
        return brief(self.columns[column]) if self.columns else str(column)

    def check_pieces(self) -> None:
        """Raise ValueError for a piece that is too large to be held."""
        for piece in self.pieces:
            size = piece.rows * self.width * self.dtype.itemsize
            if size > MOST_PIECE_BYTES:
                raise ValueError(
                    f"{self.name}: {self.unit(piece)} holds {piece.rows} rows of {self.width} "
                    f"numbers, {size / 1e9:.3g} GB, and is read as a whole, which takes more than "
                    f"the {MOST_PIECE_BYTES / 1e9:.3g} GB that a worker may hold; {self.advice}")

    #: How to write the file with smaller pieces.
    advice = "write it in smaller pieces"

    def unit(self, piece: Piece) -> str:
        """A piece in the words of its format."""
        return f"the piece from row {piece.number}"

    # -- pieces ------------------------------------------------------------------------------------

    def _between(self, a: int, b: int) -> NDArray:
        """Rows a to b of those of the pieces, copied."""
        out = np.empty((b - a, self.width), self.dtype)
        for k, (first, last) in enumerate(self._spans()):
            low, high = max(a, first), min(b, last)
            if low < high:
                out[low - a : high - a] = self._piece(k)[low - first : high - first]
        return out

    def _gathered(self, wanted: NDArray) -> NDArray:
        out = np.empty((len(wanted), self.width), self.dtype)
        for k, (first, last) in enumerate(self._spans()):
            mine = np.flatnonzero((wanted >= first) & (wanted < last))
            if len(mine):
                out[mine] = self._piece(k)[wanted[mine] - first]
        return out

    def _spans(self) -> Iterable[tuple[int, int]]:
        """First row of each piece and the one behind its last, the first kept row being 0."""
        at = -self.skip
        for piece in self.pieces:
            yield at, at + piece.rows
            at += piece.rows

    def _piece(self, k: int) -> NDArray:
        """The numbers of a piece, which nobody may write to."""
        piece = self.pieces[k]
        read = _shelf.get((self.identity(), piece), lambda: self.read_piece(piece))
        if self.sums[k] is None:
            self.sums[k] = read.sum
        elif self.sums[k] != read.sum:
            raise MissingMap(f"{self.name}: {self.unit(piece)} has other numbers than when it was "
                             "first read; the data of a run may not change under it")
        return read.numbers

    def _trimmed(self, a: int, b: int) -> StoredRows:
        """Rows a to b of those of the pieces."""
        spans = list(self._spans())
        mine = [k for k, (first, last) in enumerate(spans) if first < b and last > a]
        other = copy.copy(self)
        other.survey, other.rows = None, None
        other.pieces = tuple(self.pieces[k] for k in mine)
        other.sums = [self.sums[k] for k in mine]
        other.skip, other.length = (a - spans[mine[0]][0] if mine else 0), b - a
        return other

    def _cut(self, rows: NDArray) -> StoredRows:
        """Chosen rows, by their numbers among those of the pieces."""
        low, high = (int(rows.min()), int(rows.max()) + 1) if len(rows) else (0, 0)
        other = self._trimmed(low, high)
        other.rows = rows - low
        return other


# -- what was read ---------------------------------------------------------------------------------


class _Read(NamedTuple):
    """A piece that was read: its numbers, for nobody to write to, and their CRC-32."""

    numbers: NDArray
    sum: int


class _Shelf:
    """Decoded pieces of this process, the one not asked for longest forgotten first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[Any, _Read] = OrderedDict()
        self.turns: dict[Any, threading.Lock] = {}
        self.bytes = 0
        self.local = threading.local()

    def get(self, key: Any, read: Callable[[], NDArray]) -> _Read:
        """A piece, read by one thread for all."""
        held: OrderedDict[Any, _Read] = self.local.__dict__.setdefault("held", OrderedDict())
        found = held.pop(key, None)
        held[key] = found = self._shared(key, read) if found is None else found
        while len(held) > HELD:
            held.popitem(last=False)
        return found

    def _shared(self, key: Any, read: Callable[[], NDArray]) -> _Read:
        found = self._look(key)
        if found is not None:
            return found
        with self.lock:
            turn = self.turns.setdefault(key, threading.Lock())
        with turn:
            found = self._look(key)
            if found is None:
                numbers = read()
                numbers.setflags(write=False)
                found = _Read(numbers, zlib.crc32(numbers.data.cast("B")))
                self._put(key, found)
        return found

    def _look(self, key: Any) -> _Read | None:
        with self.lock:
            found = self.kept.get(key)
            if found is not None:
                self.kept.move_to_end(key)
            return found

    def _put(self, key: Any, read: _Read) -> None:
        with self.lock:
            self.turns.pop(key, None)
            self.kept[key] = read
            self.bytes += read.numbers.nbytes
            while self.bytes > SHELF_BYTES and len(self.kept) > 1:
                _, old = self.kept.popitem(last=False)
                self.bytes -= old.numbers.nbytes


_shelf = _Shelf()


def clear_shelf() -> None:
    """Forget all pieces; in a forked process, whose locks may be held by threads that are gone."""
    global _shelf
    _shelf = _Shelf()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clear_shelf)
