"""The way to a geodesic around Newton's method: first guess, ladders, continuation, branch check.

Without a guess a coarse direct stage finds a network, on a finer mesh than its first when Newton
fails from there; then a ladder in ε, continuation in L̃, λ and ε with steps halved on failure and
grown on success, the limit ε → 0, and for ReLU the plain flow. `hamshoot.methods.indirect.method`
has the options.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.dynamics.gauss_flow import GaussFlow
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common import starts
from hamshoot.methods.common.watch import (
    Watch,
)
from hamshoot.methods.indirect.continuation import (
    Guess,
    Path,
    Stage,
    between,
    branch_sentences,
    controls,
    distance,
    hamiltonians,
    interpolate,
    limit_of,
    midpoints,
    objectives_agree,
    predict,
    same_branch,
    sliding,
    stage_name,
    states_at,
    tends_to,
)
from hamshoot.methods.indirect.equations import NewtonResult, ShootingProblem, solve_shooting
from hamshoot.methods.indirect.state_form import two_point
from hamshoot.methods.newton import minimise as exact_newton
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of the representations of the finest network built from a geodesic (32 MB).
MOST_NUMBERS = 4_000_000


class GeodesicSearch:
    """One call of `IndirectShooting.solve`.

    Parameters
    ----------
    method : IndirectShooting
        Its options.
    problem : TrainingProblem
    watch : Watch
    """

    def __init__(self, method: Any, problem: TrainingProblem, watch: Watch):
        self.method, self.problem, self.watch = method, problem, watch
        self.path: Path | None = None  # the best so far
        self.solved: list[tuple[Stage, float, float]] = []  # stage, J, H of each solved stage
        self.result: NewtonResult | None = None
        self.extra: dict[str, Any] = {}
        self.converged = False  # whether `path` solves its stage
        self.collapsed: Path | None = None  # where a direct stage collapsed, see `discrete`
        self.guess: Guess | None = None  # where no geodesic was found from it

    # -- strategy ------------------------------------------------------------------------------

    def solve(self, guess: Guess | None) -> tuple[Status, str]:
        """Fill `path`; return the status, and a sentence."""
        target = self._target()
        if guess is None:
            if not self._first_geodesic(target):
                return Status.STALLED, self._failure()
        elif not self._from_guess(guess, target):
            self.guess = guess
            return Status.STALLED, self._failure()
        if not self._reach(target):
            return Status.STALLED, self._failure()
        if self.extra.get("all_collapsed"):
            return Status.COLLAPSED, "Every start that was tried collapsed to this geodesic."
        self._check_branch()
        status, reason = (Status.CONVERGED, "") if self.problem.activation != "relu" else \
            self._relu_limit()
        return status, " ".join(filter(None, [reason, *branch_sentences(self.extra)]))

    def _target(self) -> Stage:
        """Stage of the problem itself; the end of the ladder for a plain ReLU."""
        problem = self.problem
        epsilon = problem.sigma.epsilon
        if problem.activation == "relu":
            epsilon = self.method.epsilon_last
        return Stage(problem.effective_depth, problem.weight_decay, epsilon)

    def _first_geodesic(self, target: Stage) -> bool:
        """A geodesic at the top of the ladder, from direct stages on finer and finer meshes."""
        first = target
        if 0 < target.epsilon < 0.3 * self.method.epsilon_first or \
                self.problem.activation == "relu":
            first = target._replace(epsilon=max(target.epsilon, self.method.epsilon_first))
        if self._first_at(first, list(self._starts()), (1, 2, 4)):
            return True
        # The trivial solution is a geodesic too: better exact than as the direct stage left it.
        self.extra["all_collapsed"] = self.collapsed is not None and self.result is None
        return self.extra["all_collapsed"] and self._newton(self.collapsed, first)

    def _first_at(
        self, stage: Stage, begin: list[tuple[str, int]], refinements: tuple[int, ...]
    ) -> bool:
        """A geodesic of a stage from direct stages, by start and mesh."""
        for start, seed in begin:
            weights = None
            for refinement in refinements:
                layers = refinement * self._layers
                self.watch.stage = f"direct, start {start}, {layers} layers"
                path, weights, collapsed = self._direct(stage, layers, start, seed, weights)
                if collapsed:
                    self.collapsed = path
                    break
                if self._newton(path, stage, minimum=True):
                    self._compare(stage, weights, self.extra["direct_objective"])
                    return True
        return False

    @property
    def _layers(self) -> int:
        return self.method.layers or max(60, int(12 * self.problem.effective_depth))

    def _starts(self) -> Iterator[tuple[str, int]]:
        """The start asked for, then others."""
        seed = self.method.seed
        yield self.method.start, seed
        for start in ("path", "identity"):
            if start != self.method.start:
                yield start, seed
        yield "path", seed + 1000
        yield "identity", seed + 1000

    def _from_guess(self, guess: Guess, target: Stage) -> bool:
        """A geodesic of the target, or of the guess's own problem to go on from."""
        epsilon = target.epsilon
        if self.problem.activation == "relu":
            epsilon = guess.path.stage.epsilon or self.method.epsilon_first
        path = self._on_mesh(guess.path)
        own = guess.path.stage
        own = own._replace(epsilon=epsilon or own.epsilon)
        candidates = [target._replace(epsilon=epsilon), own]
        if target.epsilon > 0:
            first = max(target.epsilon, self.method.epsilon_first)
            candidates[1:1] = [target._replace(epsilon=first)]
            candidates.append(own._replace(epsilon=first))
        for stage in dict.fromkeys(candidates):
            self.watch.stage = f"from the guess, {stage_name(stage)}"
            if self._newton(path, stage):
                if guess.objective is not None and stage[:2] == target[:2]:
                    self._compare(stage, guess.weights, guess.objective)
                return True
        if guess.weights is None:
            return False
        # A coarse network is far from every geodesic: descend on finer meshes.
        stage = candidates[0]._replace(
            epsilon=max(candidates[0].epsilon, self.method.epsilon_first)
            if candidates[0].epsilon else 0.0)
        self.watch.stage = f"descent from the guess, {stage_name(stage)}"
        if not self._refine(stage, guess.weights):
            return False
        self.extra["guess_refined"] = True
        if guess.objective is not None:
            self._compare(stage, guess.weights, guess.objective)
        return True

    def _reach(self, target: Stage) -> bool:
        """Continuation from the stage solved to the target, in all three parameters at once."""
        here, before = self.path, None
        if here.stage == target:
            return True
        span = distance(here.stage, target, self.method.epsilon_factor)
        start, s, ds, failures = here.stage, 0.0, min(1.0, 1.0 / span), 0
        while s < 1:
            # Where a branch of minima ends in a fold no step is short enough, and many are waste:
            # after two failures descend, a full step further, to the minimum below.
            if failures == 2:
                ds = 1.0 / span
            trial = min(1.0, s + ds)
            stage = target if trial == 1 else between(start, target, trial)
            self.watch.stage = stage_name(stage)
            descended = failures >= 2 and self._descend(here, stage)
            if descended or self._newton(predict(before, here, stage), stage, quick=True):
                before, here, s = None if descended else here, self.path, trial
                ds *= 1.5 if self.result.factorisations <= 4 else 1.0
                failures = 0
                continue
            self.path, self.converged = here, True
            failures += 1
            ds /= 2
            if failures == 5:
                self.converged = False
                return False
        return True

    def _descend(self, path: Path, stage: Stage) -> bool:
        """From the control of a path, minimise an Euler network at a stage; then Newton."""
        self.watch.stage = f"descent, {stage_name(stage)}"
        flow = self.shooting(path.stage, accurate=True).flow
        weights = controls(flow, states_at(flow, path.t, path.y, midpoints(self._layers)))
        if not self._refine(stage, weights):
            return False
        count = self.extra.get("descents_taken", 0) + 1
        self.extra["descents_taken"] = count
        return True

    def _refine(self, stage: Stage, weights: NDArray) -> bool:
        """A geodesic from minima of Euler networks that get finer, descended to from weights."""
        for refinement in (1, 2, 4, 8):
            count = refinement * self._layers
            weights = interpolate(midpoints(len(weights)), weights, midpoints(count))
            guess, least, collapsed = self._minimise(self._soft(stage), weights, stage)
            weights = least.weights
            if not collapsed and self._newton(guess, stage, minimum=True):
                return True
        return False

    def _failure(self) -> str:
        if self.result is None:
            return "No direct stage came to an end."
        reason = self.result.reason
        stage = f" at {self.watch.stage}" if self.watch.stage else ""
        return f"Newton's method stopped{stage}: {reason}."

    # -- direct stage --------------------------------------------------------------------------

    def _direct(
        self, stage: Stage, layers: int, start: str, seed: int, weights: NDArray | None
    ) -> tuple[Path, NDArray, bool]:
        """L-BFGS on an Euler network; its path, its weights, and whether it collapsed."""
        from scipy.optimize import minimize

        problem = self._soft(stage)
        steps = starts.equidistant_steps(layers)
        if weights is None:
            weights = starts.starting_weights(problem, steps, start, seed)
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
        path, least, collapsed = self._minimise(problem, found.x.reshape(sweeps.shape), stage)
        self.extra["direct_objective"], self.extra["direct_layers"] = least.objective, layers
        if self.path is None:
            self.path = path
        return path, least.weights, collapsed

    def _minimise(
        self, problem: TrainingProblem, weights: NDArray, stage: Stage
    ) -> tuple[Path, exact_newton.Minimum, bool]:
        """A minimum of an Euler network by Newton, which does not crawl at small λ as L-BFGS does.

        Its path on the shooting nodes, the minimum, and whether it collapsed.
        """
        steps = starts.equidistant_steps(len(weights))
        least = exact_newton.minimise(problem, weights, steps, tol=1e-4, max_iter=120,
                                        callback=self.watch.record)
        weights = least.weights
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps)
        _, loss, _ = discrete.objective(problem, A[-1], weights, steps)
        path = Path(np.linspace(0, 1, len(A)), np.stack([A, B], axis=1), stage)
        return self._on_mesh(path), least, discrete.collapsed(problem, A[-1], loss)

    def _soft(self, stage: Stage) -> TrainingProblem:
        """The problem of a stage, a hard endpoint replaced by a stiff loss."""
        problem = self.problem
        settings: dict[str, Any] = dict(
            effective_depth=stage.effective_depth, weight_decay=stage.weight_decay
        )
        if problem.activation != "linear":
            settings.update(activation="smooth_relu", epsilon=stage.epsilon)
        if not problem.hard_endpoint:
            return problem.replace(**settings)
        settings["weight_decay"] = 1e-2 * stage.effective_depth / problem.n_samples
        return TrainingProblem(
            problem.initial_state.T, problem.endpoint.T, width=problem.width,
            activation=settings.pop("activation", problem.activation), bias=problem.bias,
            **settings,
        )

    # -- Newton --------------------------------------------------------------------------------

    def shooting(
        self, stage: Stage, plain_relu: bool = False, accurate: bool = False
    ) -> ShootingProblem:
        """The boundary value problem of a stage; by the accurate flow in any case, if asked."""
        problem = self.problem
        sigma = problem.sigma
        if problem.activation != "linear" and not plain_relu:
            sigma = Activation("smooth_relu", stage.epsilon)
        settings = problem.width, problem.n_samples, stage.effective_depth, sigma, problem.bias
        flow: HamiltonianFlow | GaussFlow
        if self.method.integrator == "gauss" and sigma.name != "relu" and not accurate:
            flow = GaussFlow(*settings, steps_per_segment=self.method.steps_per_segment,
                             order=self.method.gauss_order)
        else:
            # Local errors well below tol, not below rounding.
            rtol = float(np.clip(self.method.tol * 1e-2, 1e-13, 1e-8))
            flow = HamiltonianFlow(*settings, rtol=rtol, atol=0.1 * rtol, max_steps=1000,
                                   bail=self.method.form != "state")
        return ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                               stage.weight_decay, problem.endpoint)

    def _newton(
        self, path: Path, stage: Stage, *, plain_relu: bool = False, minimum: bool = False,
        quick: bool = False,
    ) -> bool:
        """Solve a stage from a path; on success keep it."""
        shooting = self.shooting(stage, plain_relu)

        def record(y: NDArray, correction: float) -> None:
            self.watch.record(_objective(shooting, y), correction)

        if self.method.form == "state":
            result = self._by_states(shooting, path, record)
        else:
            result = solve_shooting(shooting, path.t, path.y, tol=self.method.tol,
                                     max_iter=min(self.method.max_iter, 20) if quick else
                                     self.method.max_iter, minimum=minimum,
                                     max_nodes=8 * len(path.t) if quick else 1600,
                                     form=self.method.form, callback=record)
        self.result = result
        if not result.success:
            return False
        self.path, self.converged = Path(result.t, result.y, stage), True
        shooting.defects(result.t, result.y)
        H = hamiltonians(shooting.flow, result.y)
        self.solved.append((stage, _objective(shooting, result.y), float(np.median(H))))
        return True

    def _by_states(self, shooting: ShootingProblem, path: Path, record: Any) -> NewtonResult:
        """The same by `solve_two_point`, in the exact (A, B) form."""
        result = two_point(shooting, path.t, path.y)(
            tol=self.method.tol, max_iter=self.method.max_iter, max_nodes=1600,
            time_limit=None if np.isinf(self.watch.remaining) else max(self.watch.remaining, 1e-3),
            callback=lambda it: record(path.y, it.correction),
        )
        y = result.y.reshape(-1, *path.y.shape[1:])
        return NewtonResult(result.t, y, result.success, result.message, result.nit, result.nit,
                               result.correction, True, float("nan"))

    def _on_mesh(self, path: Path) -> Path:
        """A guess carried over to the shooting nodes, linearly."""
        segments = self.method.segments or max(60, int(12 * self.problem.effective_depth))
        t = np.linspace(0, 1, segments + 1)
        if len(path.t) == len(t) and np.allclose(path.t, t, rtol=0, atol=1e-14):
            return path
        return path._replace(t=t, y=interpolate(path.t, path.y, t))

    # -- ReLU ----------------------------------------------------------------------------------

    def _relu_limit(self) -> tuple[Status, str]:
        """Limit ε → 0 by extrapolation; the plain ReLU flow where nothing slides."""
        limits = self._extrapolate()
        epsilon = self.path.stage.epsilon
        slides = sliding(self.path.y[:, 0], epsilon)
        self.extra["sliding"] = slides
        sentence = f"Smoothed with ε = {epsilon:.3g}"
        if limits is not None:
            sentence += (f"; the limit ε → 0 of the objective is {limits[0]:.8g} "
                         f"± {limits[1]:.1e}")
        if slides:
            return Status.SMOOTHED, f"{sentence}; {slides} activations slide along their kinks."
        if self.method.exact_relu:
            kept, count = self.path, len(self.solved)
            self.watch.stage = "plain ReLU"
            if self._newton(kept, kept.stage._replace(epsilon=0.0), plain_relu=True):
                if objectives_agree(self.solved, limits):
                    return Status.CONVERGED, (
                        "No activation slides along its kink: this is a geodesic of the plain "
                        "ReLU flow, its crossings located."
                    )
                del self.solved[count:]
            self.path, self.converged = kept, True
        return Status.SMOOTHED, f"{sentence}."

    def _extrapolate(self) -> tuple[float, float] | None:
        """Limit of J as ε → 0 and its error; that of H too goes to `extra`."""
        ladder = [s for s in self.solved if s[0][:2] == self.path.stage[:2]]
        if len(ladder) < 3:
            return None
        epsilons = [s[0].epsilon for s in ladder[-3:]]
        for index, name in enumerate(("objective", "hamiltonian"), start=1):
            limit, error = limit_of(epsilons, [s[index] for s in ladder[-3:]])
            self.extra[f"{name}_limit"], self.extra[f"{name}_limit_error"] = limit, error
        return self.extra["objective_limit"], self.extra["objective_limit_error"]

    # -- branch --------------------------------------------------------------------------------

    def _check_branch(self) -> None:
        """Objectives of Euler networks on the geodesic's control must tend to its own."""
        layers = 8 * (self.extra.get("direct_layers") or self._layers)
        most = MOST_NUMBERS // self.path.y[0, 0].size
        self.extra["branch"] = tends_to(self.solved[-1][1], layers, self._built, most)

    def _built(self, layers: int) -> float:
        """J of the Euler network with the control of the path at the middle of each layer."""
        path, flow = self.path, self.shooting(self.path.stage, accurate=True).flow
        weights = controls(flow, states_at(flow, path.t, path.y, midpoints(layers)))
        return self._euler_objective(path.stage, weights)

    def _euler_objective(self, stage: Stage, weights: NDArray) -> float:
        """J of a network of equal layers at a stage; of its control alone with a hard endpoint."""
        problem, steps = self._soft(stage), starts.equidistant_steps(len(weights))
        A = discrete.roll_out(problem, weights, steps)
        total, _, norm = discrete.objective(problem, A[-1], weights, steps)
        if self.problem.hard_endpoint:
            return self.problem.weight_decay / (2 * stage.effective_depth) * norm
        return total

    def _compare(self, stage: Stage, weights: NDArray, own: float | None) -> None:
        """Whether the optimal Euler network that the geodesic came from lies on its branch."""
        start = self._euler_objective(stage, weights)
        changed = 0.0 if own is None or self.problem.hard_endpoint else abs(start - own)
        fine = max(16 * self._layers, 2 * len(weights))
        self.extra["start"] = same_branch(self.solved[-1][1], weights, start, fine,
                                          self._built(fine), changed)

    # -- solution ------------------------------------------------------------------------------

    def solution(self, status: Status, reason: str) -> Solution:
        """The `Solution` of the path as it stands."""
        problem, path = self.problem, self.path
        if path is None:
            path = self._fallback() if self.guess is None else self.guess.path
        plain = problem.activation == "relu" and path.stage.epsilon == 0
        shooting = self.shooting(path.stage, plain, accurate=True)
        flow = shooting.flow
        A, B = path.y[:, 0], path.y[:, 1]
        defect = _largest_defect(shooting, path)
        W = controls(flow, path.y)
        energy = float(flow.energies.sum())
        loss = 0.0 if problem.hard_endpoint else \
            float(ham.loss(A[-1], problem.readout, problem.targets))
        H = hamiltonians(flow, path.y)
        settings = dict(effective_depth=problem.effective_depth, activation=problem.sigma,
                        bias=problem.bias)
        gradient = np.array([w - ham.control(a, b, **settings)
                             for w, a, b in zip(W, A, B, strict=True)])
        residuals = {
            "stationarity": discrete.stationarity(W, gradient),
            "defect": defect,
            "boundary_residual": discrete.boundary_residual(problem, A, B),
            "hamiltonian_drift": ham.hamiltonian_drift(H),
        }
        if self.method.integrator == "gauss":
            residuals["discrete_defect"] = _largest_defect(self.shooting(path.stage, plain), path)
        success = status in (Status.CONVERGED, Status.SMOOTHED) and self.converged
        if np.isfinite(loss) and discrete.collapsed(problem, A[-1], loss):
            success, status = False, Status.COLLAPSED
        if self.result is not None and self.converged:
            self.extra.update(definite=bool(self.result.definite), least=float(self.result.least))
        self.extra.update(epsilon=path.stage.epsilon, segments=len(path.t) - 1,
                          hamiltonian=float(np.median(H)))
        message = str(status) + (f" {reason}" if reason else "")
        if descents := self.extra.get("descents_taken", 0):
            message += (f" On the way, continuation gave way to {descents} descent"
                        f"{'s' if descents > 1 else ''} to the minimum of an Euler network, which "
                        "may lie on another branch.")
        return Solution(
            problem=problem, p=path.t, representations=A, momenta=B, weights=W,
            objective=loss + problem.weight_decay * energy, loss=loss,
            parameter_norm=2 * problem.effective_depth * energy, success=success, status=status,
            message=message, nit=self.watch.iterations, residuals=residuals,
            history=tuple(self.watch.history), seconds=self.watch.seconds, method="indirect",
            integrator="flow", steps=None, extra=self.extra,
        )

    def _fallback(self) -> Path:
        """The straight start, when not even a direct stage came to an end."""
        steps = starts.equidistant_steps(max(60, int(12 * self.problem.effective_depth)))
        stage = self._target()
        problem = self._soft(stage)
        weights = starts.starting_weights(problem, steps, self.method.start, self.method.seed)
        A = discrete.roll_out(problem, weights, steps)
        B, _ = discrete.costates(problem, A, weights, steps)
        return Path(np.linspace(0, 1, len(A)), np.stack([A, B], axis=1), stage)


def _largest_defect(shooting: ShootingProblem, path: Path) -> float:
    """Of all segments, relative to the size of A and of B."""
    defects = shooting.defects(path.t, path.y)
    return float(np.max([
        np.abs(defects[:, i]).max() / (np.abs(path.y[:, i]).max() or 1.0) for i in (0, 1)
    ]))


def _objective(shooting: ShootingProblem, y: NDArray) -> float:
    """J, with the energies of the last integration."""
    loss = 0.0 if shooting.endpoint is not None else \
        float(ham.loss(y[-1, 0], shooting.readout, shooting.targets))
    return loss + shooting.weight_decay * float(shooting.flow.energies.sum())
