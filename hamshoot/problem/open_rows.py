"""`open_rows`: rows of numbers that stay where they are, by path or URL."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem.parquet_rows import PARQUET, ParquetRows, layout_of, versions_of
from hamshoot.problem.stored_files import Source, is_url, source_of
from hamshoot.problem.stored_rows import MissingMap, StoredRows
from hamshoot.problem.zarr_rows import GROUP, METADATA, NpyRows, ZarrRows, zarr_rows
from hamshoot.support import schema
from hamshoot.support.checks import brief, check_regular
from hamshoot.support.schema import Kind, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Protocols whose URLs a saved solution may hold: stores of bytes, and none that reads what it
#: finds there as instructions.
TRUSTED = ("file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "hdfs",
           "webhdfs", "http", "https", "ftp", "sftp", "smb", "hf",
           "simplecache", "filecache", "blockcache", "zip", "tar")
#: What is written of such rows.
ENTRY = {"kind": schema.TEXT, "url": schema.TEXT, "columns": schema.MAYBE_TEXTS,
         "shape": Kind("two integers", lambda v: isinstance(v, list) and len(v) == 2
                       and all(isinstance(n, int) and not isinstance(n, bool) for n in v)),
         "versions": Kind("sizes and tags of files", lambda v: isinstance(v, list) and all(
             isinstance(one, list) and len(one) == 2 for one in v))}


def open_rows(
    place: str | PathLike | Any, columns: Sequence[str] | None = None, *,
    storage_options: Mapping[str, Any] | None = None,
) -> NDArray | StoredRows:
    """Rows (N, d) of numbers that stay in their file, for X or Y of a `TrainingProblem`.

    Parameters
    ----------
    place : str, path or zarr.Array
        Of a Parquet file, or a folder of such (extra ``parquet``); of a Zarr array (extra
        ``zarr``); or of a .npy file. A path, or a URL of fsspec (extra ``fsspec``, and the package
        of its file system, as s3fs).
    columns : sequence of str, optional
        Of Parquet: which columns; by default all.
    storage_options : mapping, optional
        Of the file system of a URL. Solutions that are saved do not hold them.

    Returns
    -------
    ndarray or StoredRows
        Of a .npy file of this machine a memory map. With `shape` and `dtype`, and rows by
        ``[a:b]``; the sizes are read now, numbers when they are asked for.

    Raises
    ------
    ImportError
        If the package of the format or the file system is not installed.
    ValueError
        For what is none of these, has no such columns, or is not numeric; in one sentence.

    Notes
    -----
    Rows are read by the row group, by chunks of about 16 MB, or by as many bytes. Each piece is
    decoded once where blocks of samples follow each other, and up to 500 MB of them are kept in a
    process: ``python demos/benchmarks/inputs.py`` prints rows a second. What workers are sent is
    the place and their pieces; a `ProcessPoolExecutor` has to spawn its processes where data come
    over a network. A file that changes under a run ends it with a sentence.
    """
    if is_zarr(place):
        return zarr_rows(place)
    source = source_of(place, storage_options)
    kind = kind_of(source)
    if kind != "parquet" and columns is not None:
        raise ValueError(f"columns: expected none but of Parquet, got {brief(list(columns))} for "
                         f"{source.name}")
    if kind == "parquet":
        layout = layout_of(source)
        return ParquetRows(layout, list(layout.kinds) if columns is None else columns)
    if kind == "zarr":
        return ZarrRows(source)
    if kind == "npy":
        if source.system is not None:
            return NpyRows(source)
        return _mapped(source)
    raise ValueError(f"{source.url}: expected Parquet (.parquet), a Zarr array (.zarr) or a .npy "
                     "file; a table of another kind is read by TrainingProblem.from_csv")


def kind_of(source: Source) -> str | None:
    """Parquet, zarr, npy, or None; by the name, of a folder without one by what it holds."""
    path = source.path.lower().rstrip("/")
    if path.endswith(PARQUET):
        return "parquet"
    if path.endswith(".npy"):
        return "npy"
    if path.endswith((".zarr", ".zarr2", ".zarr3")) or any(map(source.has, (*METADATA, *GROUP))):
        return "zarr"
    suffix = os.path.splitext(path)[1]
    return "parquet" if suffix not in (".csv", ".npz", ".txt", ".tsv") and source.is_folder() \
        else None


def is_zarr(value: Any) -> bool:
    """Whether it is a `zarr.Array`."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "zarr" and kind.__name__ == "Array"


def adopted(name: str, value: Any) -> Any:
    """Data as they were given, or opened where it is the place or the Zarr array of stored rows."""
    if is_zarr(value):
        return zarr_rows(value)
    place = isinstance(value, (str, PathLike)) and os.fspath(value)
    if isinstance(place, str) and (is_url(place) or place.lower().rstrip("/").endswith(
            (*PARQUET, ".zarr", ".npy"))):
        try:
            return open_rows(place)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return value


def reopened(name: str, entry: Mapping[str, Any]) -> StoredRows:
    """Inverse of `StoredRows.to_dict`.

    Raises
    ------
    MissingMap
        If the files are gone, or not what they were.
    ValueError
        For an entry of another form, and a protocol that no file may ask for.
    """
    check_fields(f"maps: {name}", dict(entry), ENTRY)
    url, kind = entry["url"], entry["kind"]
    if is_url(url) and any(link.partition("://")[0] not in TRUSTED for link in url.split("::")):
        raise ValueError(f"maps: {name}: expected a path or a URL of a plain store, got "
                         f"{brief(url)}")
    made = {"parquet": lambda source: ParquetRows(layout_of(source), entry["columns"] or []),
            "zarr": ZarrRows, "npy": NpyRows}.get(kind)
    if made is None:
        raise ValueError(f"maps: {name}: expected parquet, zarr or npy, got {brief(kind)}")
    rows: StoredRows = made(source_of(url))
    if list(rows.shape) != entry["shape"] or versions_of(rows.pieces) != entry["versions"]:
        raise MissingMap(f"{name}: {url} is not what it was when the solution was saved")
    return rows


def _mapped(source: Source) -> NDArray:
    check_regular(Path(source.path), "a .npy file")
    try:
        array: NDArray = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise ValueError(f"{source.path}: not a .npy file of numbers ({reason})") from None
    return array
