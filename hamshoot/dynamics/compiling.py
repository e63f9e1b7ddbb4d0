"""Whether loops are being compiled just now, for those who tell of progress. Knows no numba.

numba compiles a kernel when it is first called, and keeps it on disk for later processes
(`hamshoot.dynamics._compiling`). The first solve after an installation therefore takes some seconds
in which nothing else happens, and which nobody can explain who does not know of it.
"""

from __future__ import annotations

import logging
import threading
import time

_logger = logging.getLogger("hamshoot")

#: Seconds of compiling after which it is worth a word.
LEAST_SECONDS = 2.0


class Compilation:
    """Compilations of this process, which may lie within one another.

    Attributes
    ----------
    count : int
        Kernels compiled so far.
    seconds : float
        Spent on those that are done.
    """

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._depth, self._began, self._told = 0, 0.0, False
        self._unkept = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """One begins."""
        with self._lock:
            if self._depth == 0:
                self._began = time.perf_counter()
            self._depth += 1

    def end(self, kept_in: str | None) -> None:
        """One is done; tells the log, once, when all of them have taken two seconds.

        Parameters
        ----------
        kept_in : str or None
            Directory where later processes find what was compiled.
        """
        with self._lock:
            self._depth -= 1
            self.count += 1
            so_far = self.seconds + time.perf_counter() - self._began
            if self._depth == 0:
                self.seconds = so_far
            tell = so_far >= LEAST_SECONDS and not self._told
            self._told = self._told or tell
        if tell:
            where = f"later runs find the code in {kept_in}" if kept_in and not self._unkept else \
                "no directory for the code can be written, so every process compiles it anew; " \
                "NUMBA_CACHE_DIR can name one"
            _logger.info("compiling, once: %.0f s so far; %s", so_far, where)

    def not_kept(self, place: str | None, reason: str) -> None:
        """Code could not be kept in a directory: warns once, with the reason in the system's words.

        The solve goes on with what was compiled.
        """
        with self._lock:
            tell, self._unkept = not self._unkept, True
        if tell:
            _logger.warning(
                "compiled code cannot be kept in %s (%s), so later runs compile it anew; "
                "NUMBA_CACHE_DIR can name another directory", place, reason)

    def under_way(self) -> bool:
        """Whether something is being compiled now."""
        return self._depth > 0


compilation = Compilation()
