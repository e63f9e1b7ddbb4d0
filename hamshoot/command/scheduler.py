"""``--scheduler``: a cluster of Dask in place of threads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hamshoot.support.cluster import connected

#: Seconds until a scheduler has to answer.
ANSWERS = 10


@contextmanager
def cluster(address: str | None, workers: int | None) -> Iterator[dict[str, Any]]:
    """Options of a method for the cluster at an address; none without one.

    Raises
    ------
    ValueError
        Where nobody answers there, or threads are asked for as well.
    ImportError
        Without Dask.
    """
    if address is None:
        yield {}
        return
    if workers is not None:
        raise ValueError("--scheduler, --workers: expected one of them; the workers are the "
                         "cluster's")
    with connected(address, "--scheduler", ANSWERS) as client, _quiet():
        yield {"workers": client}


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs where its processes are gone, traces and all, is told in a sentence here."""
    logs = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)
            if name.split(".")[0] == "distributed"]  # Dask gives each a level and a handler
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
