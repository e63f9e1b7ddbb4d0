"""``--scheduler``: a cluster of Dask in place of threads."""

from __future__ import annotations

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
    with connected(address, "--scheduler", ANSWERS) as client:
        yield {"workers": client}
