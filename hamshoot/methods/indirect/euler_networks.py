"""Euler networks on the way to a geodesic: minima to start Newton's method from, J to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import starting_weights
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.continuation import Path, Stage, midpoints
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.newton.levenberg_marquardt import Minimum
from hamshoot.network.follow_path import equidistant_steps
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EulerNetworks:
    """Networks of equal layers for the stages of one problem.

    Parameters
    ----------
    problem : TrainingProblem
    watch : Watch
        Told of every iteration.
    """

    def __init__(self, problem: TrainingProblem, watch: Watch):
        self.problem, self.watch = problem, watch

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
            self.watch.record(float(intermediate_result.fun))

        found = minimize(value, weights.ravel(), jac=True, method="L-BFGS-B", callback=watch,
                         options=dict(maxiter=800, maxfun=2000, maxcor=20, ftol=1e-13, gtol=1e-9))
        return self.minimise(problem, found.x.reshape(sweeps.shape), stage)

    def minimise(
        self, problem: TrainingProblem, weights: NDArray, stage: Stage
    ) -> tuple[Path, Minimum, bool]:
        """A minimum of an Euler network by Newton, which does not crawl at small λ as L-BFGS does.

        Its path at its own nodes, the minimum, and whether it collapsed.
        """
        steps = equidistant_steps(len(weights))
        least = exact_newton.minimise(problem, weights, steps, tol=1e-4, max_iter=120,
                                        callback=self._record)
        weights = least.weights
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps)
        _, loss, _ = discrete.objective(problem, A[-1], weights, steps)
        path = Path(np.linspace(0, 1, len(A)), np.stack([A, B], axis=1), stage)
        return path, least, discrete.collapsed(problem, A[-1], loss)

    def _record(self, objective: float, stationarity: float) -> None:
        self.watch.record(objective, stationarity)

    def soft(self, stage: Stage) -> TrainingProblem:
        """The problem of a stage, a hard endpoint replaced by a stiff loss."""
        problem = self.problem
        settings: dict[str, Any] = dict(
            effective_depth=stage.effective_depth, weight_decay=stage.weight_decay
        )
        if problem.activation != "linear":
            settings.update(activation="smooth_relu", epsilon=stage.epsilon)
        if problem.endpoint is None:
            return problem.replace(**settings)
        settings["weight_decay"] = 1e-2 * stage.effective_depth / problem.n_samples
        return TrainingProblem(
            problem.initial_state.T, problem.endpoint.T, width=problem.width,
            activation=settings.pop("activation", problem.activation), bias=problem.bias,
            **settings,
        )

    def objective(self, stage: Stage, weights: NDArray) -> float:
        """J of a network of equal layers at a stage; of its control alone with a hard endpoint."""
        problem, steps = self.soft(stage), equidistant_steps(len(weights))
        A = discrete.roll_out(problem, weights, steps)
        total, _, norm = discrete.objective(problem, A[-1], weights, steps)
        if self.problem.hard_endpoint:
            return self.problem.weight_decay / (2 * stage.effective_depth) * norm
        return total

    def straight(self, stage: Stage, start: str, seed: int) -> Path:
        """The path of a named start, when not even a direct stage came to an end."""
        steps = equidistant_steps(max(60, int(12 * self.problem.effective_depth)))
        problem = self.soft(stage)
        weights = starting_weights(problem, steps, start, seed)
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps)
        return Path(np.linspace(0, 1, len(A)), np.stack([A, B], axis=1), stage)
