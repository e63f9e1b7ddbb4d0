"""Iterates of a boundary value problem on their meshes: integrated, and cut where needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hamshoot.bvp.records import Boundary, BVPStatus, Flow

_ROUNDS = 8  # of cutting segments that grow or blow up, before one iteration
_PIECES = 16  # that a segment is cut into at once, at most


class End(NamedTuple):
    """How a solve ended."""

    status: BVPStatus
    detail: str = ""


class Stop(Exception):
    """Ends a solve from within; `point` is what the iterate had become, where that helps."""

    def __init__(self, status: BVPStatus, detail: str = "", point: Point | None = None) -> None:
        super().__init__(status.value)
        self.end, self.point = End(status, detail), point


@dataclass
class Point:
    """An iterate on its mesh, with what was evaluated there."""

    t: NDArray  # (M,)
    y: NDArray  # (M, n)
    ends: NDArray  # (S, n), nan until it is integrated
    phi: NDArray | None  # (S, n, n)
    g: NDArray  # (n,)
    ga: NDArray  # (n, n), or empty where the linear algebra has its own
    gb: NDArray
    integrated: bool = True

    @property
    def defects(self) -> NDArray:
        """Ends of the segments against the nodes that follow, shape (S, n)."""
        return self.ends - self.y[1:]

    @property
    def lack(self) -> tuple[NDArray, NDArray]:
        """Right-hand sides of the Newton system, −F: (S, n) and (n,)."""
        return -self.defects, -self.g

    @property
    def finite(self) -> NDArray:
        """Segments that are finite, shape (S,)."""
        ok = np.isfinite(self.ends).all(1)
        return ok if self.phi is None else ok & np.isfinite(self.phi).all((1, 2))


@dataclass
class Mesh:
    """The flow and the boundary function of one solve, evaluated on meshes that may get finer.

    `units` gives the units (n,) of g from the scale (n,) of the states; without, they are the
    scaled norms of its gradients. With them a boundary function may return empty derivatives.
    """

    flow: Flow
    boundary: Boundary
    growth_limit: float
    max_nodes: int
    deadline: float = np.inf
    units: Callable[[NDArray], NDArray] | None = None
    ride: float = 0.1  # scaled defect below which an inserted node is put on the flow
    flows: int = 0  # segments integrated so far

    # ------------------------------------------------------------------ evaluation

    def given(self, t: NDArray, y: NDArray) -> Point:
        """An iterate that is not integrated yet."""
        ends = np.full((t.size - 1, y.shape[1]), np.nan)
        return Point(t, y, ends, None, *self.ends(y), integrated=False)

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
        with np.errstate(all="ignore"), self._limited():
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

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """The deadline, known to a flow that can end in the middle of a call."""
        flow: Any = self.flow
        if not hasattr(flow, "deadline"):
            yield
            return
        before, flow.deadline = flow.deadline, self.deadline
        try:
            yield
        finally:
            flow.deadline = before

    def completed(self, point: Point) -> Point:
        """The iterate, integrated if it was not."""
        return point if point.integrated else self.evaluate(point.t, point.y)

    def residuals(self, point: Point, scale: NDArray) -> tuple[float, float]:
        """Largest scaled defect and boundary residual."""
        if self.units is not None:
            size = self.units(scale)
        else:
            size = np.linalg.norm(np.hstack([point.ga, point.gb]) * np.tile(scale, 2), axis=1)
            size[size == 0] = 1.0
        return float(np.abs(point.defects / scale).max()), float(np.abs(point.g / size).max())

    def ends(self, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Boundary function g and its derivatives by both ends, of the shapes they must have."""
        n = y.shape[1]
        with np.errstate(all="ignore"):
            g, ga, gb = (np.asarray(v, float) for v in self.boundary(y[0], y[-1]))
        shapes = [g.shape, ga.shape, gb.shape]
        if self.units is None and shapes != [(n,), (n, n), (n, n)]:
            raise ValueError(
                f"boundary: expected shapes ({n},), ({n}, {n}), ({n}, {n}), got {shapes}"
            )
        return g, ga, gb

    def products(self, point: Point) -> Callable[[NDArray], NDArray]:
        """The map v (S, n) -> Φ_k v_k (S, n) at `point`, of a flow that has it."""
        flow: Any = self.flow

        def apply(v: NDArray) -> NDArray:
            if time.perf_counter() > self.deadline:
                raise Stop(BVPStatus.TIME_LIMIT)
            self.flows += len(v)
            with self._limited():
                return flow.jvp(point.t[:-1], point.t[1:], point.y[:-1], v)

        return apply

    # ------------------------------------------------------------------ cutting

    def linearised(self, point: Point, scale: NDArray) -> tuple[Point, float]:
        """Φ at the iterate, on a mesh cut where it grows too much; the largest growth left."""
        point.ends, point.phi = self.integrate(point.t[:-1], point.t[1:], point.y[:-1], True)
        point.integrated = True
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
            raise Stop(BVPStatus.NOT_FINITE, self.why_lost(point, k))
        if not all(np.isfinite(v).all() for v in (point.g, point.ga, point.gb)):
            raise Stop(BVPStatus.NOT_FINITE, "The boundary function is not finite.")
        return point

    def why_lost(self, point: Point, k: int) -> str:
        """What the flow says of a segment that it cannot integrate."""
        why, some, flow = "", slice(k, k + 1), cast(Any, self.flow)
        if hasattr(flow, "why_lost"):
            why = flow.why_lost(point.t[some], point.t[k + 1 : k + 2], point.y[some])
        why = why or "the flow is not finite"
        return f"On [{point.t[k]:.6g}, {point.t[k + 1]:.6g}] {why}."

    def insert(self, point: Point, pieces: NDArray, scale: NDArray) -> Point:
        """Cut segment k evenly into pieces[k]; integrate only the segments that are new.

        New states lie on the flow where the segment's defect is small against the scale, else on
        the chord between the guesses at its ends, which a growing flow leaves at once.
        """
        parent = np.repeat(np.arange(pieces.size), pieces)  # (S_new,)
        place = (np.arange(parent.size) - (np.cumsum(pieces) - pieces)[parent]) / pieces[parent]
        t = point.t[parent] + place * np.diff(point.t)[parent]
        y = point.y[parent] + place[:, None] * np.diff(point.y, axis=0)[parent]
        small = np.abs(point.defects / scale).max(1) < self.ride
        ride = (place > 0) & small[parent]
        if ride.any():
            states = self.integrate(point.t[parent[ride]], t[ride], point.y[parent[ride]])[0]
            y[ride] = np.where(np.isfinite(states), states, y[ride])
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
