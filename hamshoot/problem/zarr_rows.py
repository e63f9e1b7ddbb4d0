"""Arrays of Zarr, and .npy files of object stores, as rows that stay there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.parquet_rows import versions_of
from hamshoot.problem.stored_files import Source, failures, source_of
from hamshoot.problem.stored_rows import PIECE_BYTES, MissingMap, Piece, StoredRows, Version
from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Files that a Zarr array has its metadata in, of format 3 and 2, and a group.
METADATA, GROUP = ("zarr.json", ".zarray"), ("zarr.json", ".zgroup")
#: Bytes in which the header of a .npy file is looked for.
HEADER = 65_536


class ZarrRows(StoredRows):
    """A Zarr array (N, d) or (N,).

    Parameters
    ----------
    source : Source
        Of its folder.

    Raises
    ------
    ImportError
        If zarr is not installed.
    ValueError
        If there is no array, or one of something else than rows of numbers.
    """

    advice = "write it in smaller chunks, as chunks=(100_000, …) of rows"

    def __init__(self, source: Source):
        self.source = source
        array = self._open()
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{source.name}: expected an array of numbers, got {array.dtype}")
        if array.ndim not in (1, 2) or 0 in array.shape:
            raise ValueError(f"{source.name}: expected an array (samples, columns) with at least "
                             f"one of each, got shape {tuple(array.shape)}")
        self.flat = array.ndim == 1
        width = 1 if self.flat else int(array.shape[1])
        run = _run(int(array.chunks[0]), width * array.dtype.itemsize)
        place, version = self._metadata()
        super().__init__(source.name, array.dtype, _names(array, width), width,
                         _pieces(place, int(array.shape[0]), run, version))
        self.check_pieces()

    def identity(self) -> tuple:
        """Its URL."""
        return (self.source.url,)

    def unit(self, piece: Piece) -> str:
        """A run of chunks."""
        return f"the chunk from row {piece.number}"

    def read_piece(self, piece: Piece) -> NDArray:
        """The rows of a run of chunks."""
        self.source.check(piece.place, piece.version)
        array = self._open()
        try:
            numbers = np.asarray(array[piece.number : piece.number + piece.rows])
        except failures(RuntimeError, ValueError) as error:  # of the store, or the codec
            raise MissingMap(f"{self.name}: {self.unit(piece)} cannot be read "
                             f"({' '.join(str(error).split())[:200]})") from None
        return np.ascontiguousarray(numbers.reshape(piece.rows, self.width), dtype=self.dtype)

    def _open(self) -> Any:
        try:
            import zarr
        except ImportError:
            raise missing(f"reading {self.source.name}", "zarr", "zarr") from None
        place, options = self.source.path, {}
        if self.source.system is not None:
            place, options = self.source.url, {"storage_options": dict(self.source.options or {})}
        try:
            return zarr.open_array(place, mode="r", **options)
        except (FileNotFoundError, KeyError):
            self._metadata()
            raise MissingMap(f"{self.source.url}: expected an array of Zarr") from None
        except failures(ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.source.name}: not an array of Zarr ({reason})") from None

    def _metadata(self) -> tuple[str, Version]:
        """The file that says what the array is, and its version: the array is new where it is."""
        name = next((name for name in METADATA if self.source.has(name)), METADATA[0])
        path = f"{self.source.path.rstrip('/')}/{name}"
        return path, self.source.version(path)

    def to_dict(self) -> dict[str, Any]:
        """Its URL, and what its metadata were."""
        return {"kind": "zarr", "url": self.source.url, "columns": [], "shape": list(self.shape),
                "versions": versions_of(self.pieces)}


class NpyRows(StoredRows):
    """The array (N, d) or (N,) of a .npy file in an object store, read by ranges of bytes.

    Parameters
    ----------
    source : Source

    Raises
    ------
    ValueError
        If it is none, or one whose rows do not lie together.
    """

    def __init__(self, source: Source):
        self.source = source
        version = source.version(source.path)
        shape, fortran, dtype, self.offset = _header(source)
        if dtype.kind not in "fiub" or dtype.hasobject:
            raise ValueError(f"{source.name}: expected an array of numbers, got {dtype}")
        if len(shape) not in (1, 2) or 0 in shape:
            raise ValueError(f"{source.name}: expected an array (samples, columns) with at least "
                             f"one of each, got shape {shape}")
        width = 1 if len(shape) == 1 else shape[1]
        if fortran and width > 1:
            raise ValueError(f"{source.name}: is written column by column, so that no rows can be "
                             "read by themselves; write numpy.ascontiguousarray of it")
        if self.offset + shape[0] * width * dtype.itemsize != version.bytes:
            raise ValueError(f"{source.name}: not a complete .npy file, {version.bytes} bytes for "
                             f"an array of shape {shape}")
        super().__init__(source.name, dtype, None, width,
                         _pieces(source.path, shape[0], _run(1, width * dtype.itemsize), version))

    def identity(self) -> tuple:
        """Its URL."""
        return (self.source.url,)

    def read_piece(self, piece: Piece) -> NDArray:
        """A range of bytes."""
        self.source.check(piece.place, piece.version)
        row = self.width * self.dtype.itemsize
        start = self.offset + piece.number * row
        content = self.source.bytes_of(piece.place, start, start + piece.rows * row)
        if len(content) != piece.rows * row:
            raise MissingMap(f"{self.name}: ends before row {piece.number + piece.rows}")
        return np.frombuffer(content, self.dtype).reshape(piece.rows, self.width)

    def to_dict(self) -> dict[str, Any]:
        """Its URL, and what it was."""
        return {"kind": "npy", "url": self.source.url, "columns": [], "shape": list(self.shape),
                "versions": versions_of(self.pieces)}


def url_of(array: Any) -> tuple[str, dict[str, Any]] | None:
    """Where the numbers of a `zarr.Array` lie, with options of fsspec; None of one in memory.

    Raises
    ------
    ValueError
        For a store that is neither in memory, nor a folder, nor one of fsspec.
    """
    store = array.store
    system = getattr(store, "fs", None)
    root = getattr(store, "root", None) if system is None else None
    if root is not None:
        return f"{root}/{array.path}".rstrip("/"), {}
    if system is not None:
        system = getattr(system, "sync_fs", system)
        options = {name: value for name, value in system.storage_options.items()
                   if name != "asynchronous"}
        return str(system.unstrip_protocol(f"{store.path}/{array.path}".rstrip("/"))), options
    if type(store).__name__ in ("MemoryStore", "ManagedMemoryStore"):
        return None
    raise ValueError(f"expected a Zarr array in a folder or a store of fsspec, got one in "
                     f"{brief(type(store).__name__)}; give its numbers, array[:]")


def zarr_rows(array: Any) -> Any:
    """A `zarr.Array` as rows that stay in place; the numbers of one in memory."""
    place = url_of(array)
    if place is None:
        return np.asarray(array[:])
    return ZarrRows(source_of(place[0], place[1]))


def _header(source: Source) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, type and length of the header of a .npy file."""
    file = io.BytesIO(source.bytes_of(source.path, 0, HEADER))
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else \
            np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        reason = (str(error).splitlines() or ["no header"])[0][:100]
        raise ValueError(f"{source.name}: not a .npy file ({reason})") from None
    return shape, fortran, dtype, file.tell()


def _names(array: Any, width: int) -> tuple[str, ...] | None:
    """Names of the columns, where the attributes of an array have them."""
    names = dict(array.attrs).get("columns")
    fits = isinstance(names, list) and len(names) == width and \
        all(isinstance(name, str) for name in names)
    return tuple(names) if isinstance(names, list) and fits else None


def _run(least: int, row_bytes: int) -> int:
    """Rows of a piece: whole chunks, and about `PIECE_BYTES`."""
    return least * max(1, PIECE_BYTES // (least * row_bytes))


def _pieces(place: str, count: int, run: int, version: Version) -> list[Piece]:
    return [Piece(place, a, min(run, count - a), version) for a in range(0, count, run)]
