"""Seconds of CPU that a solve takes, without those in which its loops were compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What some work returns, and its seconds of CPU: of this process, all threads.

    Compiling is left out: numba does it once after an installation, half a minute for a solver, and
    reads the result from a cache ever after.
    """
    from numba.core import event

    compiling: list[float] = []
    began = time.process_time()
    with event.install_timer("numba:compile", compiling.append):
        result = work()
    return result, max(0.0, time.process_time() - began - sum(compiling))
