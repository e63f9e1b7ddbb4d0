"""What a long run has done already, kept on disk: killed at any moment, it goes on from there.

A run is made of steps whose results follow from their inputs alone: the walks of a round, a stage
of a ladder, a row of a comparison. The journal keeps the result of each under a key that is made of
all its inputs, so that nothing is ever taken for what it is not: a run that begins again asks for
the same steps in the same order, gets those that are there, and computes the rest, to the same end.

Methods find the journal of the solve that they serve by `current`; without one nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.support.files import header, load_with_metadata, save_with_metadata
from hamshoot.support.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1


class Journal:
    """Results of steps in a directory, one file each.

    Parameters
    ----------
    directory : path
        Made when the first step is kept.
    say : callable, optional
        Told a sentence when the first step of an earlier run is taken up, and when a step cannot
        be kept.
    """

    def __init__(self, directory: Path | str, say: Callable[[str], Any] | None = None):
        self.directory, self.say = Path(directory), say
        self.recalled = self.kept = 0
        self.failed = ""

    def recall(self, key: str) -> tuple[dict[str, NDArray], dict[str, Any]] | None:
        """Arrays and metadata of a step that was kept; None where there is none, or it is damaged.

        Parameters
        ----------
        key : str
            As `key_of` makes it.
        """
        path = self._file(key)
        if not path.is_file():
            return None
        try:
            found = load_with_metadata(path, f"{path}: not a step of a run", FORMAT)
        except ValueError:
            return None
        self.recalled += 1
        if self.recalled == 1 and self.say is not None:
            self.say(f"Going on from what an earlier run had kept in {self.directory}.")
        return found

    def keep(self, key: str, arrays: dict[str, NDArray], metadata: dict[str, Any],
             beside: Callable[[Path], Any] | None = None) -> None:
        """Keep a step, whole or not at all; a full disk ends the keeping and not the run.

        Parameters
        ----------
        key : str
        arrays, metadata : dict
        beside : callable, optional
            Writes a file of its own before, to ``KEY.solution.npz``.
        """
        if self.failed:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if beside is not None:
                beside(self.directory / f"{key}.solution.npz")
            save_with_metadata(self._file(key), arrays, {**header(FORMAT), **metadata})
            self.kept += 1
        except OSError as error:
            self.failed = f"{self.directory}: {error.strerror}"
            if self.say is not None:
                self.say(f"What is done cannot be kept for a later run ({self.failed}).")

    def forget(self, key: str) -> None:
        """Take a step away that is of no more use, where there is one."""
        try:
            self._file(key).unlink(missing_ok=True)
        except OSError:  # it stays, and is never asked for again
            return

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}.npz"


_current: ContextVar[Journal | None] = ContextVar("hamshoot_journal", default=None)


def current() -> Journal | None:
    """The journal of the solve that is under way."""
    return _current.get()


@contextmanager
def kept_in(journal: Journal | None) -> Iterator[None]:
    """Make a journal the current one; None leaves that which is."""
    if journal is None:
        yield
        return
    token = _current.set(journal)
    try:
        yield
    finally:
        _current.reset(token)


def key_of(*parts: Any) -> str:
    """A key of inputs: 40 characters that are the same for the same inputs, types included.

    Parameters
    ----------
    *parts
        Numbers, strings, None, arrays, and sequences and mappings of them; anything else counts by
        its type and `repr`. The version of the package is part of every key.
    """
    digest = hashlib.sha256(__version__.encode())
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()[:40]


def _add(digest: Any, part: Any) -> None:
    """Feed one input to a hash, with its type and length, so that no two run together."""
    if isinstance(part, np.ndarray):
        digest.update(f"array {part.dtype.str} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).view(np.uint8).data if part.size else b"")
    elif isinstance(part, Mapping):
        digest.update(f"mapping {len(part)} ".encode())
        for name in sorted(part, key=str):
            _add(digest, name)
            _add(digest, part[name])
    elif isinstance(part, Sequence) and not isinstance(part, (str, bytes, range)):
        digest.update(f"sequence {len(part)} ".encode())
        for one in part:
            _add(digest, one)
    else:
        text = repr(part.item() if isinstance(part, np.generic) else part)
        digest.update(f"{type(part).__name__} {len(text)} {text}".encode())
