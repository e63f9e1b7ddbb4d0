"""`HamiltonianFlow`: the compiled flow of one problem, segment by segment.

A `hamshoot.bvp.solve.Flow`: called with starts and states of many segments it returns their ends
and, on request, their Jacobians. States are flat, y = (A, B) of size n = 2wN, each half row by row.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import numbers_of
from hamshoot.problem.activations import Activation
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HamiltonianFlow:
    """Flow of the Hamiltonian system of a network, accurate to a local tolerance.

    Parameters
    ----------
    width, samples : int
        w, N.
    effective_depth : float
        L̃.
    activation : Activation
        Smooth, linear, or ReLU (crossings located, directions through the saltation matrix).
    bias : bool
    rtol, atol : float
        Local error of a step, DOP853's root mean square.
    max_steps : int
        Of one segment.
    least_speed : float
        An entry of A that meets 0 more slowly than this does not cross it: GRAZING.
    bail : bool
        Give up the segments that follow one that fails; for those who need all or nothing.

    Attributes
    ----------
    energies : ndarray, shape (S,)
        ∫‖W‖²/(2L̃) over the segments of the last call.
    statuses, steps, crossings : ndarray of int, shape (S,)
        Of the last call: 0 where the segment was integrated (else see `why_lost`), steps taken,
        crossings of 0.

    Notes
    -----
    A step costs 12 right-hand sides of about 6w²N flops; with Jacobians 24wN + 1 times as much.
    """

    def __init__(
        self,
        width: int,
        samples: int,
        effective_depth: float,
        activation: Activation,
        bias: bool = True,
        *,
        rtol: float = 1e-12,
        atol: float = 1e-13,
        max_steps: int = 2000,
        least_speed: float = 1e-9,
        bail: bool = False,
    ):
        activation.check_compiled("the compiled flow of geodesics")
        if activation.name == "leaky_relu":
            raise ValueError("activation: expected a smooth one, relu or linear for the compiled "
                             "flow, got 'leaky_relu'; its smooth form is smooth_leaky_relu")
        self.shape = (2, width, samples)
        self.size = 2 * width * samples
        self.effective_depth, self.activation, self.bias = effective_depth, activation, bias
        self.rtol, self.atol = rtol, atol
        self.max_steps, self.least_speed, self.bail = max_steps, least_speed, bail
        self._direction_work: dict[int, tuple[NDArray, ...]] = {}

    def __call__(
        self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool = False
    ) -> tuple[NDArray, NDArray | None]:
        """Ends (S, n) and, if asked, Φ (S, n, n) of segments that start at y (S, n)."""
        count, n = len(y), self.size
        if not jacobian:
            return self._run(t0, t1, y, np.empty((count, 0)), 0)[0], None
        half = n // 2
        directions = np.zeros((2, n, half))  # Φᵀ of the start, cut into A and B
        directions[0, :half], directions[1, half:] = np.eye(half), np.eye(half)
        V = np.repeat(directions.reshape(1, -1), count, axis=0)
        ends, V = self._run(t0, t1, y, V, n)
        V = V.reshape(count, 2, n, half)
        return ends, np.concatenate([V[:, 0], V[:, 1]], axis=2).transpose(0, 2, 1)

    def jvp(self, t0: NDArray, t1: NDArray, y: NDArray, v: NDArray) -> NDArray:
        """Φ_k v_k of each segment, (S, n)."""
        return self._run(t0, t1, y, v, 1)[1]

    def vjp(self, t0: NDArray, t1: NDArray, y: NDArray, u: NDArray) -> NDArray:
        """Φ_kᵀ u_k of each segment, (S, n): the gradient at its start of ⟨u_k, end⟩.

        The adjoint of the steps that were taken, so it is the transpose of `jvp` to rounding, with
        crossings of a ReLU among them. Costs two to five calls without Jacobian, whatever n
        (`demos/benchmarks/indirect.py adjoint`); the states at the steps of one segment are kept,
        steps × n numbers. For whoever differentiates a function of a path; the solvers here need
        all of Φ.
        """
        half = self.size // 2
        u = np.asarray(u, dtype=float).reshape(len(y), self.size)
        turned = self._run(t0, t1, y, np.hstack([u[:, half:], -u[:, :half]]), 1, back=True)[1]
        return np.hstack([-turned[:, half:], turned[:, :half]])

    def why_lost(self, t0: NDArray, t1: NDArray, y: NDArray) -> str:
        """Why these segments are not integrated to their ends, as a clause; "" if all are.

        The first that fails counts, and the segments are integrated for it: those who want to say
        it have failed and need not hurry.
        """
        from hamshoot.dynamics import _flow_kernels as kernels

        self(t0, t1, y)
        clauses = {
            kernels.NOT_FINITE: "the flow is not finite",
            kernels.STEP_LIMIT: f"the flow takes more than {self.max_steps} steps over a segment",
            kernels.GRAZING: "an activation grazes its kink, where the flow has no derivative",
        }
        return next((clauses[code] for code in self.statuses.tolist() if code in clauses), "")

    def _run(
        self, t0: NDArray, t1: NDArray, y: NDArray, V: NDArray, directions: int, back: bool = False
    ) -> tuple[NDArray, NDArray]:
        """Ends, and directions V carried there from the starts or, with `back`, to the starts."""
        from hamshoot.dynamics import _flow_kernels

        starts, V = np.array(y, dtype=float, order="C"), np.array(V, dtype=float, order="C")
        t0, t1, ends = np.array(t0, dtype=float), np.array(t1, dtype=float), starts.copy()
        count, sigma = len(ends), self.activation
        events = True if sigma.name == "relu" else None
        numbers = *numbers_of(sigma), float(self.effective_depth)
        limits = (float(self.rtol), float(self.atol), int(self.max_steps),
                  float(self.least_speed), bool(self.bail))
        patterns = self._patterns(starts, np.sign(t1 - t0))
        self.energies = np.zeros(count)
        self.statuses, self.steps, self.crossings = np.zeros((3, count), dtype=np.int64)
        record = np.empty((16 * count if directions else 0, 3))
        rows = _flow_kernels.segments(
            self._field, events, *numbers, t0, t1, *limits, ends, patterns, self.energies,
            self.statuses, self.steps, self.crossings, record, *self._work,
        )
        if not directions:
            return ends, V
        if rows > len(record):
            ends, record = starts.copy(), np.empty((rows, 3))
            _flow_kernels.segments(
                self._field, events, *numbers, t0, t1, *limits, ends, patterns, self.energies,
                self.statuses, self.steps, self.crossings, record, *self._work,
            )
        if directions not in self._direction_work:
            self._direction_work[directions] = self._directions(directions)
        steps = np.concatenate([[0], np.cumsum(self.steps)])
        common = *numbers, starts, patterns, steps, record, V
        work = *self._work, *self._direction_work[directions]
        if back:
            path = np.empty((self.steps.max(initial=1), self.size))
            _flow_kernels.pull(*common, path, *work)
        else:
            _flow_kernels.carry(*common, *work)
        V[self.statuses != 0] = np.nan
        return ends, V

    def _patterns(self, y: NDArray, sign: NDArray) -> NDArray:
        """Active entries of a ReLU at the starts; an entry at 0 goes where its speed takes it."""
        Y = y.reshape(len(y), *self.shape)
        if self.activation.name != "relu":
            return np.ones((len(y), *self.shape[1:]))
        patterns = (Y[:, 0] > 0).astype(float)
        for k in np.flatnonzero((Y[:, 0] == 0).any((1, 2))):
            speed = ham.velocity(*Y[k], effective_depth=self.effective_depth,
                                 activation=self.activation, bias=self.bias)
            patterns[k][(Y[k, 0] == 0) & (sign[k] * speed > 0)] = 1.0
        return patterns

    def __getstate__(self) -> dict[str, Any]:
        """Without the address, which is of this process, and workspaces, which share memory."""
        here = ("_field", "_work")
        left = {name: value for name, value in vars(self).items() if name not in here}
        return {**left, "_direction_work": {}}

    @cached_property
    def _field(self) -> tuple[int, int]:
        """Where the compiled right-hand side is, for the kernels."""
        from hamshoot.dynamics import _compiling, _flow_kernels

        sigma, (K, _, _, at, _, *rest) = self.activation, self._work
        return _compiling.place_of(_flow_kernels.field, *numbers_of(sigma),
                                   float(self.effective_depth), at, *rest, K[1])

    @cached_property
    def _work(self) -> tuple[NDArray, ...]:
        """Arrays the kernels write to, and the flat views of them that they want."""
        _, w, N = self.shape
        c, n = w + int(self.bias), self.size
        K, at = np.empty((13, 2, w, N)), np.empty((2, w, N))
        return (
            K, K.reshape(13, n), np.empty(12), at, at.reshape(n),
            np.empty((3, w, N)), np.ones((c, N)), np.empty((w, c)), np.empty((c, N)),
        )

    def _directions(self, D: int) -> tuple[NDArray, ...]:
        """The same for D directions."""
        _, w, N = self.shape
        c = w + int(self.bias)
        Z, z = np.empty((13, 2, D, w, N)), np.empty((2, D, w, N))
        s, dM, X = np.empty((D, w, N)), np.empty((D, w, c)), np.empty((D, w, w))
        return (
            Z, Z.reshape(13, -1), Z.reshape(13, 2, D * w, N),
            z, z.reshape(-1), z.reshape(2, D * w, N),
            s, s.reshape(D * w, N), dM, dM.reshape(D * w, c), X, X.reshape(D * w, w),
            np.empty((w, w)), np.empty((w, N)),
        )
