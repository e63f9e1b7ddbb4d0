"""The shooting equations in (A, B), for `hamshoot.bvp.solve`: exact Newton, nothing cubic in N."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

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
    shape, n = y.shape[1:], y[0].size
    half = n // 2
    ga, gb = np.zeros((n, n)), np.zeros((n, n))
    ga[:half, :half] = np.eye(half)
    if shooting.endpoint is not None:
        gb[half:, :half] = np.eye(half)
    else:
        gb[half:, half:] = np.eye(half)

    def boundary(first: NDArray, last: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        at = gb.copy()
        if shooting.endpoint is None:
            blocks = np.broadcast_to(shooting.terminal(last.reshape(shape)[0]),
                                     (shape[2], shape[1], shape[1]))
            # Entry (i, j) of sample s belongs to row iN + s and column jN + s.
            at[half:, :half] = np.einsum("sij,st->isjt", blocks, np.eye(shape[2])).reshape(
                half, half)
        return shooting.end_residuals(first, last)[0], ga, at

    size = np.abs(y).max((0, 2, 3))
    penalty = 1e6 * float(size[1] / size[0])
    approximate = partial(ModelSystem, shooting, form="auto", penalty=penalty)
    return partial(
        solve_two_point, shooting.flow, boundary, t, y.reshape(len(t), n),
        scale=np.repeat(size, half), preconditioner=approximate,
    )
