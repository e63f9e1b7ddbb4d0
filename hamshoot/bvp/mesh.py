"""Iterates of a boundary value problem on their meshes: integrated, and cut where needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.records import Boundary, BVPStatus, Flow

_ROUNDS = 8  # of cutting segments that grow or blow up, before one iteration
_PIECES = 16  # that a segment is cut into at once, at most


class Stop(Exception):
    """Ends a solve with a status."""

    def __init__(self, status: BVPStatus, detail: str = "") -> None:
        super().__init__(status.value)
        self.status, self.detail = status, detail


@dataclass
class Point:
    """An iterate on its mesh, with what was evaluated there."""

    t: NDArray  # (M,)
    y: NDArray  # (M, n)
    ends: NDArray  # (S, n)
    phi: NDArray | None  # (S, n, n)
    g: NDArray  # (n,)
    ga: NDArray  # (n, n)
    gb: NDArray  # (n, n)

    @property
    def defects(self) -> NDArray:
        """Ends of the segments against the nodes that follow, shape (S, n)."""
        return self.ends - self.y[1:]

    @property
    def finite(self) -> NDArray:
        """Segments that are finite, shape (S,)."""
        ok = np.isfinite(self.ends).all(1)
        return ok if self.phi is None else ok & np.isfinite(self.phi).all((1, 2))

    def residuals(self, scale: NDArray) -> tuple[float, float]:
        """Largest scaled defect and boundary residual."""
        size = np.linalg.norm(np.hstack([self.ga, self.gb]) * np.tile(scale, 2), axis=1)
        size[size == 0] = 1.0
        return float(np.abs(self.defects / scale).max()), float(np.abs(self.g / size).max())


@dataclass
class Mesh:
    """The flow and the boundary function of one solve, evaluated on meshes that may get finer."""

    flow: Flow
    boundary: Boundary
    growth_limit: float
    max_nodes: int
    deadline: float
    flows: int = 0  # segments integrated so far

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, t: NDArray, y: NDArray) -> Point:
        """Flow and boundary function at an iterate, without Φ."""
        ends = self.integrate(t[:-1], t[1:], y[:-1])[0]
        return Point(t, y, ends, None, *self.ends(y))

    def integrate(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool = False
    ) -> tuple[NDArray, NDArray | None]:
        """Call the flow; check the clock before and the shapes after."""
        if time.perf_counter() > self.deadline:
            raise Stop(BVPStatus.TIME_LIMIT)
        self.flows += len(t0)
        with np.errstate(all="ignore"):
            ends, phi = self.flow(t0, t1, y, jacobian)
        ends = np.asarray(ends, float)
        if ends.shape != y.shape:
            raise ValueError(f"flow: expected ends of shape {y.shape}, got {ends.shape}")
        if not jacobian:
            return ends, None
        phi = np.asarray(phi, float)
        if phi.shape != (*y.shape, y.shape[1]):
            raise ValueError(
                f"flow: expected Jacobians of shape {(*y.shape, y.shape[1])}, got {phi.shape}"
            )
        return ends, phi

    def ends(self, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Boundary function g and its derivatives by both ends, of the shapes they must have."""
        n = y.shape[1]
        with np.errstate(all="ignore"):
            g, ga, gb = (np.asarray(v, float) for v in self.boundary(y[0], y[-1]))
        shapes = [g.shape, ga.shape, gb.shape]
        if shapes != [(n,), (n, n), (n, n)]:
            raise ValueError(
                f"boundary: expected shapes ({n},), ({n}, {n}), ({n}, {n}), got {shapes}"
            )
        return g, ga, gb

    def products(self, point: Point) -> Callable[[NDArray], NDArray]:
        """The map v (S, n) -> Φ_k v_k (S, n) at `point`, of a flow that has it."""
        jvp: Callable[..., NDArray] = getattr(self.flow, "jvp")  # noqa: B009

        def apply(v: NDArray) -> NDArray:
            if time.perf_counter() > self.deadline:
                raise Stop(BVPStatus.TIME_LIMIT)
            self.flows += len(v)
            return jvp(point.t[:-1], point.t[1:], point.y[:-1], v)

        return apply

    # ------------------------------------------------------------------ cutting

    def linearised(self, point: Point, scale: NDArray) -> tuple[Point, float]:
        """Φ at the iterate, on a mesh cut where it grows too much; the largest growth left."""
        ends, phi = self.integrate(point.t[:-1], point.t[1:], point.y[:-1], True)
        point = Point(point.t, point.y, ends, phi, point.g, point.ga, point.gb)
        point = self.finite(point, scale)
        assert point.phi is not None  # a mesh that is cut keeps what it had
        return point, float(_growth(point.phi, scale).max())

    def finite(self, point: Point, scale: NDArray) -> Point:
        """The iterate on a mesh on which its flow is finite and, if Φ is there, grows little."""
        for _ in range(_ROUNDS):
            growth = 1.0 if point.phi is None else _growth(point.phi, scale)
            growth = np.where(point.finite, growth, self.growth_limit**2)
            pieces = np.log(np.maximum(growth, 1.0)) / np.log(self.growth_limit)
            pieces = np.clip(np.ceil(pieces - 1e-9), 1, _PIECES).astype(int)
            if pieces.max() == 1 or point.t.size + np.sum(pieces - 1) > self.max_nodes:
                break
            point = self.insert(point, pieces, scale)
        if not point.finite.all():
            k = int(np.argmin(point.finite))
            where = f"The flow is not finite on [{point.t[k]:.6g}, {point.t[k + 1]:.6g}]."
            raise Stop(BVPStatus.NOT_FINITE, where)
        if not all(np.isfinite(v).all() for v in (point.g, point.ga, point.gb)):
            raise Stop(BVPStatus.NOT_FINITE, "The boundary function is not finite.")
        return point

    def insert(self, point: Point, pieces: NDArray, scale: NDArray) -> Point:
        """Cut segment k evenly into pieces[k]; integrate only the segments that are new.

        New states lie on the flow where the segment's defect is small against the scale, else on
        the chord between the guesses at its ends, which a growing flow leaves at once.
        """
        parent = np.repeat(np.arange(pieces.size), pieces)  # (S_new,)
        place = (np.arange(parent.size) - (np.cumsum(pieces) - pieces)[parent]) / pieces[parent]
        t = point.t[parent] + place * np.diff(point.t)[parent]
        y = point.y[parent] + place[:, None] * np.diff(point.y, axis=0)[parent]
        small = np.abs(point.defects / scale).max(1) < 0.1
        ride = (place > 0) & small[parent]
        if ride.any():
            y[ride] = self.integrate(point.t[parent[ride]], t[ride], point.y[parent[ride]])[0]
        t, y = np.append(t, point.t[-1]), np.vstack([y, point.y[-1:]])
        fresh = pieces[parent] > 1
        ends, phi = point.ends[parent], point.phi if point.phi is None else point.phi[parent]
        new = self.integrate(t[:-1][fresh], t[1:][fresh], y[:-1][fresh], phi is not None)
        ends[fresh] = new[0]
        if phi is not None:
            phi[fresh] = new[1]
        return Point(t, y, ends, phi, point.g, point.ga, point.gb)


def _growth(phi: NDArray, scale: NDArray) -> NDArray:
    """Largest row of each scaled Φ in the 2-norm, shape (S,): at most ‖Φ_k‖₂, at least that/√n."""
    with np.errstate(all="ignore"):
        return np.linalg.norm(phi * scale / scale[:, None], axis=2).max(1)
