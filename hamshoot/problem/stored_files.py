"""Where data lie: a path of this machine, or a URL that fsspec knows how to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from hamshoot.problem.stored_rows import MissingMap, Version
from hamshoot.support.checks import brief
from hamshoot.support.extras import missing

#: What tells the state of a file by itself, in the words of the file systems of fsspec: the first
#: that is there is taken.
TAGS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "mtime", "LastModified",
        "last_modified", "updated", "modified", "created")


class Source(NamedTuple):
    """A file, or a folder of files.

    Attributes
    ----------
    url : str
        As it was given; of this machine, the absolute path.
    path : str
        For its file system.
    system : object, optional
        File system of fsspec; None of this machine.
    options : dict, optional
        With which it was made. They may hold secrets: they travel to workers, and no file has them.
    """

    url: str
    path: str
    system: Any = None
    options: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The last part of the path, or the URL, for messages."""
        return os.path.basename(self.path.rstrip("/")) if self.system is None else self.url

    @property
    def connected(self) -> bool:
        """Whether its file system keeps connections, as those of networks do."""
        inner = getattr(self.system, "fs", None)  # of one that keeps copies of another's files
        return any(getattr(one, "async_impl", False) for one in (self.system, inner))

    def open(self, path: str) -> Any:
        """What readers take: a path of this machine, or an open file.

        Raises
        ------
        MissingMap
            If there is no such file, or it may not be read.
        """
        if self.system is None:
            return path
        return self._asked(self.system.open, path, "rb")

    def bytes_of(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The content of a file, or a range of it."""
        if self.system is not None:
            return bytes(self._asked(self.system.cat_file, path, start=start, end=end))
        try:
            with open(path, "rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - (start or 0))
        except OSError as error:
            raise self.gone(path, error) from None

    def version(self, path: str) -> Version:
        """Of a file, as it is now.

        Raises
        ------
        MissingMap
            If there is no such file, or it may not be read.
        """
        if self.system is None:
            try:
                about = os.stat(path)
            except OSError as error:
                raise self.gone(path, error) from None
            return Version(about.st_size, str(about.st_mtime_ns))
        self.system.invalidate_cache(path.rpartition("/")[0])
        info = self._asked(self.system.info, path)
        tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
        return Version(int(info.get("size") or 0), tag)

    def check(self, path: str, version: Version) -> None:
        """Raise MissingMap unless a file is what it was."""
        try:
            now = self.version(path)
        except MissingMap as error:
            raise MissingMap(f"{error}; the data of a run have to stay where they were opened, and "
                             "every worker has to see them under the same name") from None
        if now != version:
            size = f"{now.bytes} bytes" if now.bytes == version.bytes else \
                f"{now.bytes} bytes, and had {version.bytes}"
            raise MissingMap(f"{self.shown(path)}: has changed since it was opened ({size}); the "
                             "data of a run may not change under it")

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return os.path.isdir(self.path) if self.system is None else bool(
            self._asked(self.system.isdir, self.path))

    def has(self, name: str) -> bool:
        """Whether there is a file of that name in the folder."""
        path = f"{self.path.rstrip('/')}/{name}"
        return os.path.isfile(path) if self.system is None else bool(
            self._asked(self.system.isfile, path))

    def files(self, endings: tuple[str, ...]) -> list[str]:
        """Files in the folder and below that end so, by name; hidden ones, and _metadata, left out.

        Of a file, itself.
        """
        if not self.is_folder():
            self.version(self.path)  # says it where there is none
            return [self.path]
        root = self.path.rstrip("/")
        if self.system is None:
            found = [os.path.join(folder, name) for folder, _, names in os.walk(root)
                     for name in names]
        else:
            self.system.invalidate_cache(root)
            found = [str(path) for path in self._asked(self.system.find, root)]
        return sorted(path for path in found if path.lower().endswith(endings) and not any(
            part.startswith((".", "_")) for part in path[len(root) :].split("/")))

    def shown(self, path: str) -> str:
        """A path of the file system as its user would write it."""
        return path if self.system is None else str(self.system.unstrip_protocol(path))

    def _asked(self, question: Callable[..., Any], path: str, *arguments: Any, **options: Any
               ) -> Any:
        """What a file system of fsspec answers; where it fails, MissingMap says why."""
        try:
            return question(path, *arguments, **options)
        except failures() as error:
            raise self.gone(path, error) from None

    def gone(self, path: str, error: BaseException) -> MissingMap:
        """The error of a file that cannot be read."""
        where = self.shown(path)
        if isinstance(error, FileNotFoundError):
            return MissingMap(f"{where}: no such file")
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = reason or type(error).__name__
        return MissingMap(f"{where}: cannot be read ({reason})")


#: What clients of stores raise besides OSError: without credentials, or connections.
FAILURES = {"botocore.exceptions": ("BotoCoreError", "ClientError"), "aiohttp": ("ClientError",),
            "google.auth.exceptions": ("GoogleAuthError",), "gcsfs.retry": ("HttpError",),
            "azure.core.exceptions": ("AzureError",), "zarr.errors": ("BaseZarrError",)}


def failures(*more: type[BaseException]) -> tuple[type[BaseException], ...]:
    """The errors of reading a file, with those of the clients that are loaded, and more."""
    named = [getattr(sys.modules[module], name, OSError) for module, names in FAILURES.items()
             if module in sys.modules for name in names]
    return (OSError, *named, *more)


def is_url(value: Any) -> bool:
    """Whether it is written as a URL."""
    return isinstance(value, str) and "://" in value


def source_of(place: str | PathLike, options: Mapping[str, Any] | None = None) -> Source:
    """The source of a path or a URL.

    Parameters
    ----------
    place : str or path
    options : mapping, optional
        Of the file system of fsspec: its ``storage_options``.

    Raises
    ------
    ImportError
        If fsspec, or the package of a file system, is not installed.
    ValueError
        For a protocol that there is not, and options of a path.
    """
    text = os.fspath(place) if isinstance(place, PathLike) else place
    if not isinstance(text, str):
        raise TypeError(f"expected a path or a URL as text, got {brief(place)}")
    scheme = text.partition("://")[0]
    if not is_url(text) or scheme in ("file", "local"):
        if options:
            raise ValueError(f"storage_options: expected none for a path of this machine, got "
                             f"{brief(sorted(options))}")
        path = unquote(urlsplit(text).path) if is_url(text) else text
        return Source(os.path.abspath(path), os.path.abspath(path))
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise missing(f"reading {brief(text)}", "fsspec", "fsspec") from None
    try:
        system, path = url_to_fs(text, **dict(options or {}))
    except OSError as error:  # of a chain, the file that holds the others
        raise MissingMap(f"{brief(text)}: cannot be opened ({' '.join(str(error).split())})"
                         ) from None
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{brief(text)}: fsspec does not read it ({reason})") from None
    except ImportError as error:  # its own sentence: install s3fs, …
        raise ImportError(f"{brief(text)}: {' '.join(str(error).split())}") from None
    return Source(text, str(path), system, options)
