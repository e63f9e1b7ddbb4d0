"""Rows of arrays that stay in their files: memory-mapped data, read a block at a time.

Those of other files and stores are `hamshoot.problem.stored_rows`; what is said here of maps, the
functions below do for them alike.

A map is read where its rows are used and never copied whole; its numbers keep their type on disk
and are double precision where they are read. What travels between processes is the path of the
file and the place in it.
"""

from __future__ import annotations

import mmap
import os
import tokenize
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.problem.stored_rows import MissingMap as MissingMap
from hamshoot.problem.stored_rows import StoredRows
from hamshoot.support.checks import MOST_REPEATED, check_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bytes of data in double precision that are copied to memory without a second thought. Beyond,
#: blocks are read and scaled every time they are used, and saved solutions hold paths of maps.
MEMORY_BYTES = 500_000_000
#: Numbers in memory at a time while a map is checked or measured.
CHUNK_NUMBERS = 4_000_000


class MappedRows:
    """Some rows of a memory-mapped array (N, d), or all; pickles without its data.

    Parameters
    ----------
    path : str
    dtype : str
    offset : int
        Bytes before the first number.
    shape, strides : tuple of int
        Of the array in the file; strides in bytes.
    rows : ndarray of int, optional
        Which of its rows; all by default.
    """

    def __init__(self, path: str, dtype: str, offset: int, shape: tuple[int, int],
                 strides: tuple[int, int], rows: NDArray | None = None):
        self.path, self.dtype, self.offset = path, np.dtype(dtype), int(offset)
        self.full: tuple[int, int] = (shape[0], shape[1])
        self.strides: tuple[int, int] = (strides[0], strides[1])
        self.rows = rows
        self._array: NDArray | None = None

    @classmethod
    def of(cls, array: np.memmap | MappedRows | StoredRows) -> MappedRows | StoredRows:
        """Describe a map, (N, d) or (N,), that `numpy.load` or `numpy.memmap` made."""
        if isinstance(array, (MappedRows, StoredRows)):
            return array
        rows: Any = array[:, None] if array.ndim == 1 else array  # still an np.memmap
        page = np.frombuffer(rows._mmap, dtype=np.uint8)
        # A slice of a map still has the offset of the whole: its place follows from the addresses.
        begins = rows.__array_interface__["data"][0] - page.__array_interface__["data"][0]
        first = rows.offset - rows.offset % _granularity()
        return cls(str(rows.filename), rows.dtype.str, first + begins, rows.shape, rows.strides)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)."""
        return (self.full[0] if self.rows is None else len(self.rows)), self.full[1]

    ndim = 2

    @property
    def size(self) -> int:
        """N d."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Rows in memory, of a slice or indices, in the type of the file."""
        array = self._open()
        return np.array(array[key] if self.rows is None else array[self.rows[key]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_array": None}

    def part(self, a: int, b: int) -> MappedRows:
        """Rows a to b."""
        if self.rows is not None:
            return self.take(slice(a, b))
        offset = self.offset + a * self.strides[0]
        return MappedRows(self.path, self.dtype.str, offset, (b - a, self.full[1]), self.strides)

    def take(self, rows: Any) -> MappedRows:
        """Some of the rows, still in the file."""
        rows = np.arange(len(self))[rows] if self.rows is None else self.rows[rows]
        return MappedRows(self.path, self.dtype.str, self.offset, self.full, self.strides, rows)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` opens again, JSON-ready; for all rows of a file's array."""
        return {"path": os.path.abspath(self.path), "bytes": os.path.getsize(self.path),
                "dtype": self.dtype.str, "offset": self.offset, "shape": list(self.full),
                "strides": list(self.strides)}

    @classmethod
    def from_dict(cls, name: str, entry: dict[str, Any]) -> MappedRows:
        """Inverse of `to_dict`.

        Raises
        ------
        MissingMap
            If the file is gone or has another size.
        """
        path = Path(entry["path"])
        if not path.is_file():
            raise MissingMap(f"{name}: the solution refers to {path}, and there is no such file")
        if path.stat().st_size != entry["bytes"]:
            raise MissingMap(
                f"{name}: {path} has {path.stat().st_size} bytes, the solution was saved when it "
                f"had {entry['bytes']}"
            )
        return cls(str(path), entry["dtype"], entry["offset"], tuple(entry["shape"]),
                   tuple(entry["strides"]))

    def _open(self) -> NDArray:
        if self._array is None:
            try:
                whole = _map_of(self.path)
            except OSError as error:
                raise MissingMap(f"{self.path}: cannot be mapped ({error.strerror})") from None
            self._array = np.ndarray(self.full, self.dtype, whole, self.offset, self.strides)
        return self._array


#: One map of a file for all its rows in this process: the system counts its pages once for each.
_open_maps: weakref.WeakValueDictionary[tuple, np.memmap] = weakref.WeakValueDictionary()


def _map_of(path: str) -> np.memmap:
    about = os.stat(path)
    key = (path, about.st_ino, about.st_size, about.st_mtime_ns)
    whole = _open_maps.get(key)
    if whole is None:
        whole = _open_maps[key] = np.memmap(path, dtype=np.uint8, mode="r")
    return whole


class Samples(NamedTuple):
    """Consecutive samples of a problem, scaled and lifted when they are read.

    Attributes
    ----------
    X, Y : ndarray, MappedRows or StoredRows, shape (T, d_in), (T, d_out)
        In the user's units.
    input_scaling, target_scaling : Scaling
    lift : ndarray, shape (w, d_in)
    """

    X: Any
    Y: Any
    input_scaling: Any
    target_scaling: Any
    lift: NDArray

    def read(self, a: int, b: int) -> tuple[NDArray, NDArray]:
        """A_0 (w, b − a) and Yᵀ (d_out, b − a) of samples a to b."""
        start = self.lift @ self.input_scaling.apply(doubles(self.X, a, b)).T
        return start, self.target_scaling.apply(doubles(self.Y, a, b)).T


def is_mapped(array: Any) -> bool:
    """Whether an array lies in a file or a store, of numbers that can be read as doubles."""
    if isinstance(array, (MappedRows, StoredRows)):
        return True
    return (isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None
            and array.filename is not None and array.dtype.kind in "fiub")


def part(array: Any, a: int, b: int) -> Any:
    """Rows a to b, in the file if that is where the array is."""
    return MappedRows.of(array).part(a, b) if is_mapped(array) else array[a:b]


def taken(array: Any, rows: NDArray) -> Any:
    """Chosen rows, in the file if that is where the array is."""
    return MappedRows.of(array).take(rows) if is_mapped(array) else array[rows]


def doubles(array: Any, a: int, b: int) -> NDArray:
    """Rows a to b in memory, in double precision, row by row."""
    return np.asarray(array[a:b], dtype=float, order="C")


def chunks(array: Any) -> Iterator[tuple[int, NDArray]]:
    """First row and rows, in double precision, of one chunk after the other."""
    size = max(1, CHUNK_NUMBERS // array.shape[1])
    for a in range(0, len(array), size):
        yield a, doubles(array, a, min(a + size, len(array)))


class Moments(NamedTuple):
    """Mean, deviation and largest size of the columns (d,), and the deviation of all numbers."""

    mean: NDArray
    spread: NDArray
    size: NDArray
    common: float


class Survey(NamedTuple):
    """What one pass over all rows finds.

    Attributes
    ----------
    moments : Moments
    bad : (count, row, column, value), optional
        Of the numbers that are not finite, how many there are, and the first.
    """

    moments: Moments
    bad: tuple[int, int, int, float] | None


def moments(array: Any, weights: NDArray | None = None) -> Moments:
    """Moments of the columns; the same to the last bit wherever the numbers are.

    Up to `CHUNK_NUMBERS` as NumPy takes them, beyond in one pass over chunks, whose means and
    squares are merged (Chan, Golub and LeVeque 1979). With weights (N,), of rows in memory, those
    of rows that are there so many times.
    """
    return survey(array).moments if weights is None else _weighted(array, weights)


@np.errstate(all="ignore")
def _weighted(array: NDArray, weights: NDArray) -> Moments:
    rows = array[weights > 0]
    shares = weights[weights > 0] / weights.sum()
    mean = shares @ rows
    total = mean.mean()
    return Moments(mean, np.sqrt(shares @ (rows - mean) ** 2), np.abs(rows).max(axis=0),
                   float(np.sqrt((shares @ (rows - total) ** 2).mean())))


@np.errstate(all="ignore")  # numbers that are not finite are told, and squares that are none
def survey(array: Any) -> Survey:
    """Moments, and what is not finite, by one pass over the rows; of stored rows it is kept."""
    if isinstance(array, StoredRows) and array.survey is not None:
        kept: Survey = array.survey
        return kept
    count, first, at = 0, None, 0
    mean, squares, size = (np.zeros(array.shape[1]) for _ in range(3))
    whole: Moments | None = None
    for a, values in chunks(array):
        finite = np.isfinite(values)
        if not finite.all():
            bad = np.argwhere(~finite)
            count += len(bad)
            first = first or (a + int(bad[0, 0]), int(bad[0, 1]), float(values[tuple(bad[0])]))
        size = np.maximum(size, np.abs(values).max(axis=0))
        if len(values) == len(array):
            whole = Moments(values.mean(axis=0), values.std(axis=0), size, float(values.std()))
            break
        part, rows = values.mean(axis=0), len(values)
        gap, at = part - mean, at + rows
        squares += ((values - part) ** 2).sum(axis=0) + gap**2 * (rows * (at - rows) / at)
        mean = mean + gap * (rows / at)
    if whole is None:
        between = len(array) * np.sum((mean - mean.mean()) ** 2)
        whole = Moments(mean, np.sqrt(squares / len(array)), size,
                        float(np.sqrt((squares.sum() + between) / array.size)))
    found = Survey(whole, None if first is None else (count, *first))
    if isinstance(array, StoredRows):
        array.survey = found
    return found


def not_finite(array: Any) -> tuple[int, int, int, float] | None:
    """How many numbers are not finite, and row, column and value of the first; None if none is."""
    if array.dtype.kind != "f" and not isinstance(array, StoredRows):
        return None
    return survey(array).bad


def map_npz(path: Path) -> dict[str, NDArray]:
    """Maps of the arrays of an uncompressed .npz file; strings are read.

    Raises
    ------
    ValueError
        If a member is compressed, or the file is not a complete .npz file.
    """
    check_regular(path, "an .npz file")
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            members = archive.infolist()
            packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise _Compressed(packed[0].removesuffix(".npy"))
            return {m.filename.removesuffix(".npy"): _member(path, file, m) for m in members}
    except _Compressed as member:
        raise ValueError(
            f"{path}: the array {member} is compressed and cannot be mapped; write the file with "
            "numpy.savez, or leave mmap out"
        ) from None
    except _DAMAGED as error:
        reason = str(error).splitlines()[0][:MOST_REPEATED] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a complete .npz file ({reason})") from None


#: What zip files and headers of arrays raise that are damaged: a version that is not read, sizes
#: beyond all integers, and a header that is no Python literal or none of an array.
_DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError, OverflowError,
            TypeError, SyntaxError, tokenize.TokenError)


class _Compressed(Exception):
    pass


def _member(path: Path, file: Any, member: zipfile.ZipInfo) -> NDArray:
    """Map of a stored member: its header lies behind that of the zip file."""
    file.seek(member.header_offset)
    local = file.read(30)
    if local[:4] != b"PK\x03\x04":
        raise ValueError(f"no member at byte {member.header_offset}")
    names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    file.seek(member.header_offset + 30 + names)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    array = np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
    return array if dtype.kind in "fiub" else np.array(array)


def _granularity() -> int:
    return mmap.ALLOCATIONGRANULARITY
