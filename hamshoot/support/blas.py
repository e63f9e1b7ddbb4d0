"""The BLAS that kernels call, for what limits its threads."""

from __future__ import annotations


def load_blas() -> None:
    """Load the library that compiled kernels call, SciPy's, so that threadpoolctl finds it."""
    import scipy.linalg.cython_blas  # noqa: F401 - to be loaded is all that is wanted of it
