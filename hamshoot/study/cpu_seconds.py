"""Seconds of CPU that a solve takes, without those in which its loops were compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What some work returns, and its seconds of CPU: of this process, all threads.

    Compiling is left out: numba does it once after an installation, seconds for a solver, and reads
    the result from a cache ever after.
    """
    from numba.core import event

    class Compiling(event.Listener):
        """CPU seconds of compilations, those that one causes within it counted once."""

        depth, began, spent = 0, 0.0, 0.0

        def on_start(self, event: Any) -> None:
            """Begin to count, unless another one is under way."""
            if self.depth == 0:
                self.began = time.process_time()
            self.depth += 1

        def on_end(self, event: Any) -> None:
            """Count it, if it is the outermost."""
            self.depth -= 1
            if self.depth == 0:
                self.spent += time.process_time() - self.began

    compiling = Compiling()
    began = time.process_time()
    with event.install_listener("numba:compile", compiling):
        result = work()
    return result, max(0.0, time.process_time() - began - compiling.spent)
