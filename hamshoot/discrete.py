"""The layered network as a discretised optimal control problem: the NumPy reference.

Explicit Euler is the Leaky ResNet itself,

    A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),     J_L = loss + λ/(2L̃) Σ_ℓ ρ_ℓ‖W_ℓ‖_F²,

and RK4 with W constant over each step approaches the continuous path with fewer steps. Everything
is recomputed from the controls: roll-out, discrete costate (the exact adjoint of the roll-out),
gradient, stationarity and, for ReLU, the Clarke residual. Solvers are checked against this module;
none of them uses it to search.

Costs are in flops with w ≤ N: one sweep (forward or backward) of the Euler network costs about
2Lw²N, a gradient 6Lw²N, RK4 four times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot import energies
from hamshoot import hamiltonian as ham
from hamshoot.problem import TrainingProblem
from hamshoot.solution import PathPoint, Record, Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Entries with |A| below this times max(1, max|A|) count as lying on the kink of ReLU.
KINK_TOLERANCE = 1e-9
#: More unknowns than this go to the interior method of lsq_linear.
BVLS_LARGEST = 200
#: Columns of W below this times the largest count as 0.
IDLE_COLUMN = 1e-13
#: Above this many numbers in the Jacobian of the Clarke residual, L-BFGS-B does without it.
CLARKE_DENSE = 20_000_000
#: A network whose endpoint is smaller than this times the targets' norm, and whose loss is no
#: better than that of Q A_1 = 0 to the same fraction, has collapsed.
COLLAPSE_FRACTION = 0.05


# -- roll-out --------------------------------------------------------------------------------------


def roll_out(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    integrator: str = "euler",
    initial_state: NDArray | None = None,
) -> NDArray:
    """Representations of the layered network at all its nodes.

    Parameters
    ----------
    problem : TrainingProblem
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
        Layer steps ρ, sum 1.
    integrator : {"euler", "rk4"}
    initial_state : ndarray, shape (w, K), optional
        In place of the problem's A_0, for other samples.

    Returns
    -------
    ndarray, shape (L+1, w, N)
    """
    A = problem.initial_state if initial_state is None else initial_state
    nodes = [A]
    for W, rho in zip(weights, steps, strict=True):
        A = _euler_step(problem, A, W, rho) if integrator == "euler" else \
            A + _rk4_stages(problem, A, W, rho)[2]
        nodes.append(A)
    return np.array(nodes)


def objective(
    problem: TrainingProblem, endpoint: NDArray, weights: NDArray, steps: NDArray
) -> tuple[float, float, float]:
    """J, loss and Σρ‖W‖² of a network that ends at `endpoint` (w, N); a hard endpoint has no loss.

    Returns
    -------
    objective, loss, parameter_norm : float
    """
    norm = float(np.sum(steps * np.sum(weights**2, axis=(1, 2))))
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(endpoint, problem.readout, problem.targets))
    return loss + problem.weight_decay / (2 * problem.effective_depth) * norm, loss, norm


# -- costate and gradient --------------------------------------------------------------------------


def costates(
    problem: TrainingProblem,
    representations: NDArray,
    weights: NDArray,
    steps: NDArray,
    integrator: str = "euler",
    terminal: NDArray | None = None,
    slopes: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Discrete costate of the roll-out, and the scaled gradient that goes with it.

    Parameters
    ----------
    representations : ndarray, shape (L+1, w, N)
        From `roll_out`.
    terminal : ndarray, shape (w, N), optional
        B_L; default −(2/(λN)) Qᵀ(QA_L − Yᵀ). Needed with a hard endpoint.
    slopes : ndarray, shape (L, w, N), optional
        σ′ at the left node of each layer, where it should differ from the activation's own (a
        choice of Clarke's subdifferential); Euler only.

    Returns
    -------
    momenta : ndarray, shape (L+1, w, N)
    gradient : ndarray, shape (L, w, w+1)
        (L̃/(λρ_ℓ)) ∂J/∂W_ℓ, which for Euler is W_ℓ − L̃ B_ℓ σ̂(A_{ℓ−1})ᵀ.
    """
    if terminal is None:
        if problem.hard_endpoint:
            raise ValueError("terminal: a hard endpoint needs its momentum B_1, got none")
        terminal = ham.terminal_momentum(
            representations[-1], problem.readout, problem.targets, problem.weight_decay
        )
    momenta = np.empty_like(representations)
    momenta[-1] = terminal
    gradient = np.empty_like(weights)
    for k in range(len(weights) - 1, -1, -1):
        step = _euler_adjoint if integrator == "euler" else _rk4_adjoint
        slope = None if slopes is None else slopes[k]
        momenta[k], product = step(
            problem, representations[k], weights[k], steps[k], momenta[k + 1], slope
        )
        gradient[k] = weights[k] - problem.effective_depth * product
    return momenta, gradient


def stationarity(weights: NDArray, gradient: NDArray) -> float:
    """Largest ‖scaled gradient‖_F / max(1, ‖W‖_F) over the layers."""
    size = np.maximum(1.0, np.linalg.norm(weights, axis=(1, 2)))
    return float(np.max(np.linalg.norm(gradient, axis=(1, 2)) / size))


# -- Clarke residual -------------------------------------------------------------------------------


class ClarkeResult(NamedTuple):
    """The best element of Clarke's subdifferential that was found.

    Attributes
    ----------
    residual : float
        ‖∇J(d)‖_F at the best d.
    slopes : ndarray, shape (L, w, N)
        σ′ with d in the entries on the kink.
    on_kink : ndarray of bool, shape (L, w, N)
        Entry (ℓ, i, j) belongs to the left node of layer ℓ; none at ℓ = 0, where A is given.
    """

    residual: float
    slopes: NDArray
    on_kink: NDArray


def clarke_residual(
    problem: TrainingProblem,
    representations: NDArray,
    weights: NDArray,
    steps: NDArray,
    tolerance: float = KINK_TOLERANCE,
    terminal: NDArray | None = None,
    max_iter: int = 50,
) -> ClarkeResult:
    """Smallest ‖∇J(d)‖ over slopes d ∈ [0, 1] of the entries on the kink (Euler, ReLU).

    A ReLU network is stationary in Clarke's sense when some choice of slopes at its kinks makes the
    gradient vanish. The gradient is affine in the multipliers m = d ⊙ v, v = ρWᵀD, and
    multi-affine in d, so a few Gauss–Newton steps, each a bounded linear least-squares problem,
    find the best d. With k entries on the kink a step costs O(k L w²) memory and O(k² L w²) flops;
    beyond `CLARKE_DENSE` numbers L-BFGS-B minimises ½‖∇J(d)‖² instead, two sweeps an iteration.

    Parameters
    ----------
    tolerance : float
        |A| ≤ tolerance·max(1, max|A|) counts as on the kink.
    """
    left = representations[:-1]
    slopes = problem.sigma.slope(left)
    on_kink = np.zeros(left.shape, bool)
    if problem.activation == "relu":
        on_kink[1:] = np.abs(left[1:]) <= tolerance * max(1.0, float(np.abs(left).max()))
    evaluate = _ClarkeEvaluation(
        problem, representations, weights, steps, terminal, slopes, on_kink
    )
    # An entry whose neuron no weight reads (a column of W that is 0) has no effect whatever its d.
    columns = np.linalg.norm(weights[:, :, : problem.width], axis=1)[:, :, None]
    idle = on_kink & (columns <= IDLE_COLUMN * columns.max(initial=1.0))
    evaluate.on_kink = on_kink & ~idle
    n_kinks = int(evaluate.on_kink.sum())
    if n_kinks == 0:
        d = np.empty(0)
    elif n_kinks * weights.size <= CLARKE_DENSE:
        d = _bounded_gauss_newton(evaluate, np.full(n_kinks, 0.5), max_iter)
    else:
        d = _bounded_quasi_newton(evaluate, np.full(n_kinks, 0.5), max_iter)
    residual = float(np.linalg.norm(evaluate.gradient(d)))
    slopes = slopes.copy()
    slopes[evaluate.on_kink] = d
    slopes[idle] = 0.5
    return ClarkeResult(residual, slopes, on_kink)


class _ClarkeEvaluation:
    """∇J(d), its Jacobian in d, and Jᵀ∇J, on a fixed roll-out."""

    def __init__(self, problem, representations, weights, steps, terminal, slopes, on_kink):
        self.problem, self.A, self.W, self.steps = problem, representations, weights, steps
        self.terminal, self.base, self.on_kink = terminal, slopes, on_kink
        self.S = np.array([ham.augmented(A, problem.sigma, problem.bias)
                           for A in representations[:-1]])
        self.scale = problem.weight_decay / problem.effective_depth * steps[:, None, None]

    def _slopes(self, d: NDArray) -> NDArray:
        slopes = self.base.copy()
        slopes[self.on_kink] = d
        return slopes

    def gradient(self, d: NDArray) -> NDArray:
        """∂J/∂W, shape (L, w, w+1)."""
        return self.scale * self._sweep(d)[1]

    def _sweep(self, d: NDArray) -> tuple[NDArray, NDArray]:
        return costates(self.problem, self.A, self.W, self.steps,
                        terminal=self.terminal, slopes=self._slopes(d))

    def _force(self, momenta: NDArray) -> NDArray:
        """∂D_ℓ/∂d at the entries on the kink, v = ρWᵀD of the layer above, (L, w, N)."""
        w = self.problem.width
        products = np.swapaxes(self.W[:, :, :w], 1, 2) @ momenta[1:]
        return -self.problem.weight_decay * self.steps[:, None, None] * products

    def jacobian(self, d: NDArray) -> NDArray:
        """∂(∂J/∂W)/∂d, shape (L w (w+1), k): a kink of sample j moves D of that sample only."""
        slopes, (momenta, _) = self._slopes(d), self._sweep(d)
        layer, row, sample = np.nonzero(self.on_kink)
        force = self._force(momenta)[self.on_kink]
        jacobian = np.zeros((*self.W.shape, len(layer)))
        D = np.zeros((self.problem.width, len(layer)))  # D at the right node of layer k − 1
        w, L_tilde = self.problem.width, self.problem.effective_depth
        for k in range(len(self.W) - 1, 0, -1):
            D = slopes[k][:, sample] * (self.steps[k] * self.W[k][:, :w].T @ D) \
                + (1 - self.steps[k] * L_tilde) * D
            here = layer == k
            D[row[here], here] += force[here]
            jacobian[k - 1] = self.steps[k - 1] * D[:, None] * self.S[k - 1][:, sample][None]
        return jacobian.reshape(-1, len(layer))

    def value_and_slope(self, d: NDArray) -> tuple[float, NDArray]:
        """½‖∇J(d)‖² and its gradient in d, by one backward and one forward (tangent) sweep."""
        slopes, (momenta, scaled) = self._slopes(d), self._sweep(d)
        G = self.scale * scaled
        w, L_tilde = self.problem.width, self.problem.effective_depth
        tangent = np.zeros_like(self.A[0])
        out = np.zeros_like(self.base)
        for k in range(len(self.W)):
            out[k] = tangent
            tangent = (1 - self.steps[k] * L_tilde) * tangent + self.steps[k] * (
                self.W[k][:, :w] @ (slopes[k] * tangent) + G[k] @ self.S[k]
            )
        return 0.5 * float(np.sum(G * G)), (out * self._force(momenta))[self.on_kink]


def _bounded_gauss_newton(evaluate: _ClarkeEvaluation, d: NDArray, max_iter: int) -> NDArray:
    """Gauss–Newton steps without bounds first, which is all it takes at a stationary point."""
    free = _descend_residual(evaluate, d, max_iter, _free_step)
    if np.all((free >= -1e-12) & (free <= 1 + 1e-12)):
        return np.clip(free, 0, 1)
    return _descend_residual(evaluate, np.clip(free, 0, 1), max_iter, _bounded_step)


def _descend_residual(evaluate, d, max_iter, step_of) -> NDArray:
    """Follow steps of a linear model while they shorten ∇J(d)."""
    r = evaluate.gradient(d).ravel()
    for _ in range(max_iter):
        if not np.any(r):
            break
        step = step_of(evaluate.jacobian(d), r, d)
        length = 1.0
        while length > 1e-4:
            trial = d + length * step
            r_trial = evaluate.gradient(trial).ravel()
            if np.linalg.norm(r_trial) < np.linalg.norm(r):
                break
            length /= 2
        else:
            break
        gain = np.linalg.norm(r) - np.linalg.norm(r_trial)
        d, r = trial, r_trial
        if gain <= 1e-3 * np.linalg.norm(r):
            break
    return d


def _free_step(J: NDArray, r: NDArray, d: NDArray) -> NDArray:
    """The shortest step of least ‖r + J step‖."""
    return np.linalg.lstsq(J, -r, rcond=1e-12)[0]


def _bounded_step(J: NDArray, r: NDArray, d: NDArray) -> NDArray:
    """The step of least ‖r + J step‖ that keeps d + step in [0, 1]."""
    from scipy.optimize import lsq_linear

    # Only the triangular factor of J matters. Columns and right-hand side get unit size: the
    # tolerance of lsq_linear is an absolute one.
    Q, J = np.linalg.qr(J)
    r, size = Q.T @ r, float(np.linalg.norm(r))
    columns = np.linalg.norm(J, axis=0)
    largest = columns.max(initial=0.0)
    columns[columns <= 1e-14 * largest] = max(largest, 1e-300)
    # It wants lower < upper strictly inside its box.
    low, high = (-d - 1e-15) * columns / size, (1 - d + 1e-15) * columns / size
    method = "bvls" if len(d) <= BVLS_LARGEST else "trf"
    scaled = lsq_linear(J / columns, -r / size, bounds=(low, high), method=method, tol=1e-12)
    return np.clip(d + scaled.x * size / columns, 0, 1) - d


def _bounded_quasi_newton(evaluate: _ClarkeEvaluation, d: NDArray, max_iter: int) -> NDArray:
    from scipy.optimize import minimize

    scale = max(evaluate.value_and_slope(d)[0], 1e-300)

    def scaled(x: NDArray) -> tuple[float, NDArray]:
        value, slope = evaluate.value_and_slope(x)
        return value / scale, slope / scale

    result = minimize(scaled, d, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(d),
                      options=dict(maxiter=4 * max_iter, maxcor=20, ftol=1e-15, gtol=1e-12))
    return np.clip(result.x, 0, 1)


# -- whole solutions -------------------------------------------------------------------------------


def solution_from_weights(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    *,
    status: Status,
    success: bool,
    message: str = "",
    method: str,
    integrator: str = "euler",
    nit: int = 0,
    history: tuple[Record, ...] = (),
    seconds: float = 0.0,
    terminal: NDArray | None = None,
    residuals: dict[str, float] | None = None,
    extra: dict[str, Any] | None = None,
) -> Solution:
    """Roll a network out and fill a `Solution` from the reference formulas.

    Whatever a solver says of its iterate, objective, costate and residuals come from here: the
    objective is always that of the rolled-out network.

    Parameters
    ----------
    terminal : ndarray, shape (w, N), optional
        B_1, the multiplier of a hard endpoint.
    residuals : dict, optional
        The solver's own, added to those computed here.
    """
    weights, steps = np.array(weights, dtype=float), np.array(steps, dtype=float)
    A = roll_out(problem, weights, steps, integrator)
    J, loss, norm = objective(problem, A[-1], weights, steps)
    slopes, kinks, own = None, 0, {}
    if problem.activation == "relu" and integrator == "euler" and np.isfinite(J):
        clarke = clarke_residual(problem, A, weights, steps, terminal=terminal)
        slopes, kinks = clarke.slopes, int(clarke.on_kink.sum())
        own["clarke_residual"] = clarke.residual
    B, gradient = costates(problem, A, weights, steps, integrator, terminal, slopes)
    own["stationarity"] = stationarity(weights, gradient)
    own["gradient_norm"] = float(np.linalg.norm(
        problem.weight_decay / problem.effective_depth * steps[:, None, None] * gradient
    ))
    # Momenta and representations come from one roll-out, so the layered defect is exactly zero and
    # only a hard endpoint leaves a boundary residual.
    own["defect"] = 0.0
    own["boundary_residual"] = boundary_residual(problem, A, B)
    if np.isfinite(J) and collapsed(problem, A[-1], loss):
        success, status = False, Status.COLLAPSED
        message = f"{Status.COLLAPSED} {message}".strip()
    p = np.concatenate([[0.0], np.cumsum(steps)])
    p[-1] = 1.0
    return Solution(
        problem=problem, p=p, representations=A, momenta=B, weights=weights, objective=J, loss=loss,
        parameter_norm=norm, success=success, status=status, message=message or str(status),
        nit=nit, residuals={**own, **(residuals or {})}, history=history, seconds=seconds,
        method=method, integrator=integrator, steps=steps, kinks=kinks, extra=extra or {},
    )


def boundary_residual(problem: TrainingProblem, A: NDArray, B: NDArray) -> float:
    """Largest violation of the two boundary conditions: A_0 = PXᵀ, and B_1 (or A_1) as prescribed.

    The endpoint condition is relative: ‖B_1 − B(A_1)‖_F / max(1, ‖B_1‖_F), or with a hard endpoint
    ‖A_1 − endpoint‖_F / max(1, ‖endpoint‖_F).
    """
    start = np.linalg.norm(A[0] - problem.initial_state) / max(
        1.0, np.linalg.norm(problem.initial_state))
    if problem.hard_endpoint:
        end = np.linalg.norm(A[-1] - problem.endpoint) / max(1.0, np.linalg.norm(problem.endpoint))
    else:
        B_end = ham.terminal_momentum(A[-1], problem.readout, problem.targets, problem.weight_decay)
        end = np.linalg.norm(B[-1] - B_end) / max(1.0, np.linalg.norm(B_end))
    return float(max(start, end))


def collapsed(problem: TrainingProblem, endpoint: NDArray, loss: float) -> bool:
    """Whether a network ends at the trivial solution A_1 ≈ 0, whose loss is ‖Y‖²/N."""
    if problem.hard_endpoint:
        return False
    output = np.linalg.norm(problem.readout @ endpoint)
    small = output <= COLLAPSE_FRACTION * np.linalg.norm(problem.targets)
    return bool(small and loss >= (1 - 2 * COLLAPSE_FRACTION) * problem.trivial_objective)


# -- quantities along a path -----------------------------------------------------------------------


def path_hamiltonian(solution: Solution) -> NDArray:
    """H at (A_{ℓ−1}, B_ℓ) over Euler layers, shape (L,); else at the nodes, shape (M,).

    The optimality system of the Euler network is symplectic Euler: only at these mixed points does
    its Hamiltonian converge at first order with a constant to leading order. σ is that of the path
    (`Solution.activation`): a smoothed path conserves the smoothed H, and no other.
    """
    A, B = _pairs(solution)
    return np.array([ham.hamiltonian(a, b, **_settings(solution))
                     for a, b in zip(A, B, strict=True)])


def energies_along(solution: Solution, gamma0: float) -> energies.PathEnergies:
    """Energies at the points of `path_hamiltonian`, with the velocity the path really has."""
    problem, (A, B) = solution.problem, _pairs(solution)
    if solution.integrator == "euler":
        V = np.diff(solution.representations, axis=0) / solution.steps[:, None, None]
        p = solution.p[:-1]
    else:
        V, p = None, solution.p
    return energies.path_energies(p, A, B, effective_depth=problem.effective_depth,
                             activation=solution.activation, bias=problem.bias, gamma0=gamma0,
                             velocities=V)


def interpolate(solution: Solution, p: float | NDArray) -> PathPoint:
    """The path at depth p.

    Over Euler layers A is linear within a step, as the scheme itself has it, B linear between nodes
    and W constant over a layer. Over RK4 layers W is constant too, and A and B are cubic Hermite
    with the slopes that this W gives them. On a continuous path A and B are those of the
    Hamiltonian flow, integrated to 1e-12 from the nodes on either side, and W = L̃Bσ̂(A)ᵀ, with the
    σ of the path (`Solution.activation`): as exact between the nodes as at them.

    Raises
    ------
    ValueError
        If p lies outside [0, 1].
    """
    p = np.asarray(p, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p: expected depths in [0, 1], got {p.min():g} to {p.max():g}")
    flat = np.atleast_1d(p)
    nodes, A, B = solution.p, solution.representations, solution.momenta
    k = np.clip(np.searchsorted(nodes, flat, side="right") - 1, 0, len(nodes) - 2)
    t = (flat - nodes[k])[:, None, None] / np.diff(nodes)[k][:, None, None]
    if solution.integrator == "euler":
        at_A, at_B = (1 - t) * A[k] + t * A[k + 1], (1 - t) * B[k] + t * B[k + 1]
        W = solution.weights[k]
    elif solution.steps is not None:
        at_A, at_B = _hermite_path(solution, k, t)
        W = solution.weights[k]
    else:
        at_A, at_B = _flow_between(solution, k, t, flat)
        W = np.array([ham.control(a, b, **_settings(solution))
                      for a, b in zip(at_A, at_B, strict=True)])
        W = W.reshape(len(flat), *solution.problem.control_shape)
    if p.ndim == 0:
        return PathPoint(p, at_A[0], at_B[0], W[0])
    return PathPoint(p, at_A, at_B, W)


def _flow_between(
    solution: Solution, k: NDArray, t: NDArray, p: NDArray
) -> tuple[NDArray, NDArray]:
    """A and B at depths p (K,) by the flow: forwards from node k, backwards from node k + 1.

    The two agree on a path that solves the flow; mixed by the fraction t of the interval they stay
    continuous on one that does not (a solver stopped early), and meet every node. Where the flow
    breaks down, the cubic. At most one interval is integrated for each depth and side.
    """
    from hamshoot.flow import HamiltonianFlow

    problem, nodes = solution.problem, solution.p
    flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth,
                           solution.activation, problem.bias)
    states = np.stack([solution.representations, solution.momenta], axis=1)
    order = np.argsort(p, kind="stable")  # the step of one segment is the first guess of the next
    sides = []
    for node in (k[order], k[order] + 1):
        ends, _ = flow(nodes[node], p[order], states[node].reshape(-1, flow.size))
        side = np.empty((len(p), *states.shape[1:]))
        side[order] = ends.reshape(side.shape)
        sides.append(side)
    left, right = sides
    t = t[:, None]
    mixed = (1 - t) * np.where(t == 1, 0.0, left) + t * np.where(t == 0, 0.0, right)
    for one, other in ((left, right), (right, left)):
        lost = ~np.isfinite(one).all((1, 2, 3))
        mixed[lost] = other[lost]
    lost = ~np.isfinite(mixed).all((1, 2, 3))
    if lost.any():
        mixed[lost] = np.stack(_hermite_path(solution, k[lost], t[lost, 0]), axis=1)
    return mixed[:, 0], mixed[:, 1]


def _hermite_path(solution: Solution, k: NDArray, t: NDArray) -> tuple[NDArray, NDArray]:
    """A and B by the cubics with the slopes at the ends of intervals k, at fractions t."""
    h, A, B = np.diff(solution.p)[k][:, None, None], solution.representations, solution.momenta
    left, right = _end_slopes(solution)
    return (_hermite(t, h, A[k], A[k + 1], left[0][k], right[0][k]),
            _hermite(t, h, B[k], B[k + 1], left[1][k], right[1][k]))


def _end_slopes(solution: Solution) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """∂_pA and ∂_pB at the left and the right end of every interval, each (M−1, w, N)."""
    problem, A, B = solution.problem, solution.representations, solution.momenta
    if solution.steps is None:
        flows = [ham.flow(a, b, **_settings(solution)) for a, b in zip(A, B, strict=True)]
        dA, dB = (np.array(part) for part in zip(*flows, strict=True))
        return (dA[:-1], dB[:-1]), (dA[1:], dB[1:])
    L_tilde, W = problem.effective_depth, solution.weights

    def slopes(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
        S = np.array([ham.augmented(x, problem.sigma, problem.bias) for x in a])
        pull = np.swapaxes(W[:, :, : problem.width], 1, 2) @ b
        return W @ S - L_tilde * a, L_tilde * b - problem.sigma.slope(a) * pull

    return slopes(A[:-1], B[:-1]), slopes(A[1:], B[1:])


def _hermite(t, h, left, right, left_slope, right_slope) -> NDArray:
    """Cubic with given values and slopes at t = 0 and 1 of an interval of length h."""
    return ((1 + 2 * t) * (1 - t) ** 2 * left + t**2 * (3 - 2 * t) * right
            + h * t * (1 - t) * ((1 - t) * left_slope - t * right_slope))


def _settings(solution: Solution) -> dict[str, Any]:
    problem = solution.problem
    return {"effective_depth": problem.effective_depth, "activation": solution.activation,
            "bias": problem.bias}


def _pairs(solution: Solution) -> tuple[NDArray, NDArray]:
    if solution.integrator == "euler":
        return solution.representations[:-1], solution.momenta[1:]
    return solution.representations, solution.momenta


# -- single steps ----------------------------------------------------------------------------------


def _euler_step(problem: TrainingProblem, A: NDArray, W: NDArray, rho: float) -> NDArray:
    S = ham.augmented(A, problem.sigma, problem.bias)
    return (1 - rho * problem.effective_depth) * A + rho * W @ S


def _euler_adjoint(problem, A, W, rho, B, slope=None) -> tuple[NDArray, NDArray]:
    """Costate at the left node, and Bσ̂(A)ᵀ."""
    slope = problem.sigma.slope(A) if slope is None else slope
    S = ham.augmented(A, problem.sigma, problem.bias)
    left = (1 - rho * problem.effective_depth) * B + rho * slope * (W[:, : problem.width].T @ B)
    return left, B @ S.T


def _rk4_stages(problem, A, W, rho) -> tuple[list[NDArray], list[NDArray], NDArray]:
    """Stage points, stage velocities and the increment of one RK4 step with W constant."""
    points, velocities = [], []
    for share in (0.0, 0.5, 0.5, 1.0):
        x = A + share * rho * velocities[-1] if velocities else A
        points.append(x)
        S = ham.augmented(x, problem.sigma, problem.bias)
        velocities.append(-problem.effective_depth * x + W @ S)
    k1, k2, k3, k4 = velocities
    return points, velocities, rho / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _rk4_adjoint(problem, A, W, rho, B, slope=None) -> tuple[NDArray, NDArray]:
    """Exact adjoint of one RK4 step; the product is the stage average of Bσ̂(A)ᵀ."""
    if slope is not None:
        raise ValueError("slopes: chosen slopes are for Euler layers only")
    points, _, _ = _rk4_stages(problem, A, W, rho)
    left, product, behind = B.copy(), 0.0, np.zeros_like(B)
    for x, weight, share in zip(
        points[::-1], (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 1.0, 0.5, 0.5), strict=True
    ):
        # k is the costate of this stage's velocity, over ρ; `behind` that of the next point.
        k = weight * B + share * behind
        product = product + k @ ham.augmented(x, problem.sigma, problem.bias).T
        behind = rho * (-problem.effective_depth * k
                        + problem.sigma.slope(x) * (W[:, : problem.width].T @ k))
        left = left + behind
    return left, product
