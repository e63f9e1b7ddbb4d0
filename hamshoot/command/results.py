"""The results of one command, as one whole: gathered beside their folder and swapped in at the end.

While a command works, what it has goes to a hidden folder beside the one that was asked for,
``.NAME.hamshoot``: finished files to ``new``, the journal of what is done to ``journal``. At the
end ``new`` and the results of before change places in one step, so that whoever looks sees
the older results or the new ones, whole. A command that was killed leaves the hidden folder: the
next one finishes a swap that was under way, or goes on from the journal, and takes it away.

A folder that cannot be swapped (the current one, the root of a file system, one in a folder that is
not ours to write to) holds the hidden folder itself, and its files are replaced one by one; where
that is cut short, the next command ends it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hamshoot.command.signals import Stopped
from hamshoot.support.files import sync_directory, write_whole

if sys.platform != "win32":
    import fcntl

#: Files that belong together: a command that writes some of them takes away the others, and the
#: figures that were drawn of them.
SOLVE = ("solution.npz", "summary.json", "solution.png")
COMPARE = ("solution.npz", "descent.npz", "descent_longer.npz", "descent_same_seconds.npz",
           "continued.npz", "summary.json", "comparison.png")
SWEEP = ("index.json", "index.csv", "sweep-points", "sweep.png")
PANELS = tuple(f"{name}.{kind}" for name in ("spectra_representations", "spectra_weights",
               "energies", "running_cost", "convergence", "paths")
               for kind in ("png", "pdf", "svg"))
OWN = frozenset((*SOLVE, *COMPARE, *SWEEP, *PANELS))
#: What an interrupted run's folder is called, where there are older results that it leaves alone.
INTERRUPTED = "interrupted"


class Results:
    """A folder of results that a command is going to write; a context manager.

    Parameters
    ----------
    output : Path
        The folder asked for; made with its parents.
    names : sequence of str
        The files that the command writes.
    force : bool
        Whether older results may be replaced.
    job : str
        A key of what the command computes: its own interrupted results it may replace.

    Attributes
    ----------
    journal : Path
        Where what is done is kept for a later run.

    Raises
    ------
    ValueError
        If the folder holds results already, cannot be written to, or another command works on it.
    """

    def __init__(self, output: Path, names: Sequence[str], force: bool, job: str):
        self.output, self.job = output, job
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output}: expected a directory, got a file")
        self.target = Path(os.path.realpath(output))
        self.inside = _stays(self.target)
        self.work = self.target / ".hamshoot" if self.inside else \
            self.target.with_name(f".{self.target.name}.hamshoot")
        self.new, self.journal = self.work / "new", self.work / "journal"
        self.published = False
        self._lock: IO[str] | None = None
        if self.work.is_dir():
            self._lock = _locked(self.work / "lock", self.output)
            recover(self.work, self.target)
        present = self._present(names)
        if present and not force and not self._own_interrupted():
            self._unlock()
            raise ValueError(f"{output}: already holds {', '.join(present)}; --force overwrites, "
                             "or choose another directory with -o")

    def __enter__(self) -> Results:
        try:
            if self._lock is None or not self.work.is_dir():
                self._unlock()
                self.work.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.work / "lock", self.output)
            shutil.rmtree(self.new, ignore_errors=True)
            self.new.mkdir()
        except OSError as error:
            raise ValueError(f"{self.output}: cannot be written to ({error.strerror})") from None
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        kept = self.journal.is_dir() and any(self.journal.iterdir())
        if not self.published:
            shutil.rmtree(self.new, ignore_errors=True)
            if not kept:
                self._clear()
        self._unlock()
        if isinstance(error, OSError):
            raise ValueError(f"{self.output}: cannot be written to ({error.strerror})") from None
        if isinstance(error, KeyboardInterrupt):
            words = f"what is done is kept in {self.work}, and the same command goes on from it" \
                if kept else "nothing was written"
            raise Stopped(f"stopped before there was a result; {words}") from None

    def path(self, name: str) -> Path:
        """Where to write a file until all is published."""
        return self.new / name

    def publish(self, interrupted: bool = False) -> Path:
        """Swap the new files in; the folder that they are in now.

        Parameters
        ----------
        interrupted : bool
            Whether the run was stopped: then older results stay, the new ones go beside them, and
            the journal is kept for the same command to go on from.
        """
        target, place = self.target, self.output
        if interrupted and self._present(sorted(OWN)) and not self._own_interrupted():
            place = self.output / INTERRUPTED if self.inside else \
                self.target.with_name(f"{self.target.name}-{INTERRUPTED}")
            target = Path(os.path.realpath(place))
        elif interrupted:
            self._write(self.work / "job.json", {"job": self.job})
        else:
            (self.work / "job.json").unlink(missing_ok=True)
        swap(self.work, target)
        self.published = True
        if not interrupted:
            self._clear()
        return place

    def advice(self, place: Path, names: Sequence[str]) -> str:
        """Where the files of `publish` are, and how an interrupted run is gone on with."""
        where = f"Wrote {', '.join(names)} to {place}"
        if place != self.output:
            where += f"; the older results in {self.output} were left as they are"
        if self.work.is_dir():
            again = "the same command" + (" with --force" if place != self.output else "")
            where += f". {again[0].upper()}{again[1:]} goes on from what is kept in {self.work}"
        return where

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _clear(self) -> None:
        """Take the hidden folder away."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _present(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if (self.target / name).exists()]

    def _own_interrupted(self) -> bool:
        """Whether the results there are are those that this very job left when it was stopped."""
        try:
            return json.loads((self.work / "job.json").read_text()) == {"job": self.job}
        except (OSError, ValueError):
            return False

    @staticmethod
    def _write(path: Path, value: Any) -> None:
        write_whole(path, lambda file: file.write(json.dumps(value)), mode="w")


# -- swapping --------------------------------------------------------------------------------------


def swap(work: Path, target: Path) -> None:
    """Put the folder ``new`` of `work` in place of `target`, whose other files stay.

    What is under way is written down first, for `recover`.
    """
    new = work / "new"
    inside = work.parent == target
    if not inside and target.is_dir():
        shutil.copymode(target, new)
        _link_others(target, new)
    sync_directory(new)
    plan = {"target": str(target), "inode": new.stat().st_ino, "inside": inside,
            "names": sorted(entry.name for entry in new.iterdir())}
    write_whole(work / "swap.json", lambda file: file.write(json.dumps(plan)), mode="w")
    _finish(work, plan)


def recover(work: Path, target: Path) -> None:
    """Finish the swap that a killed command had begun; drop what it had not finished."""
    if not work.is_dir():
        return
    try:
        plan = json.loads((work / "swap.json").read_text())
        good = isinstance(plan, dict) and {"target", "inode", "inside", "names"} <= set(plan)
    except (OSError, ValueError):
        good = False
    if good and str(plan["target"]).startswith(str(target)):
        _finish(work, plan)
        if not (work / "job.json").exists():  # what it kept was for an interrupted run
            shutil.rmtree(work, ignore_errors=True)


def _finish(work: Path, plan: dict[str, Any]) -> None:
    """Do what is left of a swap; may be done again at any point of it."""
    new, old, target = work / "new", work / "old", Path(plan["target"])
    if plan["inside"]:
        _replace_each(new, target, plan["names"])
    elif new.is_dir() and new.stat().st_ino == plan["inode"]:
        try:
            _exchange(new, target, old)
        except OSError as error:
            if error.errno != errno.EXDEV:  # folders of a lower layer cannot be moved
                raise
            _replace_each(new, target, plan["names"])
    for before in (new, old):
        if before.is_dir() and not plan["inside"]:
            _return_others(before, target)
        shutil.rmtree(before, ignore_errors=True)
    sync_directory(target.parent)
    sync_directory(target)
    (work / "swap.json").unlink(missing_ok=True)


def _exchange(new: Path, target: Path, old: Path) -> None:
    """The new folder to the target; what was there to where the new one was, or to `old`."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchanged_at_once(new, target):
        os.rename(target, old)
        os.rename(new, target)


def _exchanged_at_once(a: Path, b: Path) -> bool:
    """Exchange two folders in one step; False where the system has no call for it."""
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(a), os.fsencode(b)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, 2)  # RENAME_SWAP
    elif hasattr(library, "renameat2"):
        failed = library.renameat2(-100, names[0], -100, names[1], 2)  # AT_FDCWD, RENAME_EXCHANGE
    else:
        return False
    if failed and ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(b))
    return not failed


def _replace_each(new: Path, target: Path, names: Sequence[str]) -> None:
    """Files one by one, where the folder itself has to stay."""
    for name in OWN - set(names):
        _remove(target / name)
    for name in names:
        if (new / name).exists():
            if (new / name).is_dir():  # a folder takes the place of none
                _remove(target / name)
            os.replace(new / name, target / name)


def _remove(path: Path) -> None:
    """Take away a file, or a folder with all that it holds, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_others(target: Path, new: Path) -> None:
    """Files that are not results, into the new folder, so that none is missing for a moment."""
    for entry in target.iterdir():
        if entry.name not in OWN and not entry.is_dir() and not (new / entry.name).exists():
            try:
                os.link(entry, new / entry.name, follow_symlinks=False)
            except (OSError, NotImplementedError):
                continue  # no links here: it is moved after the swap


def _return_others(old: Path, target: Path) -> None:
    """Files and folders that are not results, from the older folder to the new one."""
    for entry in old.iterdir():
        there = target / entry.name
        if entry.name in OWN or (there.exists() and there.samefile(entry)):
            continue
        os.replace(entry, there)


def _stays(target: Path) -> bool:
    """Whether a folder cannot be exchanged for another."""
    if not target.exists():
        return False
    here = Path.cwd()
    return (target == here or target in here.parents or os.path.ismount(target)
            or not os.access(target.parent, os.W_OK | os.X_OK))


def _locked(path: Path, output: Path) -> IO[str]:
    """An open file that no other process holds; the system lets go of it whatever happens."""
    file = path.open("w")
    if sys.platform == "win32":
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ValueError(f"{output}: another hamshoot is at work on it") from None
    return file
