"""Euler networks on the way to a geodesic: minima to start Newton's method from, J to compare."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps, blas_threads
from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Best, Watch
from hamshoot.methods.indirect.continuation import Path, Stage, midpoints
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.levenberg_marquardt import Minimum
from hamshoot.methods.search.lbfgs import Minimizer
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Descents from given weights: iterations of L-BFGS at most and pairs that it keeps, the
#: stationarity at which Newton's method goes on, and its steps at most.
ITERATIONS, PAIRS, HAND_OVER, NEWTON_STEPS = 2000, 30, 1e-3, 30


class EulerNetworks:
    """Networks of equal layers for the stages of one problem.

    Parameters
    ----------
    problem : TrainingProblem
    watch : Watch
        Told of every iteration.

    Attributes
    ----------
    best : Best
        The lowest network met, by J of the problem's own activation.
    latest : ndarray or None
        The iterate of a descent that has not come to an end.
    """

    def __init__(self, problem: TrainingProblem, watch: Watch):
        self.problem, self.watch = problem, watch
        self.best = Best()
        self.latest: NDArray | None = None
        self.minimizer: Minimizer | None = None  # while it runs

    def from_start(
        self, stage: Stage, layers: int, start: str, seed: int, weights: NDArray | None
    ) -> tuple[Path, Minimum, bool]:
        """L-BFGS on an Euler network, from a named start unless given weights; then `minimise`."""
        from scipy.optimize import minimize

        problem = self.soft(stage)
        steps = equidistant_steps(layers)
        if weights is None:
            weights = starting_weights(problem, steps, start, seed)
        else:
            weights = interpolate(midpoints(len(weights)), weights, midpoints(layers))
        sweeps = EulerSweeps(problem, steps)

        def value(x: NDArray) -> tuple[float, NDArray]:
            J, G = sweeps.gradient(x.reshape(sweeps.shape))
            return (J, G.ravel().copy()) if np.isfinite(J) else (1e100, np.zeros(x.size))

        def watch(intermediate_result: Any) -> None:
            self.latest = intermediate_result.x.reshape(sweeps.shape)
            self.watch.record(float(intermediate_result.fun))

        self.latest = weights

        begin = weights

        def descend(_: Midway) -> Step:
            found = minimize(value, begin.ravel(), jac=True, method="L-BFGS-B", callback=watch,
                             options=dict(maxiter=800, maxfun=2000, maxcor=20, ftol=1e-13,
                                          gtol=1e-9))
            return {"weights": found.x.reshape(sweeps.shape)}, {}

        arrays, _ = kept(self.watch, problem, "start", (begin,), descend)
        return self.minimise(problem, arrays["weights"], stage)

    def descended(self, stage: Stage, weights: NDArray) -> tuple[Path, Minimum, bool]:
        """The same from given weights, on as many layers; L-BFGS compiled."""
        problem, layers = self.soft(stage), len(weights)
        self.offer(weights)
        with blas_threads(problem):
            sweeps = EulerSweeps(problem, equidistant_steps(layers))
            walk = Minimizer(sweeps, self.watch, memory=PAIRS, max_iter=sys.maxsize)
            self.minimizer = walk
            begin = weights
            arrays, _ = kept(self.watch, problem, "descent", (begin,), lambda midway: (
                {"weights": walk.minimize(begin, HAND_OVER, ITERATIONS, midway=midway)}, {}))
            weights, self.minimizer = arrays["weights"], None
        return self.minimise(problem, weights, stage, NEWTON_STEPS)

    def from_no_weights(self, stage: Stage, layers: int) -> tuple[Path, Minimum, bool]:
        """The minimum beside the network without weights."""
        weights = np.zeros((layers, *self.problem.control_shape))
        return self.minimise(self.soft(stage), weights, stage)

    def minimise(
        self, problem: TrainingProblem, weights: NDArray, stage: Stage, steps_at_most: int = 120
    ) -> tuple[Path, Minimum, bool]:
        """A minimum of an Euler network by Newton, which does not crawl at small λ as L-BFGS does.

        Its path at its own nodes, the minimum, and whether it collapsed.
        """
        steps = equidistant_steps(len(weights))
        self.offer(weights)
        least = exact_newton.minimise(problem, weights, steps, tol=1e-4, max_iter=steps_at_most,
                                      callback=self.record, watch=self.watch)
        weights = least.weights
        self.offer(weights)
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps)
        _, loss, _ = discrete.objective(problem, A[-1], weights, steps)
        path = Path(np.linspace(0, 1, len(A)), np.stack([A, B], axis=1), stage)
        return path, least, discrete.collapsed(problem, A[-1], loss)

    def record(self, objective: float, stationarity: float) -> None:
        """Tell of an iteration."""
        self.watch.record(objective, stationarity)

    def own(self) -> TrainingProblem:
        """What networks are compared by: the problem, a hard endpoint replaced by a stiff loss."""
        problem = self.problem
        if not problem.hard_endpoint:
            return problem
        return self.soft(Stage(problem.effective_depth, problem.weight_decay,
                               problem.sigma.epsilon or 1e-3))

    def offer(self, weights: NDArray) -> None:
        """Keep a network of equal layers if it is the best."""
        self.latest = None
        with np.errstate(all="ignore"):
            value = discrete.objective_of(self.own(), weights, equidistant_steps(len(weights)))
        self.best.offer(value, weights)

    def rescued(self) -> NDArray | None:
        """The lowest network met, an interrupted descent's last iterate included."""
        if self.minimizer is not None and self.minimizer.latest is not None:
            self.offer(self.minimizer.latest)
        if self.latest is not None:
            self.offer(self.latest)
        return self.best.weights

    def soft(self, stage: Stage) -> TrainingProblem:
        """The problem of a stage, a hard endpoint replaced by a stiff loss."""
        problem = self.problem
        settings: dict[str, Any] = dict(
            effective_depth=stage.effective_depth, weight_decay=stage.weight_decay
        )
        sigma = problem.sigma.at(stage.epsilon) if problem.sigma.laddered else problem.sigma
        settings.update(activation=sigma)
        if problem.endpoint is None:
            return problem.replace(**settings)
        settings["weight_decay"] = 1e-2 * stage.effective_depth / problem.n_samples
        return TrainingProblem(
            problem.initial_state.T, problem.endpoint.T, width=problem.width,
            bias=problem.bias, **settings,
        )

    def objective(self, stage: Stage, weights: NDArray) -> float:
        """J of a network of equal layers at a stage; of its control alone with a hard endpoint."""
        problem, steps = self.soft(stage), equidistant_steps(len(weights))
        A = discrete.roll_out(problem, weights, steps)
        total, _, norm = discrete.objective(problem, A[-1], weights, steps)
        if self.problem.hard_endpoint:
            return self.problem.weight_decay / (2 * stage.effective_depth) * norm
        return total
