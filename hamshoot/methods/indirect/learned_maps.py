"""Geodesics whose lift and readout are learned: an outer iteration in the maps θ = (P, Q).

J*(θ), the least J for given maps, is what a geodesic for those maps has, and its derivative is
there for nothing (envelope theorem): ∂J*/∂P = μ_P P − λB_0X and ∂J*/∂Q = μ_Q Q + (∂C/∂z)A_1ᵀ. So
quasi-Newton steps in θ, each with a geodesic from the one before, lead to the joint extremal. The
curvature that they begin with is that of layers: the Schur complement of W in the joint Hessian of
the network that minimises J in W, P and Q together, which is the one of the path up to O(1/L); BFGS
updates do the rest.

That network comes from the search that all methods share, with the controls of the geodesic of
fixed maps among its starts, and an end above that geodesic is not taken. A kinked σ is smoothed to
the last ε throughout: the flow of the plain ReLU is not smooth in θ.

Each step costs the Newton iterations of a geodesic from a near one, 3 to 6; the curvature once the
joint Hessian at L layers and n³/3 flops.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.starts import weights_of, with_maps_of
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.indirect.first_network import LADDER, SETTLING, search_layers
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.learned_hessian import joint_second_derivatives
from hamshoot.methods.newton.reduced_hessian import expansion
from hamshoot.methods.search.basins import MEMORY, BasinOptions, BasinSearch
from hamshoot.methods.search.walk import LadderWalk
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.solution.solution import Callback, Record, Solution, Status
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Relative gradient in the maps that ends the iteration; most steps, and halvings of one.
TOL, STEPS, HALVINGS = 1e-9, 40, 8
#: Eigenvalues of the curvature below this share of the largest are those of turns, and left alone.
TURN = 1e-9
#: Relative rise of J that counts as rounding of two geodesics.
ROUNDING = 1e-9
#: Ends of a geodesic that are not to be gone on from.
ENDED = (Status.INTERRUPTED, Status.TIME_LIMIT, Status.MAX_ITER, Status.WORKERS_LOST)


@dataclass
class LearnedGeodesics:
    """One solve.

    Parameters
    ----------
    method : IndirectShooting
        Solves for given maps, with its options.
    problem : TrainingProblem
        Whose maps are where it begins.
    callback : callable or None

    Attributes
    ----------
    best : Solution or None
        The lowest geodesic so far, of the joint problem.
    layered : Solution or None
        Where it was stopped before there was one, the best network.
    """

    method: Any
    problem: TrainingProblem
    callback: Callback | None
    best: Solution | None = None
    layered: Solution | None = None
    fixed: Solution | None = None
    history: list[Record] = field(default_factory=list)
    steps_made: int = 0

    def __post_init__(self) -> None:
        self.began = time.perf_counter()
        self.smooth = self.problem
        if self.problem.sigma.kinked:
            sigma = self.problem.sigma.smoothed(self.method.epsilon_last)
            self.smooth = self.problem.replace(activation=sigma)

    def run(self, guess: Any = None) -> Solution:
        """The joint extremal, or the best on the way with the status that ended it."""
        try:
            ended, path = self._iterate(*self._begin(guess))
            if self._above(path) and self.fixed is not None and self.fixed.success:
                steps = equidistant_steps(self._layers())
                stack = learned.stacked(self.smooth, self._controls(self.fixed, steps))
                ended, path = self._iterate(
                    *learned.settled(self.smooth, self._descended(stack, steps)))
            ended = Status.STALLED if self._above(path) else ended
        except (Stop, KeyboardInterrupt) as stop:
            ended = stop.status if isinstance(stop, Stop) else Status.INTERRUPTED
            if self.best is None and self.layered is None:
                raise
        return self.layered if self.best is None and self.layered is not None else \
            self._told(ended)

    def _above(self, path: Solution) -> bool:
        """Whether another path was lower."""
        assert self.best is not None
        return not path.objective <= self.best.objective * (1 + ROUNDING)

    # -- where it begins ---------------------------------------------------------------------------

    def _begin(self, guess: Any) -> tuple[TrainingProblem, NDArray]:
        """The problem with maps to begin at, and controls (L, w, w+1) of a network there."""
        steps = equidistant_steps(self._layers())
        if guess is not None:
            at = with_maps_of(guess, self.smooth)
            first = self._geodesic(at, guess)
            stack = self._descended(learned.stacked(at, self._controls(first, steps)), steps)
        else:
            first = self._geodesic(self.smooth, None)
            self.fixed = first
            stack = self._searched(first, steps)
        return learned.settled(self.smooth, stack)

    def _layers(self) -> int:
        """Of the joint network."""
        return self.method.layers or search_layers(self.problem)

    def _controls(self, path: Solution, steps: NDArray) -> NDArray:
        """Controls on a mesh that follow a path."""
        return weights_of(path, path.problem.with_fixed_maps(), steps)

    def _searched(self, first: Solution, steps: NDArray) -> NDArray:
        """The end of the joint search."""
        watch, best = self._watch(), Best()
        settling = SETTLING[self.method.effort][self.problem.sigma.laddered]
        options = BasinOptions(
            seed=self.method.seed, start=self.method.start, starts=None, noise=None,
            epsilon=LADDER, reheats=None, effort=self.method.effort, workers=self.method.workers,
            max_iter=10**9, tol=1e-6, settling=settling)
        besides = [] if first.status in ENDED else \
            [learned.stacked(self.smooth, self._controls(first, steps))]
        with blas_threads(self.problem):
            basin = BasinSearch(options, self.smooth, steps, watch, best).run(besides)
        self.history += watch.history
        return self._descended(basin.weights, steps)

    def _descended(self, stack: NDArray, steps: NDArray) -> NDArray:
        """The joint minimum of the layered network, at the last ε."""
        watch = self._watch()
        with blas_threads(self.problem):
            walk = LadderWalk(self.smooth, steps, watch, tol=1e-9, max_iter=10**9,
                              stage_iter=5000, memory=MEMORY)
            walk.set_activation(self.smooth.sigma.epsilon)
            if exact_newton.affordable(self.smooth, len(steps)):
                stack = walk.to_tolerance(stack, "direct, learned maps")
            else:
                stack = walk.descend(stack, (self.smooth.sigma.epsilon,))
        self.history += watch.history
        return stack

    # -- the outer iteration -----------------------------------------------------------------------

    def _iterate(self, at: TrainingProblem, weights: NDArray) -> tuple[Status, Solution]:
        """Quasi-Newton steps in the maps; how they ended, and where."""
        inverse = self._inverse_curvature(at, weights)
        path = self._geodesic(at, weights)
        g = self._slope(path)
        while path.success and self._off(path) > TOL and self.steps_made < STEPS:
            self.steps_made += 1
            step, found = -inverse @ g, None
            for _ in range(HALVINGS):
                moved = self._moved(path.problem, step)
                trial = self._geodesic(moved, path)
                if trial.status in ENDED:
                    return trial.status, path
                if trial.success and trial.objective <= path.objective * (1 + ROUNDING):
                    found = trial
                    break
                step = 0.5 * step
            if found is None:
                return Status.STALLED, path
            change = self._slope(found) - g
            inverse = _updated(inverse, step, change)
            path, g = found, g + change
        if not path.success:
            return path.status, path
        return Status.CONVERGED if self._off(path) <= TOL else Status.STALLED, path

    def _inverse_curvature(self, at: TrainingProblem, weights: NDArray) -> NDArray:
        """Inverse of the Schur complement of W in the joint Hessian of J of the layers."""
        from scipy.linalg import solve

        steps = equidistant_steps(len(weights))
        size = learned.count(at, len(weights)) - weights.size
        if not exact_newton.affordable(at, len(weights)):
            scale = [np.full(M.size, 1 / mu) for mu, M in (
                (at.lift_decay, at.lift), (at.readout_decay, at.readout)) if mu is not None]
            return np.diag(np.concatenate(scale))
        A, B, _ = learned.scaled_gradient(at, learned.stacked(at, weights), steps)
        H, _ = joint_second_derivatives(at, expansion(at, A, B, weights, steps), A)
        m = len(H) - size
        # A touch of the weight decay: turns of a linear network leave H singular.
        inner = H[:m, :m] + 1e-12 * np.abs(np.diag(H)).max() * np.eye(m)
        schur = H[m:, m:] - H[m:, :m] @ solve(inner, H[:m, m:], assume_a="sym")
        values, vectors = np.linalg.eigh(0.5 * (schur + schur.T))
        largest = float(np.abs(values).max())
        kept = np.abs(values) > TURN * largest
        scaled = vectors[:, kept] / np.abs(values[kept])
        return scaled @ vectors[:, kept].T / at.weight_decay

    def _geodesic(self, at: TrainingProblem, guess: Any) -> Solution:
        """The geodesic for the maps of a problem, as a solution of the joint one."""
        left = self.method.time_limit
        if left is not None:
            left -= time.perf_counter() - self.began
            if left <= 0:
                raise Stop(Status.TIME_LIMIT)
        method = replace(self.method, time_limit=left)
        found = method.solve(at.with_fixed_maps(), initial_guess=guess, callback=self._numbered())
        self.history += found.history
        joint = at.with_maps(at.lift, at.readout)
        if found.steps is not None:  # stopped before there was a geodesic
            self.layered = solution_from_weights(
                self.problem.with_maps(at.lift, at.readout), found.weights, found.steps,
                status=found.status, success=False, message=found.message, method=found.method,
                nit=len(self.history), history=tuple(self.history), seconds=found.seconds)
            raise Stop(found.status)
        A, B = found.representations, found.momenta
        found = found.replace(
            problem=joint, objective=found.objective + joint.map_decay,
            residuals={**found.residuals, **learned.stationarities(joint, A, B)})
        if self.best is None or found.objective <= self.best.objective * (1 + ROUNDING):
            self.best = found
        return found

    def _slope(self, path: Solution) -> NDArray:
        """∂J*/∂θ."""
        return np.concatenate(learned.map_slopes(path.problem, path.representations[-1],
                                                 path.momenta[0]))

    def _moved(self, at: TrainingProblem, step: NDArray) -> TrainingProblem:
        """The problem with its learned maps moved."""
        empty = np.zeros((0, *at.control_shape))
        theta = learned.flat(at, empty, at.lift, at.readout) + step
        _, P, Q = learned.unflat(at, theta)
        return at.with_maps(P, Q)

    def _off(self, path: Solution) -> float:
        """The largest relative gradient in a map."""
        names = ("lift_stationarity", "readout_stationarity")
        return max(path.residuals[name] for name in names if name in path.residuals)

    # -- bookkeeping -------------------------------------------------------------------------------

    def _watch(self) -> Watch:
        left = self.method.time_limit
        return Watch(self._numbered(),
                     None if left is None else left - (time.perf_counter() - self.began))

    def _numbered(self) -> Callback | None:
        """The callback, told iterations and seconds of the whole solve."""
        callback, before = self.callback, len(self.history)
        if callback is None:
            return None
        offset = time.perf_counter() - self.began

        def told(record: Record) -> Any:
            return callback(replace(record, iteration=before + record.iteration,
                                    seconds=offset + record.seconds))

        return told

    def _told(self, ended: Status) -> Solution:
        """The best path as the solution of the problem itself, with its message."""
        path = self.best
        assert path is not None
        problem = self.problem.with_maps(path.problem.lift, path.problem.readout)
        status = path.status
        if ended is not Status.CONVERGED:
            status = ended
        elif self.problem.sigma.kinked:
            status = Status.SMOOTHED
        off = self._off(path)
        note = (f"Learned maps: {self.steps_made} steps in them, relative gradient {off:.1e} "
                f"(tol {TOL:g})")
        extra = {**path.extra, "map_steps": self.steps_made}
        if self.fixed is not None:
            note += f"; with lift and readout as they were J is {self.fixed.objective:.8g}"
            extra["fixed_objective"] = self.fixed.objective
        message = path.message.replace(str(path.status), str(status), 1)
        return path.replace(
            problem=problem, status=status, success=ended is Status.CONVERGED and path.success,
            message=f"{message} {note}.", nit=len(self.history), history=tuple(self.history),
            seconds=time.perf_counter() - self.began, extra=extra,
            residuals={**path.residuals, "stationarity": _gap(path, problem)})


def _gap(path: Solution, problem: TrainingProblem) -> float:
    """Stationarity of a path in the problem's own activation: the gap to the plain ReLU."""
    settings: dict[str, Any] = dict(effective_depth=problem.effective_depth,
                                    activation=problem.sigma, bias=problem.bias)
    W = path.weights
    gradient = np.array([w - ham.control(a, b, **settings) for w, a, b in zip(
        W, path.representations, path.momenta, strict=True)])
    return discrete.stationarity(W, gradient)


def _updated(inverse: NDArray, step: NDArray, change: NDArray) -> NDArray:
    """The BFGS update of an inverse Hessian; as it is where the curvature seen is not positive."""
    curved = float(step @ change)
    if not curved > 1e-12 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / curved
    return left @ inverse @ left.T + np.outer(step, step) / curved

