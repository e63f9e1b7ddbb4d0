"""Files whole or not at all: written under a temporary name, read without pickles."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.checks import brief
from hamshoot.support.npz import load_npz as load_npz
from hamshoot.support.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Why a file without a name may not get one: it is there, there is no /proc, or there are no links.
UNLINKED = (errno.EEXIST, errno.ENOENT, errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS,
            errno.EOPNOTSUPP)


def write_whole(path: Path, write: Callable[[Any], None], mode: str = "wb") -> None:
    """Write a file beside its place, then rename: whole or not at all, and on the disk.

    Where the system can, the file has no name until it is complete, so that a process that is
    killed leaves nothing behind.

    Raises
    ------
    OSError
        If the directory cannot be written to, or the disk is full; nothing is left behind.
    """
    if path.parent.is_dir() and not os.path.lexists(path) and _written_nameless(path, write, mode):
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such directory", str(path.parent))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        _written(handle, write, mode)
        os.chmod(temporary, 0o666 & ~_umask())  # 0600 is not what a result file should have
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _written_nameless(path: Path, write: Callable[[Any], None], mode: str) -> bool:
    """Write a file that gets its name at the end; False where the system has no such files."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            return False
        raise
    with os.fdopen(os.dup(handle), "rb") as kept:  # open until it has a name
        _written(handle, write, mode)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.link(f"/proc/self/fd/{kept.fileno()}", path.name, dst_dir_fd=directory,
                    follow_symlinks=True)
        except OSError as error:
            if error.errno in UNLINKED:
                return False  # somebody was faster, or there is no /proc: with a name, then
            raise
        finally:
            os.close(directory)
    sync_directory(path.parent)
    return True


def _written(handle: int, write: Callable[[Any], None], mode: str) -> None:
    """Write to an open file and see it to the disk."""
    with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """See the names in a directory to the disk, where directories can be opened."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES):  # cannot be synced
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


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
        held = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(f"{foreign} (it holds {brief(held, 80)})")
    metadata = _json(arrays.pop("metadata"))
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise ValueError(f"{foreign} (its metadata cannot be read)")
    if metadata["format"] != form or isinstance(metadata["format"], bool):
        raise ValueError(
            f"{path}: format {brief(metadata['format'])}, this hamshoot reads format {form}")
    own = header(form)
    return arrays, {name: value for name, value in metadata.items() if name not in own}


def _json(text: NDArray) -> Any:
    """What an array that holds a string says as JSON; None where it is none."""
    if text.dtype.kind != "U" or text.shape != ():
        return None
    try:
        return json.loads(str(text))
    except (ValueError, RecursionError):  # no JSON, no Unicode, brackets without end
        return None
