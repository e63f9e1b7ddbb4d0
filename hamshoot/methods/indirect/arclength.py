"""Geodesics followed through folds: pseudo-arclength in λ, L̃ or ε.

Where a branch of geodesics ends, continuation in the parameter has no solution to go on to, however
short its steps. Often the branch has only turned: at a fold a minimum meets a saddle, and the curve
goes on, backwards in the parameter, as geodesics that are no minima, perhaps to a second fold and
to another branch of minima. It is followed by `hamshoot.bvp.arclength`, with the states (A, B, μ),
μ = ln θ, of the accurate flow with exact Jacobians in (A, B); by μ the flow of L̃ and of ε is
differentiated by central differences. λ is in the end condition alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.bvp.arclength import Curve, OnCurve, follow
from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.watch import Stop, Watch
from hamshoot.methods.indirect.continuation import Path, Stage, hamiltonians
from hamshoot.methods.indirect.method import IndirectShooting
from hamshoot.methods.indirect.result import solution_of
from hamshoot.methods.indirect.stage_solver import ShootingOptions, StageSolver
from hamshoot.methods.indirect.state_form import by_entries
from hamshoot.problem.activations import WITH_EPSILON
from hamshoot.solution.solution import Callback, Solution, Status
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Parameters that a geodesic is followed in, in the order of `Stage`.
PARAMETERS = ("effective_depth", "weight_decay", "epsilon")
#: w·N up to which it is: a system has 2wN + 1 states, and is cubic in them.
LARGEST_NODE = 40
#: Relative change of θ by which the flow is differentiated, and between the first two solutions.
DIFFERENCE, BEGIN = 1e-4, 1e-3
#: Beyond that |μ| is no parameter's.
LARGEST_LOG = 100.0
#: Steps, and how far beyond where it begins and where it is to end the curve is followed, as a
#: factor on θ.
STEPS, BEYOND = 120, 10.0
#: Longest step in ln θ, and most steps of the integration of a segment: what needs more is lost.
MOST_CHANGE, SEGMENT_STEPS = 0.5, 60


class GeodesicPoint(NamedTuple):
    """A geodesic of the curve."""

    value: float
    """θ."""
    objective: float
    hamiltonian: float
    bottleneck_rank: float
    minimum: bool
    """Whether its second variation is positive, as its mesh tells."""


@dataclass(frozen=True)
class GeodesicCurve:
    """Geodesics along a curve in one parameter.

    Attributes
    ----------
    parameter : str
    points : tuple of GeodesicPoint
        In the order of the curve.
    folds : tuple of int
        Which of them are folds.
    reason : str
        Why it ends: "target", "window", "steps", "failed", "time limit" or "stopped".
    end : Solution or None
        At the target, where it was reached.
    """

    parameter: str
    points: tuple[GeodesicPoint, ...]
    folds: tuple[int, ...]
    reason: str
    end: Solution | None = None


def follow_geodesic(
    solution: Solution, parameter: str, target: float, callback: Callback | None = None,
    time_limit: float | None = None,
) -> GeodesicCurve:
    """The curve of geodesics from one towards a value of a parameter, through folds.

    Parameters
    ----------
    solution : Solution
        A converged geodesic of a smooth or linear network, also one above the trivial objective.
    parameter : {"effective_depth", "weight_decay", "epsilon"}
        θ; what else the problem has stays.
    target : float
        Where it ends, the first time the curve comes by. It may turn back before that, and is left
        where it comes to a tenth of the least or ten times the largest of both values.
    callback : callable, optional
        Receives a `Record` for each geodesic; returning True stops.
    time_limit : float, optional
        Seconds.

    Returns
    -------
    GeodesicCurve

    Raises
    ------
    ValueError
        For a solution that is no geodesic, of a plain ReLU, with more than LARGEST_NODE numbers in
        a state, and a parameter it has not.
    """
    _check(solution, parameter, target)
    run = _Curves(solution, parameter, Watch(callback, time_limit))
    return run.curve(float(target))


def can_follow(problem: TrainingProblem, parameter: str) -> bool:
    """Whether geodesics of a problem are followed in a parameter; the flow has to be smooth."""
    return parameter in PARAMETERS and not problem.sigma.kinked \
        and problem.sigma.compiled and problem.width * problem.n_samples <= LARGEST_NODE \
        and not (parameter == "epsilon" and problem.sigma.name not in WITH_EPSILON)


def _check(solution: Solution, parameter: str, target: float) -> None:
    if parameter not in PARAMETERS:
        raise ValueError(f"parameter: expected one of {', '.join(PARAMETERS)}, got {parameter!r}")
    if solution.integrator != "flow" or not (
            solution.success or solution.status in (Status.ABOVE_TRIVIAL, Status.COLLAPSED)):
        raise ValueError("solution: expected a converged geodesic, got a solution by "
                         f"{solution.method} with status {solution.status.name}")
    problem = solution.problem
    if not can_follow(problem, parameter):
        raise ValueError(
            f"solution: a geodesic is followed in {parameter} where its activation is smooth, has "
            f"one, and width times samples is at most {LARGEST_NODE}, got {problem!r}")
    if not (np.isfinite(target) and target > 0):
        raise ValueError(f"target: expected a finite number > 0, got {target!r}")


class _ParameterFlow:
    """Flow of (A, B, μ), μ = ln θ; a `hamshoot.bvp.records.Flow`."""

    def __init__(self, solver: StageSolver, start: Stage, number: int):
        self.solver, self.start, self.number = solver, start, number
        self._flows: dict[float, HamiltonianFlow] = {}

    def stage(self, mu: float) -> Stage:
        """The stage at a μ."""
        return Stage(*(float(np.exp(mu)) if k == self.number else value
                       for k, value in enumerate(self.start)))

    def flow(self, mu: float) -> HamiltonianFlow:
        """The flow at a μ; the last few are kept."""
        if mu not in self._flows:
            if len(self._flows) > 8:
                self._flows.clear()
            flow = self.solver.shooting(self.stage(mu), accurate=True).flow
            flow.max_steps = SEGMENT_STEPS
            self._flows[mu] = flow
        return self._flows[mu]

    def __call__(self, t0: NDArray, t1: NDArray, y: NDArray, jacobian: bool = False
                 ) -> tuple[NDArray, NDArray | None]:
        """See `hamshoot.bvp.records.Flow`; nodes of one μ are integrated together."""
        ends = np.array(y)
        phi = np.zeros((*y.shape, y.shape[1])) if jacobian else None
        if not np.all(np.abs(y[:, -1]) < LARGEST_LOG):
            return np.full_like(ends, np.nan), phi
        rounded = np.round(y[:, -1], 13)  # nodes that differ by rounding share a flow
        for mu in np.unique(rounded):
            own = rounded == mu
            states, a, b = y[own, :-1], t0[own], t1[own]
            ends[own, :-1], by_states = self.flow(float(mu))(a, b, states, jacobian)
            if phi is None:
                continue
            block = np.zeros((len(states), y.shape[1], y.shape[1]))
            block[:, :-1, :-1] = by_states
            block[:, -1, -1] = 1.0
            if PARAMETERS[self.number] != "weight_decay":
                up, down = (self.flow(float(mu) + change)(a, b, states)[0]
                            for change in (DIFFERENCE, -DIFFERENCE))
                block[:, :-1, -1] = (up - down) / (2 * DIFFERENCE)
            phi[own] = block
        return ends, phi


class _Curves:
    """One call of `follow_geodesic`."""

    def __init__(self, solution: Solution, parameter: str, watch: Watch):
        self.problem, self.parameter, self.watch = solution.problem, parameter, watch
        self.options = picked(ShootingOptions, IndirectShooting())
        self.solver = StageSolver(self.options, self.problem, watch)
        problem = self.problem
        start = Stage(problem.effective_depth, problem.weight_decay, problem.sigma.epsilon)
        self.flow = _ParameterFlow(self.solver, start, PARAMETERS.index(parameter))
        self.path = Path(np.array(solution.p), np.stack([solution.representations,
                                                         solution.momenta], axis=1), start)
        self.known: dict[int, tuple[OnCurve, GeodesicPoint]] = {}
        watch.stage = f"curve in {parameter}"

    def curve(self, target: float) -> GeodesicCurve:
        """From the geodesic given to the target."""
        start = getattr(self.problem, self.parameter) if self.parameter != "epsilon" \
            else self.problem.sigma.epsilon
        here = self.on_curve(self.path, np.log(start))
        towards = float(np.sign(np.log(target / start))) or 1.0
        first = self.beside(here, np.log(start) + towards * BEGIN)
        if first is None:  # the fold is nearer than that: come from the other side
            back = self.beside(here, np.log(start) - towards * BEGIN)
            if back is None:
                return GeodesicCurve(self.parameter, (), (), "failed")
            before = back
        else:
            before, here = here, first

        def seen(point: OnCurve) -> bool:
            self.measured(point)
            return False

        values = sorted((start, target))
        try:
            found = follow(
                self.flow, self.boundary, before, here, target=float(np.log(target)),
                window=(np.log(values[0] / BEYOND), np.log(values[1] * BEYOND)),
                step=20 * self.span(before, here), most_mu=MOST_CHANGE, max_steps=STEPS,
                tol=1e-9, scale=self.scale(here), seen=seen)
        except Stop as stop:
            numbers = tuple(numbers for _, numbers in self.known.values())
            reason = "time limit" if stop.status is Status.TIME_LIMIT else "stopped"
            return GeodesicCurve(self.parameter, numbers, (), reason)
        return self.told(found)

    def told(self, found: Curve) -> GeodesicCurve:
        """Numbers of all that was found, and the geodesic at its end."""
        end = None
        if found.reason == "target":
            end = self.solution(found.points[-1])
        return GeodesicCurve(self.parameter, tuple(map(self.measured, found.points)),
                             tuple(found.folds), found.reason, end)

    def on_curve(self, path: Path, mu: float) -> OnCurve:
        """A path as states with the parameter."""
        y = path.y.reshape(len(path.t), -1)
        return OnCurve(path.t, np.column_stack([y, np.full(len(y), mu)]))

    def path_of(self, point: OnCurve) -> Path:
        """The path, at its stage."""
        y = point.z[:, :-1].reshape(len(point.t), 2, self.problem.width, self.problem.n_samples)
        return Path(point.t, y, self.flow.stage(point.mu))

    def beside(self, here: OnCurve, mu: float) -> OnCurve | None:
        """The geodesic at a μ nearby, by Newton's method from this one."""
        path = self.path_of(here)
        stage = self.flow.stage(mu)
        if not self.solver.solve(path._replace(stage=stage), stage, quick=True):
            return None
        assert self.solver.path is not None
        found = self.on_curve(self.solver.path, mu)
        moved = np.abs(interpolate(found.t, found.z, here.t) - here.z)[:, :-1].max(0)
        return found if np.all(moved < 0.1 * self.scale(here)[:-1]) else None

    def scale(self, here: OnCurve) -> NDArray:
        """Sizes of A, of B and of μ."""
        half = (here.z.shape[1] - 1) // 2
        sizes = [np.abs(part).max() or 1.0 for part in (here.z[:, :half], here.z[:, half:-1])]
        return np.concatenate([np.repeat(sizes, half), [1.0]])

    def span(self, a: OnCurve, b: OnCurve) -> float:
        """Distance of the scaled ends."""
        size = self.scale(b)
        gap = [(b.z[k] - a.z[k]) / size for k in (0, -1)]
        gap[1][-1] = 0.0
        return float(np.linalg.norm(gap))

    def boundary(self, za: NDArray, zb: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """A_0 and B_1 (or A_1) as they should be: 2wN conditions on 2wN + 1 numbers."""
        problem = self.problem
        n, half = za.size, za.size // 2
        shape = problem.initial_state.shape
        ga, gb = np.zeros((n - 1, n)), np.zeros((n - 1, n))
        ga[:half, :half] = np.eye(half)
        first = za[:half] - problem.initial_state.ravel()
        A, B = zb[:half].reshape(shape), zb[half:-1].reshape(shape)
        if problem.endpoint is not None:
            gb[half:, :half] = np.eye(half)
            return np.concatenate([first, (A - problem.endpoint).ravel()]), ga, gb
        if not abs(zb[-1]) < LARGEST_LOG:
            return np.full(n - 1, np.nan), ga, gb
        decay = self.flow.stage(float(zb[-1])).weight_decay
        wanted = ham.terminal_momentum(A, problem.readout, problem.targets, decay,
                                       problem.criterion)
        gb[half:, half:-1] = np.eye(half)
        gb[half:, :half] = by_entries(ham.terminal_curvature(
            A, problem.readout, problem.targets, decay, problem.criterion), shape[1])
        if self.parameter == "weight_decay":  # the momentum wanted goes as 1/λ
            gb[half:, -1] = wanted.ravel()
        return np.concatenate([first, (B - wanted).ravel()]), ga, gb

    def measured(self, point: OnCurve) -> GeodesicPoint:
        """J, H, rank and curvature of a geodesic; counts as an iteration, once."""
        if id(point) in self.known:
            return self.known[id(point)][1]
        path = self.path_of(point)
        shooting = self.solver.shooting(path.stage, accurate=True)
        shooting.defects(path.t, path.y)
        H = float(np.median(hamiltonians(shooting.flow, path.y)))
        loss = 0.0 if self.problem.hard_endpoint else float(
            ham.loss(path.y[-1, 0], self.problem.readout, self.problem.targets,
                     self.problem.criterion))
        objective = loss + path.stage.weight_decay * float(shooting.flow.energies.sum())
        numbers = GeodesicPoint(float(np.exp(point.mu)), objective, H,
                                ham.bottleneck_rank(H, path.stage.effective_depth),
                                self.solver.curvature(path)[0])
        self.known[id(point)] = point, numbers
        self.watch.record(objective)
        return numbers

    def solution(self, point: OnCurve) -> Solution | None:
        """The geodesic as a `Solution` of its own problem; SADDLE where it is no minimum.

        ABOVE_TRIVIAL where the network without weights is lower.
        """
        path = self.path_of(point)
        problem = self.problem.replace(**{self.parameter: float(np.exp(point.mu))})
        solver = StageSolver(self.options, problem, self.watch)
        if not solver.solve(path, path.stage):
            return None
        assert solver.path is not None
        definite, _ = solver.curvature(solver.path)
        status = Status.CONVERGED if definite else Status.SADDLE
        if definite and not problem.hard_endpoint and \
                solver.solved[-1][1] > discrete.trivial_objective(problem) * (1 + 1e-9):
            status = Status.ABOVE_TRIVIAL
        return solution_of(solver.path, solver, status, "Reached along a curve.", {})
