"""Derivatives of geodesics: the linearised two-point problem, by the exact Newton factors.

A geodesic solves φ_k(y_k; θ) = y_{k+1}, g(y_0, y_S; θ) = 0 with y = (A, B) and φ_k the Hamiltonian
flow over segment k. Its derivative d = dy/dθ solves the Newton system of these equations once more,

    Φ_k d_k − d_{k+1} = −∂φ_k/∂θ,     ∂g/∂y_0 d_0 + ∂g/∂y_S d_S = −∂g/∂θ,

with the Φ_k of the accurate flow. λ, targets, inputs and weights of samples enter g alone. L̃ is a
factor of the flow, so that ∂φ_k/∂L̃ is the velocity at the end of the segment times its length over
L̃. ε enters σ: `hamshoot.derivatives.smoothing`. Then dW = d(L̃Bσ̂(A)ᵀ), and, with R = QA_1 − Yᵀ,

    θ      dJ*/dθ (envelope theorem)          d²J*/dθ²
    ω      (1/N)‖R_s‖² of sample s            (2/N) Σ_s D_s⟨R_s, Q dA_1,s⟩
    Y      −(2/N) R                           −(2/N)⟨Q dA_1 − D, D⟩
    X      −λ PᵀB_0                           −λ⟨dB_0, PD⟩
    λ      ∫‖W‖²/(2L̃) dp                      ⟨B_1, dA_1⟩
    L̃      −λH/L̃                              −(λ/L̃)(⟨∂_pA, dB⟩ − ⟨∂_pB, dA⟩), at any p
    ε      −λ∫∂_εH dp                         −λ∫ d(∂_εH)/dε dp

D is the direction of an array. (For λ: ∫‖W‖²/(2L̃) = (J* − C)/λ, and dJ*/dλ is that integral, so
that its derivative is −(dC/dλ)/λ = ⟨B_1, dA_1⟩. A hard endpoint makes it 0, and λ moves nothing.)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.bvp.linear_algebra import ExactSystems
from hamshoot.bvp.mesh import Mesh, Stop
from hamshoot.derivatives.parameters import value_of
from hamshoot.derivatives.result import NoDerivative, Sensitivity, direction_of, parameter
from hamshoot.derivatives.smoothing import carried, slope_by_epsilon
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.indirect.equations import ModelSystem, ShootingProblem
from hamshoot.methods.indirect.state_form import exact_ends
from hamshoot.optimality.second_order_path import path_second_order
from hamshoot.solution.status import Status
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: Up to this 2wN the factors are dense; beyond, systems are solved by GMRES on tangents.
MAX_DENSE = 160
#: Residual of the linear system, relative to its right-hand side, that refinement stops at, and
#: its most rounds.
EXACT, ROUNDS = 1e-13, 6
#: Above this residual it counts as not solved.
UNSOLVED = 1e-7
#: Shooting residuals of what may be differentiated.
STATIONARY = 1e-6
#: A least pivot of the second variation above this is not looked at further.
CLEAR = 0.1


def geodesic_sensitivity(solution: Solution, of: str, direction: Any = None) -> Sensitivity:
    """Derivatives of a geodesic and of its J by a parameter.

    Parameters
    ----------
    solution : Solution
        A continuous path that converged, of a smooth or linear activation, of plain ReLU whose
        activations cross their kinks, or of a ReLU network smoothed with its ε (SMOOTHED), which is
        then the network that is differentiated.
    of : {"weight_decay", "effective_depth", "targets", "inputs", "sample_weights", "epsilon"}
    direction : array_like, optional
        Of an array: (N, d_out), (N, d_in) or (N,), in the scaled units in which the network works
        (`problem.targets.T`); the scaling stays that of the problem. Without it there is dJ*/dθ
        alone.

    Returns
    -------
    Sensitivity
        `states`, `momenta` and `weights` at the nodes p. `interval` is (−∞, ∞) but for plain ReLU,
        where it ends where, to first order, an activation that keeps its sign reaches its kink at
        a node. In `extra`: "second_drift" for L̃, how far d²J* differs along p, where it is
        constant; "end_mismatch" for ε, how far dy integrated over a segment misses the next node,
        over the largest dy.

    Raises
    ------
    NoDerivative
        A ValueError, for what has no such derivative, in a sentence: layers, a path that did not
        converge, one whose second variation is not positive (a saddle) or singular, a plain ReLU
        path that slides along its kink; ε of an activation without, targets and weights of samples
        where the endpoint is prescribed.
    ValueError
        For an `of` or a direction that there is not.

    Notes
    -----
    One factorisation of the second variation's model, and, for n = 2wN ≤ 160, Φ in n tangents of
    the flow and 20 S n³ flops; beyond, 4 to 8 tangents a round of GMRES, two or three rounds.
    """
    _check(solution, parameter(of))
    shooting = shooting_of(solution)
    t, y = solution.p, np.stack([solution.representations, solution.momenta], axis=1)
    verdict = _check_minimum(solution, shooting, y)
    theta = _theta(solution, of)
    along = direction_of(of, direction, np.shape(theta))
    common: dict[str, Any] = dict(of=of, theta=theta, direction=along, p=t,
                                  value=solution.objective)
    rate = _envelope(solution, of, y)
    if along is None:
        return Sensitivity(**common, objective=rate, along=None, second=None, weights=None,
                           states=None, momenta=None, how=_how(solution, verdict, ""))
    source, ends = _right_hand_side(solution, of, along, y)
    system = Linearised(shooting, t, y)
    d = system.solve(source, ends)
    second, extra = _second(solution, of, along, y, d)
    interval, changes = _interval(solution, d)
    return Sensitivity(
        **common, objective=rate, along=float(np.sum(rate * np.asarray(along))), second=second,
        weights=_controls_moved(solution, of, d), states=d[:, 0], momenta=d[:, 1],
        interval=interval, changes=changes, residual=system.residual,
        how=_how(solution, verdict, system.how), extra=extra)


# -- what may be differentiated --------------------------------------------------------------------


def _check(solution: Solution, of: str) -> None:
    """Refuse what is no geodesic, or does not depend on the parameter."""
    problem = solution.problem
    if solution.steps is not None:
        raise NoDerivative(f"solution: expected a continuous path, got {solution.layers} layers")
    if not solution.success or solution.status not in (Status.CONVERGED, Status.SMOOTHED):
        raise NoDerivative(
            f"sensitivity: expected a path that converged, got one that ended as "
            f"{solution.status.name.lower()}; what is no optimum has no derivative by {of}")
    if problem.hard_endpoint and of in ("targets", "sample_weights"):
        raise NoDerivative(f"of: {of} do not enter a problem whose endpoint is prescribed")
    if of == "epsilon" and solution.activation.name != "smooth_relu":
        raise NoDerivative(
            f"of: epsilon is that of a smooth ReLU, and this path obeys {solution.activation.name}")


def shooting_of(solution: Solution) -> ShootingProblem:
    """The boundary value problem that the path solves, by the flow at its most accurate."""
    problem = solution.problem
    flow = HamiltonianFlow(problem.width, problem.n_samples, problem.effective_depth,
                           solution.activation, problem.bias, rtol=1e-13, atol=1e-14,
                           max_steps=10_000)
    return ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                           problem.weight_decay, problem.endpoint)


def _check_minimum(solution: Solution, shooting: ShootingProblem, y: NDArray) -> str:
    """Refuse what does not solve the flow, or is no strict minimum; says what it is.

    The model of the Newton systems on the mesh of the path decides where its pivots are clear,
    else the second-order test of paths.
    """
    t = solution.p
    defects = shooting.defects(t, y)
    if not np.all(np.isfinite(defects)):
        raise NoDerivative(f"sensitivity: {shooting.why_lost(t, y)} on the path, so that it has no "
                           "derivative; smooth the ReLU (activation 'smooth_relu')")
    size = np.maximum(np.abs(y).max((0, 2, 3)), 1e-300)
    lack = max(float((np.abs(defects).max((0, 2, 3)) / size).max()),
               *(float(np.abs(g).max() / s) for g, s in
                 zip(shooting.boundary(y), _end_sizes(shooting, size), strict=True)))
    if not lack <= STATIONARY:
        raise NoDerivative(f"sensitivity: expected a path that solves its flow and ends to "
                           f"{STATIONARY:g}, got residuals of {lack:.1e}")
    try:
        model, _ = shooting.newton_system(t, y, "auto", 1e6 * float(size[1] / size[0]))
        if model.definite and model.least > CLEAR:
            return "the second variation is positive on its mesh"
    except np.linalg.LinAlgError:
        pass

    def states(p: NDArray) -> tuple[NDArray, NDArray]:
        point = solution.at(p)
        return point.representations, point.momenta

    verdict = path_second_order(solution.problem, solution.activation, states, t).verdict
    if verdict.startswith("strict local minimum"):
        return verdict
    raise NoDerivative("sensitivity: expected a strict local minimum, whose second variation is "
                       f"positive; the second-order test says {verdict}")


def _end_sizes(shooting: ShootingProblem, size: NDArray) -> NDArray:
    """Units of what the two ends lack: A, and B (or A again)."""
    return size if shooting.endpoint is None else size[[0, 0]]


# -- θ, and dJ*/dθ ---------------------------------------------------------------------------------


def _theta(solution: Solution, of: str) -> float | NDArray:
    """θ: of a smoothed ReLU its own ε, else that of the problem in scaled units."""
    return solution.activation.epsilon if of == "epsilon" else value_of(solution.problem, of)


def _envelope(solution: Solution, of: str, y: NDArray) -> Any:
    """dJ*/dθ in scaled units, of θ's shape."""
    problem, N = solution.problem, solution.problem.n_samples
    leak, decay = problem.effective_depth, problem.weight_decay
    if of == "weight_decay":
        return solution.parameter_norm / (2 * leak)
    if of == "effective_depth":
        return -decay * float(np.mean(solution.hamiltonian)) / leak
    if of == "inputs":
        return -decay * (problem.lift.T @ y[0, 1]).T
    if of == "epsilon":
        return -decay * carried(solution.p, y[:-1], np.zeros_like(y[:-1]),
                                **_settings(solution)).rate
    lack = problem.readout @ y[-1, 0] - problem.targets
    return -2 / N * lack.T if of == "targets" else np.sum(lack**2, axis=0) / N


# -- dA, dB, dW ------------------------------------------------------------------------------------


class Linearised:
    """The Newton system of the shooting equations at a geodesic, for right-hand sides.

    Attributes
    ----------
    residual : float
        Of the last solve, relative to its right-hand side, scaled.
    how : str
        The factors, in words.
    """

    def __init__(self, shooting: ShootingProblem, t: NDArray, y: NDArray) -> None:
        self.shape, n = y.shape[1:], y[0].size
        size = np.abs(y).max((0, 2, 3))
        self.scale = np.repeat(np.where(size > 0, size, 1.0), n // 2)
        mesh = Mesh(shooting.flow, exact_ends(shooting), 1e3, len(t))
        dense = n <= MAX_DENSE
        penalty = 1e6 * float(self.scale[-1] / self.scale[0])
        approximate = partial(ModelSystem, shooting, form="auto", penalty=penalty)
        systems = ExactSystems(mesh, preconditioner=None if dense else approximate)
        try:
            self.point, self.solver, _ = systems.linearise(mesh.given(t, y.reshape(len(t), n)),
                                                           self.scale)
        except Stop as stop:
            raise NoDerivative("sensitivity: the linearised two-point problem cannot be solved: "
                               f"{stop.end.status.value} {stop.end.detail}".rstrip()) from None
        self.products = mesh.products(self.point)
        self.residual = float("nan")
        kind = "orthogonal factors of" if dense else "GMRES on"
        self.how = f"{kind} the exact Newton matrix, {len(t) - 1} segments of 2wN = {n}"

    def solve(self, source: NDArray, ends: NDArray) -> NDArray:
        """Solve Φ_k d_k − d_{k+1} = −source_k, (S, 2, w, N), with g′d = ends, (2, w, N).

        The residual is that of tangents of the flow, whatever the factors; a few refinements take
        it to rounding.

        Raises
        ------
        NoDerivative
            Where it stays above 1e-7.
        """
        r, g = -source.reshape(len(source), -1), ends.ravel()
        d, best, point = np.zeros((len(r) + 1, r.shape[1])), np.inf, self.point
        whole = self._size(r, g)
        if whole <= 1e-300:  # λ moves nothing between given ends
            self.residual = 0.0
            return np.zeros((len(d), *self.shape))
        for _ in range(ROUNDS):
            carried_on = self.products(d[:-1])
            left = r - (carried_on - d[1:]), g - (point.ga @ d[0] + point.gb @ d[-1])
            size = self._size(*left) / whole
            if not size < 0.5 * best:
                break
            best, kept = size, d
            if best <= EXACT:
                break
            d = d + self.solver.solve(*left)
        self.residual = best
        if not best <= UNSOLVED:
            raise NoDerivative("sensitivity: the linearised two-point problem was solved only to "
                               f"{best:.1e} of its right-hand side; it is nearly singular, or the "
                               "mesh is too coarse (more segments help)")
        return kept.reshape(-1, *self.shape)

    def _size(self, r: NDArray, g: NDArray) -> float:
        return max(float(np.abs(r / self.scale).max()), float(np.abs(g / self.scale).max()), 1e-300)


def _right_hand_side(
    solution: Solution, of: str, step: Any, y: NDArray
) -> tuple[NDArray, NDArray]:
    """∂φ_k/∂θ, (S, 2, w, N), and −∂g/∂θ, (2, w, N), along the direction."""
    problem = solution.problem
    source, ends = np.zeros_like(y[1:]), np.zeros_like(y[0])
    if of == "effective_depth":
        lengths = np.diff(solution.p)[:, None, None, None]
        source = lengths / problem.effective_depth * _velocities(solution, y[1:])
    elif of == "epsilon":
        source = carried(solution.p, y[:-1], np.zeros_like(source), **_settings(solution)).moved
    elif of == "inputs":
        ends[0] = problem.lift @ step.T
    elif not problem.hard_endpoint:
        ends[1] = _end_moved(problem, of, step, y[-1])
    return source, ends


def _end_moved(problem: TrainingProblem, of: str, step: Any, end: NDArray) -> NDArray:
    """The derivative of −(2/(λN)) Qᵀ(QA_1 − Yᵀ)ω along the direction, A_1 as it is."""
    share = 2 / (problem.weight_decay * problem.n_samples)
    lack = problem.readout @ end[0] - problem.targets
    if of == "targets":
        return share * problem.readout.T @ step.T
    if of == "sample_weights":
        return -share * problem.readout.T @ (lack * step)
    return share / problem.weight_decay * problem.readout.T @ lack


def _controls_moved(solution: Solution, of: str, d: NDArray) -> NDArray:
    """dW = d(L̃Bσ̂(A)ᵀ) at the nodes."""
    problem, sigma = solution.problem, solution.activation
    leak, w = problem.effective_depth, problem.width
    moved = np.zeros_like(solution.weights)
    for k, (A, B) in enumerate(zip(solution.representations, solution.momenta, strict=True)):
        features = ham.augmented(A, sigma, problem.bias)
        change = sigma.slope(A) * d[k, 0]
        if of == "epsilon":
            change = change + slope_by_epsilon(A, sigma.epsilon)
        moved[k] = leak * d[k, 1] @ features.T
        moved[k, :, :w] += leak * B @ change.T
        if of == "effective_depth":
            moved[k] += B @ features.T
    return moved


# -- d²J*, and how far it goes ---------------------------------------------------------------------


def _second(
    solution: Solution, of: str, step: Any, y: NDArray, d: NDArray
) -> tuple[float, dict[str, float]]:
    """d²J* along the direction, and what checks it."""
    problem, N = solution.problem, solution.problem.n_samples
    leak, decay = problem.effective_depth, problem.weight_decay
    if of == "weight_decay":
        return float(np.sum(y[-1, 1] * d[-1, 0])), {}
    if of == "effective_depth":
        field = _velocities(solution, y)
        rates = np.sum(field[:, 0] * d[:, 1] - field[:, 1] * d[:, 0], axis=(1, 2))
        values = -decay / leak * rates
        drift = float(np.ptp(values) / max(abs(np.median(values)), 1e-300))
        return float(np.median(values)), {"second_drift": drift}
    if of == "epsilon":
        along = carried(solution.p, y[:-1], d[:-1], **_settings(solution))
        size = np.maximum(np.abs(d).max((0, 2, 3)), 1e-300)[:, None, None]
        apart = float((np.abs(along.moved - d[1:]) / size).max())
        return -decay * along.second, {"end_mismatch": apart}
    if of == "inputs":
        return float(-decay * np.sum(d[0, 1] * (problem.lift @ step.T))), {}
    change = problem.readout @ d[-1, 0]
    if of == "targets":
        return float(-2 / N * np.sum((change - step.T) * step.T)), {}
    lack = problem.readout @ y[-1, 0] - problem.targets
    return float(2 / N * np.sum(step * np.sum(lack * change, axis=0))), {}


def _velocities(solution: Solution, y: NDArray) -> NDArray:
    """(∂_pA, ∂_pB) at states (K, 2, w, N)."""
    return np.array([np.stack(ham.flow(*one, **_settings(solution))) for one in y])


class _Reached(NamedTuple):
    """The first t on one side at which an entry reaches its kink, and which."""

    t: float
    words: str


def _interval(
    solution: Solution, d: NDArray
) -> tuple[tuple[float, float], tuple[str, str]]:
    """Where to first order no further activation of a plain ReLU path reaches its kink."""
    endless = ((-np.inf, np.inf), ("", ""))
    A, a = solution.representations[1:], d[1:, 0]
    if solution.activation.name != "relu":
        return endless
    keeps = (A > 0).all(0) | (A < 0).all(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(keeps & (a != 0), -A / a, np.inf)
    sides = []
    for sign in (-1.0, 1.0):
        ahead = np.where(sign * reach > 0, np.abs(reach), np.inf)
        k, i, j = np.unravel_index(int(np.argmin(ahead)), ahead.shape)
        t = float(ahead[k, i, j])
        words = f"neuron {i} of sample {j} reaches its kink near p = {solution.p[k + 1]:.3g}"
        sides.append(_Reached(sign * t, words if np.isfinite(t) else ""))
    return (sides[0].t, sides[1].t), (sides[0].words, sides[1].words)


def _settings(solution: Solution) -> dict[str, Any]:
    problem = solution.problem
    return {"effective_depth": problem.effective_depth, "activation": solution.activation,
            "bias": problem.bias}


def _how(solution: Solution, verdict: str, system: str) -> str:
    """What was differentiated, and with what."""
    epsilon, problem = solution.activation.epsilon, solution.problem
    what = "a geodesic"
    if epsilon and problem.activation == "relu":
        what = f"a geodesic of the network smoothed with ε = {epsilon:.3g}, not of the ReLU itself"
    elif problem.activation == "relu":
        what = "a geodesic of the plain ReLU flow, its crossings moving along"
    by = f"; by {system}" if system else "; by the envelope theorem"
    return f"{what} ({verdict}){by}"
