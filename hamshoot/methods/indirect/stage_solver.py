"""Newton's method on the stages of a continuation; the geodesics that it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.flow import HamiltonianFlow
from hamshoot.dynamics.gauss_flow import GaussFlow
from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.common.watch import Watch
from hamshoot.methods.indirect.continuation import (
    Path,
    Stage,
    hamiltonians,
)
from hamshoot.methods.indirect.equations import NewtonResult, ShootingProblem, solve_shooting
from hamshoot.methods.indirect.state_form import two_point
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.interpolation import interpolate
from hamshoot.theory import hamiltonian as ham

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Segments to begin with at most, where a network has more layers.
MOST_SEGMENTS = 640
#: Times tol, a Hamiltonian drift beyond which a geodesic is solved once more to FINER times tol:
#: over many segments, and where thin kinks make them stiff, what each leaves adds up. Below
#: FINEST the flow is as accurate as it gets.
DRIFT, FINER, FINEST = 50.0, 0.1, 1e-11


@dataclass(frozen=True, kw_only=True)
class ShootingOptions:
    """What a solve goes by; the options of that name of `hamshoot.IndirectShooting`."""

    tol: float
    max_iter: int
    form: str
    segments: int | None
    integrator: str
    steps_per_segment: int
    gauss_order: int


class StageSolver:
    """The boundary value problems of the stages, and what was found of them.

    Parameters
    ----------
    options : ShootingOptions
    problem : TrainingProblem
    watch : Watch

    Attributes
    ----------
    path : Path or None
        The best so far.
    converged : bool
        Whether `path` solves its stage.
    solved : list of (Stage, float, float)
        Stage, J and H of each stage that was solved.
    result : NewtonResult or None
        Of the last solve, failed or not.
    """

    def __init__(self, options: ShootingOptions, problem: TrainingProblem, watch: Watch):
        self.options, self.problem, self.watch = options, problem, watch
        self.path: Path | None = None
        self.converged = False
        self.solved: list[tuple[Stage, float, float]] = []
        self.result: NewtonResult | None = None

    def shooting(
        self, stage: Stage, plain_relu: bool = False, accurate: bool = False
    ) -> ShootingProblem:
        """The boundary value problem of a stage; by the accurate flow in any case, if asked."""
        problem = self.problem
        sigma = problem.sigma
        if sigma.laddered and not plain_relu:
            sigma = sigma.at(stage.epsilon)
        settings = problem.width, problem.n_samples, stage.effective_depth, sigma, problem.bias
        flow: Any  # either flow has what a shooting problem asks of one
        if self.options.integrator == "gauss" and sigma.name != "relu" and not accurate:
            flow = GaussFlow(*settings, steps_per_segment=self.options.steps_per_segment,
                             order=self.options.gauss_order)
        else:
            # Local errors well below tol, not below rounding.
            rtol = float(np.clip(self.options.tol * 1e-2, 1e-13, 1e-8))
            flow = HamiltonianFlow(*settings, rtol=rtol, atol=0.1 * rtol, max_steps=1000,
                                   bail=self.options.form != "state")
        return ShootingProblem(flow, problem.initial_state, problem.readout, problem.targets,
                               stage.weight_decay, problem.endpoint, problem.criterion)

    def solve(
        self, path: Path, stage: Stage, *, plain_relu: bool = False, minimum: bool = False,
        quick: bool = False,
    ) -> bool:
        """Solve a stage from a path; on success keep it."""
        shooting = self.shooting(stage, plain_relu)

        def record(y: NDArray, correction: float) -> None:
            self.watch.record(_objective(shooting, y), correction)

        def solve(_: Midway) -> Step:
            if self.options.form == "state":
                result = self._by_states(shooting, path, record)
            else:
                result = solve_shooting(shooting, path.t, path.y, tol=self.options.tol,
                                        max_iter=min(self.options.max_iter, 20) if quick else
                                        self.options.max_iter, minimum=minimum,
                                        max_nodes=8 * len(path.t) if quick else 1600,
                                        form=self.options.form, callback=record)
            numbers = {name: _plain(value) for name, value in vars(result).items()}
            return {"t": numbers.pop("t"), "y": numbers.pop("y")}, numbers

        inputs = (vars(self.options), path.t, path.y, stage, plain_relu, minimum, quick)
        arrays, numbers = kept(self.watch, self.problem, "stage", inputs, solve)
        found: dict[str, Any] = {**arrays, **numbers}
        self.result = result = NewtonResult(**found)
        if not result.success:
            return False
        self.path, self.converged = Path(result.t, result.y, stage), True
        shooting.defects(result.t, result.y)
        H = hamiltonians(shooting.flow, result.y)
        self.solved.append((stage, _objective(shooting, result.y), float(np.median(H))))
        return True

    def sharpen(self) -> bool:
        """Solve the geodesic there is more accurately where H drifts on it; keep it if that helped.

        A factorisation or two, on the same nodes. Returns whether the path is another.
        """
        path, options = self.path, self.options
        assert path is not None  # after a solve that succeeded
        drift = self.drift(path)
        gauss = options.integrator == "gauss"  # whose steps decide about the drift
        if gauss or options.tol < FINEST or drift <= DRIFT * options.tol:
            return False
        count, before = len(self.solved), self.solved[-1]
        self.watch.stage = "more accurately"
        self.options = replace(options, tol=FINER * options.tol)
        try:
            plain = self.problem.activation == "relu" and path.stage.epsilon == 0
            solved = self.solve(path, path.stage, plain_relu=plain)
        finally:
            self.options = options
        better = solved and self.path is not None and self.drift(self.path) < drift
        self.solved[count - 1:] = self.solved[-1:] if better else [before]
        if not better:
            self.path = path
        return better

    def drift(self, path: Path) -> float:
        """Of the Hamiltonian along a path, relative to its size, at the nodes."""
        plain = self.problem.activation == "relu" and path.stage.epsilon == 0
        return ham.hamiltonian_drift(hamiltonians(self.shooting(path.stage, plain).flow, path.y))

    def _by_states(
        self, shooting: ShootingProblem, path: Path, record: Callable[[NDArray, float], None]
    ) -> NewtonResult:
        """The same by `solve_two_point`, in the exact (A, B) form."""
        result = two_point(shooting, path.t, path.y)(
            tol=self.options.tol, max_iter=self.options.max_iter, max_nodes=1600,
            time_limit=None if np.isinf(self.watch.remaining) else max(self.watch.remaining, 1e-3),
            callback=lambda it: record(path.y, it.correction),
        )
        y = result.y.reshape(-1, *path.y.shape[1:])
        return NewtonResult(result.t, y, result.success, result.message, result.nit, result.nit,
                               result.correction, True, float("nan"))

    def curvature(self, path: Path) -> tuple[bool, float]:
        """Whether the second variation is positive at a geodesic, as its mesh tells; its pivot.

        By the model of the Newton systems, see `LinearQuadraticSystem`: a factorisation.
        """
        plain = self.problem.activation == "relu" and path.stage.epsilon == 0
        shooting = self.shooting(path.stage, plain)
        size = np.abs(path.y).max((0, 2, 3))
        form = "auto" if self.options.form == "state" else self.options.form
        try:
            system, _ = shooting.newton_system(path.t, path.y, form,
                                               1e6 * float(size[1] / (size[0] or 1.0)))
        except np.linalg.LinAlgError:
            return False, float("nan")
        return bool(system.definite), float(system.least)

    def on_mesh(self, path: Path, least: int = 0) -> Path:
        """A guess carried over to the shooting nodes, linearly.

        These are at least so many segments, up to MOST_SEGMENTS, unless the options say how many.
        """
        segments = self.options.segments or max(
            60, int(12 * self.problem.effective_depth), min(least, MOST_SEGMENTS))
        t = np.linspace(0, 1, segments + 1)
        if len(path.t) == len(t) and np.allclose(path.t, t, rtol=0, atol=1e-14):
            return path
        return path._replace(t=t, y=interpolate(path.t, path.y, t))


def _plain(value: Any) -> Any:
    """Numbers of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _objective(shooting: ShootingProblem, y: NDArray) -> float:
    """J, with the energies of the last integration."""
    loss = 0.0 if shooting.endpoint is not None else \
        float(ham.loss(y[-1, 0], shooting.readout, shooting.targets, shooting.criterion))
    return loss + shooting.weight_decay * float(shooting.flow.energies.sum())
