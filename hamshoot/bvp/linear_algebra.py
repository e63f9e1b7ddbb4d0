"""The exact Newton systems of `hamshoot.bvp.solve`: factored, or by GMRES on products with Φ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.mesh import Mesh, Point, Stop
from hamshoot.bvp.records import BVPStatus, Preconditioner
from hamshoot.bvp.staircase import StaircaseFactor

_MOST_NUMBERS = 5e7  # of Φ; beyond, an inexact correction has to do


@dataclass
class ExactSystems:
    """Newton matrices of the flow's own derivatives; a `hamshoot.bvp.newton.LinearAlgebra`.

    `reuse` and `preconditioner` as in `hamshoot.bvp.solve.solve_two_point`.
    """

    mesh: Mesh
    reuse: bool = False
    preconditioner: Callable[[NDArray, NDArray], Preconditioner] | None = None
    factor: StaircaseFactor | None = None
    growth: float = np.nan  # largest, where Φ was last formed
    rcond: float = np.nan  # of the last factorisation of Φ

    def linearise(self, point: Point, scale: NDArray) -> tuple[Point, Preconditioner, NDArray]:
        """See `hamshoot.bvp.newton.LinearAlgebra`."""
        if self.reuse and self.factor is not None and self.factor.nodes == point.t.size:
            krylov = _Krylov(self.mesh, point, scale, self.factor)
            correction = krylov.solve(*point.lack)
            if krylov.accurate:
                return point, krylov, correction
        if self.preconditioner is not None:
            point = self.mesh.finite(self.mesh.completed(point), scale)
            solver = self.preconditioner(point.t, point.y)
            krylov = _Krylov(self.mesh, point, scale, solver)
            correction = krylov.solve(*point.lack)
            if krylov.accurate or point.y.size * point.g.size > _MOST_NUMBERS:
                return point, krylov, correction
        point, self.growth = self.mesh.linearised(point, scale)
        assert point.phi is not None  # it was just formed
        self.factor = StaircaseFactor(point.phi, point.ga, point.gb, scale)
        self.rcond = self.factor.rcond
        if not self.rcond > 10 * point.g.size * np.finfo(float).eps:
            if self.growth > self.mesh.growth_limit:
                raise Stop(BVPStatus.NODE_LIMIT, f"A segment grows by {self.growth:.1e}.", point)
            raise Stop(BVPStatus.SINGULAR, conditioning(self.rcond), point)
        return point, self.factor, self.factor.solve(*point.lack)


class _Krylov:
    """The Newton matrix at `point` by products, preconditioned by an earlier or approximate one.

    `accurate` says whether the last solve met its tolerance.
    """

    def __init__(self, mesh: Mesh, point: Point, scale: NDArray, solver: Preconditioner) -> None:
        self.point, self.scale, self.solver, self.accurate = point, scale, solver, True
        self.products = mesh.products(point)

    def solve(self, r: NDArray, g: NDArray) -> NDArray:
        """See `Preconditioner`; by GMRES to 1e-7."""
        start, scale = self.solver.solve(r, g), self.scale

        def preconditioned(x: NDArray) -> NDArray:
            v = x.reshape(start.shape) * scale
            ends = self.point.ga @ v[0] + self.point.gb @ v[-1]
            return (self.solver.solve(self.products(v[:-1]) - v[1:], ends) / scale).ravel()

        x, self.accurate = _gmres(preconditioned, (start / scale).ravel())
        return x.reshape(start.shape) * scale


def _gmres(
    operator: Callable[[NDArray], NDArray], b: NDArray, rtol: float = 1e-7, max_iter: int = 20
) -> tuple[NDArray, bool]:
    """GMRES without restart from 0; the last iterate, and whether ‖b − Ax‖ ≤ rtol ‖b‖.

    `scipy.sparse.linalg.gmres` takes one product more to confirm its residual, where four or five
    do: measured along geodesics of 4 × 8 and 4 × 40 entries, 50 and 59 in place of 40 and 49.
    """
    norm = np.linalg.norm(b)
    if norm == 0 or not np.isfinite(norm):
        return b, norm == 0
    basis, hessenberg = [b / norm], np.zeros((max_iter + 1, max_iter))
    for j in range(max_iter):
        v = operator(basis[j])
        for i in range(j + 1):
            hessenberg[i, j] = basis[i] @ v
            v = v - hessenberg[i, j] * basis[i]
        hessenberg[j + 1, j] = np.linalg.norm(v)
        rhs = np.zeros(j + 2)
        rhs[0] = norm
        small = hessenberg[: j + 2, : j + 1]
        z = np.linalg.lstsq(small, rhs, rcond=None)[0]
        done = np.linalg.norm(small @ z - rhs) <= rtol * norm
        if done or hessenberg[j + 1, j] == 0:
            break
        basis.append(v / hessenberg[j + 1, j])
    return np.sum([c * q for c, q in zip(z, basis, strict=False)], axis=0), bool(done)


def conditioning(rcond: float) -> str:
    """A sentence on a reciprocal condition number, if it is known."""
    return f"Reciprocal condition number {rcond:.1e}." if np.isfinite(rcond) else ""
