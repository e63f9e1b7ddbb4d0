"""A walk down the ε ladder by L-BFGS, and its exact end: stages, Newton steps, the best so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.dynamics.learned_sweeps import sweeps_of
from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.watch import Best, Stop, Watch
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.methods.search.lbfgs import Log, Minimizer
from hamshoot.problem.activations import epsilon_ladder
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.status import Status
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A stage ends when J falls by less than this share over `lbfgs.WINDOW` iterations: of the
#: walks from the starts, and of all later ones. The first takes about 250 iterations a stage.
HURRIED, PATIENT = 1e-2, 1e-3
#: Stationarity at which L-BFGS hands over to exact Newton, where that is affordable, and the one
#: asked of it: its convergence is quadratic, so the last digits cost one or two steps. It also
#: takes over after LONG_WALK iterations: where λ is small L-BFGS finds lower points for long, and
#: would go on for minutes.
HAND_OVER, EXACT, LONG_WALK = 1e-4, 1e-11, 100_000
#: Stationarity of the stages towards the kink, which the polish only needs to begin at, and
#: most iterations of L-BFGS on the way there, before Newton's method takes over.
NEAR, NEARING = 1e-4, 2000


class LadderWalk:
    """Controls on their way down a ladder, whatever it begins with; stacked with learned maps.

    Parameters
    ----------
    problem : TrainingProblem
    steps : ndarray, shape (L,)
    watch : Watch, or what stands in for it
    tol : float
        Of the stationarity.
    max_iter, stage_iter : int
        Iterations of all stages together, and of one.
    memory : int
        Of L-BFGS.
    """

    def __init__(self, problem: TrainingProblem, steps: NDArray, watch: Log, *, tol: float,
                 max_iter: int, stage_iter: int, memory: int):
        self.problem, self.steps, self.watch = problem, steps, watch
        self.tol, self.max_iter, self.stage_iter = tol, max_iter, stage_iter
        self.sweeps = sweeps_of(problem, steps)
        self.best = Best()  # by the objective of the problem's own activation
        self.first_gradient = float("nan")
        self.latest: NDArray = np.zeros(self.sweeps.shape)
        self.minimizer = Minimizer(self.sweeps, watch, memory=memory, max_iter=max_iter)

    def descend(
        self, weights: NDArray, ladder: tuple[float, ...], decrease: float = PATIENT,
        prefix: str = "",
    ) -> NDArray:
        """Walk down a ladder; a stage ends when J falls by less than `decrease` per WINDOW."""
        self.minimizer.latest = weights
        self.offer(weights)
        for epsilon in ladder:
            self.set_activation(epsilon)
            self.watch.stage = prefix + self.stage_name(epsilon)
            weights = self._lbfgs(weights, self.tol, self.stage_iter, decrease)
            if np.isnan(self.first_gradient):
                self.first_gradient = self.minimizer.first_gradient
            self.offer(weights)
        return weights

    def to_tolerance(self, weights: NDArray, stage: str) -> NDArray:
        """L-BFGS and Newton in turns: each round goes on where the other's rounding stopped it."""
        tol, reached = self.tol, np.inf
        exact = exact_newton.affordable(self.problem, self.sweeps.layers)
        while True:
            self.watch.stage = stage
            weights = self._lbfgs(weights, max(tol, HAND_OVER if exact else 0.0),
                                  LONG_WALK if exact else None)
            if exact:
                self.watch.stage = stage + ", exact Newton"
                weights = self.minimizer.take(self._newton(weights, min(tol, EXACT)))
            if self.minimizer.stationarity > tol:
                self.watch.stage = stage + ", Newton"
                weights = self._finished(weights, tol)
            before, reached = reached, self.minimizer.stationarity
            if reached <= tol or reached > 0.5 * before:
                return weights

    def lower(self, weights: NDArray, epsilon: float, target: float) -> NDArray:
        """From a stationary point at one ε to one at a smaller: L-BFGS, then Newton if needed."""
        for value in epsilon_ladder(epsilon, target, 0.25)[1:]:
            self.set_activation(value)
            self.watch.stage = "to the kink, " + self.stage_name(value)
            exact = exact_newton.affordable(self.problem, self.sweeps.layers)
            weights = self._lbfgs(weights, max(self.tol, NEAR) if exact else self.tol,
                                  min(self.stage_iter, NEARING) if exact else self.stage_iter)
            if exact and self.minimizer.stationarity > NEAR:
                weights = self._newton(weights, NEAR)
        return weights

    @property
    def kept_by(self) -> Watch | None:
        """The watch whose steps are kept; none of a walk beside others, which are kept together."""
        return self.watch if isinstance(self.watch, Watch) else None

    def _lbfgs(self, weights: NDArray, tol: float, limit: int | None, decrease: float = 0.0
               ) -> NDArray:
        """L-BFGS at the ε of the stage, as a step that is kept."""
        return self._kept("lbfgs", weights, (tol, limit, decrease), lambda midway: (
            self.minimizer.minimize(weights, tol, limit, decrease, midway)))

    def _finished(self, weights: NDArray, tol: float) -> NDArray:
        """Newton steps by conjugate gradients, as a step that is kept."""
        return self._kept("finish", weights, (tol,), lambda midway: (
            self.minimizer.finish(weights, tol, midway)))

    def _kept(self, name: str, weights: NDArray, options: tuple,
              run: Callable[[Midway], NDArray]) -> NDArray:
        """The end of a run of the minimiser, which is left as that leaves it."""
        before = self.sweeps.evaluations

        def spent() -> Step:
            return {}, {"evaluations": self.sweeps.evaluations - before}

        def resume(state: Step) -> None:
            self.sweeps.evaluations = before + state[1]["evaluations"]

        def compute(midway: Midway) -> Step:
            run(midway.around(spent, resume))
            arrays, numbers = self.minimizer.account()
            return arrays, {**numbers, **spent()[1]}

        left = self.max_iter - self.watch.iterations
        sigma = self.sweeps.activation
        inputs = (self.steps, weights, sigma.name, sigma.epsilon, self.minimizer.memory, left,
                  *options)
        arrays, numbers = kept(self.kept_by, self.problem, name, inputs, compute)
        self.sweeps.evaluations = before + numbers.pop("evaluations")
        return self.minimizer.take_account(arrays, numbers)

    def _newton(self, weights: NDArray, tol: float) -> NDArray:
        """Exact Newton at the ε of the stage."""
        sigma = self.sweeps.activation
        problem = self.problem
        if sigma != problem.sigma:
            problem = problem.replace(activation=sigma)
        return exact_newton.minimise(
            problem, weights, self.steps, tol=tol, callback=self.record,
            watch=self.kept_by).weights

    def record(self, objective: float, stationarity: float) -> None:
        """Count an iteration of the exact methods."""
        self.watch.record(objective, stationarity)
        if self.watch.iterations >= self.max_iter:
            raise Stop(Status.MAX_ITER)

    def set_activation(self, epsilon: float) -> None:
        """Take the smooth ReLU of some ε for the activation of the stage; others stay."""
        self.sweeps.activation = self.problem.sigma.at(epsilon)

    def stage_name(self, epsilon: float) -> str:
        """What a record's stage says of an ε."""
        return f"epsilon {epsilon:.3g}" if epsilon else "lbfgs"

    def evaluate(self, weights: NDArray) -> float:
        """Objective of the problem's own network."""
        self.latest = weights
        smoothed, self.sweeps.activation = self.sweeps.activation, self.problem.sigma
        value = self.sweeps.objective(weights)
        self.sweeps.activation = smoothed
        return value

    def offer(self, weights: NDArray) -> float:
        """Objective of the problem's own network; kept if it is the best."""
        objective = self.evaluate(weights)
        self.best.offer(objective, weights)
        return objective

    def collapsed(self) -> bool:
        """Whether the network evaluated last ends at a trivial solution."""
        problem, end = self.problem, self.sweeps.representations[-1]
        problem = learned.settled(problem, self.latest)[0]
        residual = problem.readout @ end - problem.targets  # of squares; others find it themselves
        return discrete.collapsed(problem, end, float(np.sum(residual**2)) / problem.n_samples)

    def relative_gradient(self) -> float:
        """‖∇J‖ against that of the first iterate of all."""
        first = self.first_gradient
        return self.minimizer.gradient_norm / first if first > 0 else float("nan")
