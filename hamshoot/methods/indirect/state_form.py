"""The shooting equations in (A, B), for `hamshoot.bvp.solve`: exact Newton, nothing cubic in N."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.bvp.records import Boundary
from hamshoot.bvp.solve import BVPResult, solve_two_point
from hamshoot.methods.indirect.equations import ModelSystem, ShootingProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def two_point(
    shooting: ShootingProblem, t: NDArray, y: NDArray
) -> Callable[..., BVPResult]:
    """`solve_two_point` of a shooting problem from nodes t (M,) and states y (M, 2, w, N).

    Returns a function of its remaining options. Each Newton system is solved to 1e-7 by GMRES on
    tangents of the flow, preconditioned by the system of the midpoint model.
    """
    n = y[0].size
    boundary = exact_ends(shooting)
    size = np.abs(y).max((0, 2, 3))
    penalty = 1e6 * float(size[1] / size[0])
    approximate = partial(ModelSystem, shooting, form="auto", penalty=penalty)
    return partial(
        solve_two_point, shooting.flow, boundary, t, y.reshape(len(t), n),
        scale=np.repeat(size, n // 2), preconditioner=approximate,
    )


def exact_ends(shooting: ShootingProblem) -> Boundary:
    """The boundary function g (n,) of a shooting problem with its derivatives (n, n) by both ends.

    g holds A_0 less what is given, and B_1 less what the loss says (or A_1 less the endpoint).
    """
    shape, half = shooting.initial_state.shape, shooting.initial_state.size
    samples = shape[1]
    n = 2 * half
    ga, gb = np.zeros((n, n)), np.zeros((n, n))
    ga[:half, :half] = np.eye(half)
    if shooting.endpoint is not None:
        gb[half:, :half] = np.eye(half)
    else:
        gb[half:, half:] = np.eye(half)

    def boundary(first: NDArray, last: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        at = gb
        if shooting.endpoint is None:
            at = gb.copy()
            at[half:, :half] = by_entries(shooting.terminal(last[:half].reshape(shape)), samples)
        return shooting.end_residuals(first, last)[0], ga, at

    return boundary


def by_entries(terminal: NDArray, samples: int) -> NDArray:
    """Blocks (w, w), or (N, w, w) a sample, as one matrix (wN, wN) by the entries of A."""
    width = terminal.shape[-1]
    blocks = np.broadcast_to(terminal, (samples, width, width))
    # Entry (i, j) of sample s belongs to row iN + s and column jN + s.
    whole = np.einsum("sij,st->isjt", blocks, np.eye(samples))
    return whole.reshape(width * samples, width * samples)
