"""Files whole or not at all: written under a temporary name, read without pickles."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_whole(path: Path, write: Callable[[Any], None], mode: str = "wb") -> None:
    """Write a file under a temporary name beside it, then rename: whole or not at all.

    Raises
    ------
    OSError
        If the directory cannot be written to; nothing is left behind.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            write(file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 is not what a result file should have
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_npz(path: Path) -> dict[str, NDArray]:
    """Read all arrays of an .npz file without pickles; one-sentence errors for what is not one."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, KeyError,
            AttributeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a complete .npz file ({reason})") from None


def save_with_metadata(path: str | PathLike, arrays: dict[str, NDArray], metadata: dict[str, Any],
                       default: Callable[[Any], Any] | None = None) -> Path:
    """Write arrays and metadata as JSON to an .npz file, whole or not at all.

    Parameters
    ----------
    path : path
        `.npz` is added when the name has no suffix.
    arrays : dict of str to ndarray
    metadata : dict
        What `header` has comes first.
    default : callable, optional
        Makes a value plain that JSON does not know.

    Returns
    -------
    Path
        The file written.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".npz")
    text = np.array(json.dumps(metadata, default=default))
    members: dict[str, Any] = {**arrays, "metadata": text}
    write_whole(path, lambda file: np.savez(file, **members))
    return path


def header(form: int) -> dict[str, Any]:
    """Which format a file has, and who wrote it."""
    return {"format": form, "package": "hamshoot", "version": __version__}


def load_with_metadata(
    path: Path, foreign: str, form: int
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Arrays, and metadata without their header, of a file that `save_with_metadata` wrote.

    Parameters
    ----------
    path : Path
    foreign : str
        Sentence for a file of another kind.
    form : int
        The format that is read.

    Raises
    ------
    ValueError
        For a missing, truncated or foreign file, or one in another format.
    """
    arrays = load_npz(path)
    if "metadata" not in arrays:
        raise ValueError(f"{foreign} (it holds {', '.join(sorted(arrays)) or 'nothing'})")
    try:
        metadata = json.loads(str(arrays.pop("metadata")))
    except json.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise ValueError(f"{foreign} (its metadata cannot be read)")
    if metadata["format"] != form:
        raise ValueError(
            f"{path}: format {metadata['format']}, this hamshoot reads format {form}")
    own = header(form)
    return arrays, {name: value for name, value in metadata.items() if name not in own}
