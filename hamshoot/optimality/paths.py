"""The check of continuous paths: each interval integrated anew from its stored left node.

SciPy's DOP853 integrates the flow of the certificate's own formulas; the controls follow from A and
B by an equation, which holds to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamshoot.optimality import checks, formulas
from hamshoot.optimality.checks import (
    CLAIMED,
    CLAIMING,
    NAN,
    NO_EPSILON,
    ROUNDING,
    Asked,
    Bound,
    Findings,
)
from hamshoot.optimality.formulas import Setting
from hamshoot.optimality.second_order_layers import STATIONARY
from hamshoot.optimality.second_order_path import PathSecondOrder, Trajectory, path_second_order
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bounds on the defects of A and B: what two integrators leave, each accurate to 1e-11 of a state
#: whose B takes up the errors of the whole interval. (Measured 4e-11 and 7e-10 at L̃ = 4.)
INTEGRATED = (1e-9, 1e-7)
#: Recorded numbers agree to this, relatively: ∫‖W‖² is integrated anew too.
AGREEMENT = 1e-9
#: Evaluations of the flow at most: over one interval, and of all together for each. What takes more
#: is no path that anybody integrated, and would take for ever.
MOST_EVALUATIONS, MOST_EACH = 20_000, 5_000
#: Why a path whose maps are learned is not proved to be a minimum.
HELD = "lift and readout are learned, and the test of paths holds them as they are"
#: Tolerances of the integration anew.
RELATIVE, ABSOLUTE = 1e-11, 1e-12


def check_path(solution: Solution, asked: Asked) -> Findings:
    """Check a continuous path; of a smoothed ReLU network, as that of the smoothed flow."""
    A, B, W = solution.representations, solution.momenta, solution.weights
    broken = sum(int(np.sum(~np.isfinite(array))) for array in (solution.p, A, B, W))
    if broken:
        return _not_finite(broken)
    plain = checks.setting_of(solution.problem)
    smooth = checks.smoothed(plain, solution)
    setting = plain if smooth is None else smooth
    ends_A, ends_B, norm, trajectory = _integrate(solution, setting)
    loss = 0.0 if setting.targets is None else float(formulas.loss(setting, A[-1]))
    control, H = formulas.control(setting, A, B), formulas.hamiltonian(setting, A, B)
    decays = setting.decay / (2 * setting.leak) * norm + float(formulas.map_decay(setting))
    measured = {"objective": loss + decays, "loss": loss, "parameter_norm": norm}
    stored = {"defect": _nodes_apart(A[1:], ends_A), "costate_defect": _nodes_apart(B[1:], ends_B)}
    residuals = {"stationarity": formulas.stationarity(W, W - formulas.control(plain, A, B)),
                 "boundary_residual": checks.boundary_residual(setting, solution),
                 "hamiltonian_drift": checks.drift(H),
                 **formulas.map_stationarities(setting, A[-1], B[0])}
    terms = formulas.control(setting, np.abs(A), np.abs(B))
    rounded = _rounded(setting, A, B, W, terms, H)
    bounds = [
        _nodes(solution),
        *checks.defects(stored["defect"], stored["costate_defect"], asked, INTEGRATED),
        Bound("controls against L̃Bσ̂(A)ᵀ", checks.entries_apart(W, control, terms),
              ROUNDING if asked.defect is None else asked.defect),
        *checks.agreement(solution, measured, residuals, asked, AGREEMENT, terms=rounded),
        *checks.counted(solution, 0, asked),
        *checks.stationary(solution, residuals["stationarity"], asked),
        checks.boundary(residuals["boundary_residual"], asked),
    ]
    bounds += _maps(solution, residuals, asked)
    bounds += _own_records(plain, solution, float(np.median(H)), asked)
    if solution.status in CLAIMING:
        bounds.append(Bound("Hamiltonian drift", residuals["hamiltonian_drift"], asked.drift))
    if solution.status is Status.SMOOTHED and smooth is None:
        bounds.append(NO_EPSILON)
    extremal = {"control": formulas.stationarity(W, W - control), **stored,
                "boundary_residual": residuals["boundary_residual"]}
    verdict = _second_order(solution.problem, setting, trajectory, asked.second_order, extremal)
    numbers = {**measured, **stored, **residuals, "clarke_residual": NAN, "kinks": 0,
               "idle_kinks": 0, "hamiltonian": float(np.median(H)),
               "second_order": verdict.verdict, "min_eigenvalue": verdict.min_eigenvalue,
               **checks.map_parts(setting)}
    return Findings(numbers, bounds)


def _maps(solution: Solution, residuals: dict[str, float], asked: Asked) -> list[Bound]:
    """Bounds on how stationary learned maps are, of a path that claims it or is asked."""
    if solution.status not in CLAIMING and asked.stationarity is None:
        return []
    most = CLAIMED if asked.stationarity is None else asked.stationarity
    return [Bound(name.replace("_", " "), residuals[name], most)
            for name in ("lift_stationarity", "readout_stationarity") if name in residuals]


def _rounded(setting: Setting, A: NDArray, B: NDArray, W: NDArray, terms: NDArray, H: NDArray
             ) -> dict[str, float]:
    """The residuals with the absolute values of all terms that they are made of.

    H has ‖W‖²/(2L̃), which changes with the terms of W by ‖W‖ times them over L̃.
    """
    norms, sizes = (np.linalg.norm(M, axis=(1, 2)) for M in (W, terms))
    sizes = norms * sizes / setting.leak + setting.leak * np.sum(np.abs(A * B), axis=(1, 2))
    return {"stationarity": formulas.stationarity(W, np.abs(W) + terms),
            "boundary_residual": checks.boundary_terms(setting, A[-1]),
            "hamiltonian_drift": float(sizes.max() / max(1.0, abs(float(np.median(H))))),
            **{name: value for name, value in checks.map_terms(
                setting, A, B, {"stationarity": 0.0}).items() if name != "stationarity"}}


def _own_records(setting: Setting, solution: Solution, median: float, asked: Asked) -> list[Bound]:
    """What the solver recorded besides, where it did: the median of H, its defect, and ε.

    Its defect is measured otherwise than here; of an extremal both are small.
    """
    extra, bounds = solution.extra, []
    if "hamiltonian" in extra:
        most = AGREEMENT if asked.agreement is None else asked.agreement
        bounds.append(checks.recorded("hamiltonian", abs(extra["hamiltonian"] - median),
                                      max(checks.STORED_FLOOR, most * abs(median))))
    if "defect" in solution.residuals and solution.status in CLAIMING:
        bounds.append(Bound("recorded defect", solution.residuals["defect"],
                            INTEGRATED[1] if asked.defect is None else asked.defect))
    if "epsilon" in extra and setting.activation not in formulas.SMOOTHED:
        bounds.append(Bound("recorded against given ε", abs(extra["epsilon"] - setting.epsilon),
                            0.0))
    return bounds


def _not_finite(entries: int) -> Findings:
    """Nothing can be integrated then."""
    names = ("objective", "loss", "parameter_norm", "defect", "costate_defect",
             "boundary_residual", "stationarity", "clarke_residual", "hamiltonian",
             "hamiltonian_drift", "min_eigenvalue")
    numbers = {**dict.fromkeys(names, NAN), "kinks": 0, "idle_kinks": 0,
               "second_order": "not decided: numbers are not finite"}
    return Findings(numbers, [Bound("stored entries that are not finite", float(entries), 0.0)])


def _nodes(solution: Solution) -> Bound:
    p = solution.p
    ascending = p[0] == 0 and p[-1] == 1 and np.all(np.diff(p) > 0)
    return Bound("nodes p that do not ascend from 0 to 1", float(not ascending), 0.0)


def _integrate(
    solution: Solution, setting: Setting
) -> tuple[NDArray, NDArray, float, Trajectory | None]:
    """Ends A and B of every interval, from its stored left node, ∫‖W‖² dp, and all between.

    Where numbers overflow the ends are NaN, and there is nothing between.
    """
    from scipy.integrate import solve_ivp

    p, shape = solution.p, setting.start.shape
    evaluations, most = 0, MOST_EVALUATIONS

    def rates(_: float, y: NDArray) -> NDArray:
        nonlocal evaluations
        evaluations += 1
        if evaluations > most:
            raise FloatingPointError
        a, b = y[:-1].reshape(2, *shape)
        squares = np.sum(formulas.control(setting, a, b) ** 2)
        out = np.concatenate([*(r.ravel() for r in formulas.flow(setting, a, b)), [squares]])
        if not np.all(np.isfinite(out)):
            raise FloatingPointError  # SciPy would try shorter steps for ever
        return out

    ends, pieces, norm = [], [], 0.0
    for k in range(len(p) - 1):
        y = np.concatenate([solution.representations[k].ravel(), solution.momenta[k].ravel(), [0]])
        most = min(evaluations, MOST_EACH * k) + MOST_EVALUATIONS
        try:
            piece = solve_ivp(rates, (p[k], p[k + 1]), y, method="DOP853", rtol=RELATIVE,
                              atol=ABSOLUTE, dense_output=True)
        except FloatingPointError:
            nothing = np.full((len(p) - 1, *shape), NAN)
            return nothing, nothing, NAN, None
        end = piece.y[:, -1]
        pieces.append(piece.sol)
        ends.append(end[:-1].reshape(2, *shape))
        norm += float(end[-1])
    A, B = np.array(ends).swapaxes(0, 1)
    return A, B, norm, Trajectory(pieces, shape)


def _nodes_apart(stored: NDArray, integrated: NDArray) -> float:
    """Largest ‖stored − integrated‖ of a node, relative to its norm."""
    apart = np.linalg.norm(stored - integrated, axis=(1, 2))
    return float(np.max(checks.relative(apart, 0.0, np.linalg.norm(integrated, axis=(1, 2)))))


def _second_order(
    problem: TrainingProblem, setting: Setting, trajectory: Trajectory | None, wanted: bool,
    residuals: dict[str, float],
) -> PathSecondOrder:
    """The test, if asked for and if the path is an extremal to begin with."""
    if not wanted:
        return PathSecondOrder("not decided: not asked for", NAN, NAN, 0)
    name, most = max(residuals.items(), key=lambda item: checks.worst(item[1]))
    if not most <= STATIONARY:
        name = name.replace("_", " ")
        return PathSecondOrder(f"not decided: not an extremal ({name} {most:.1e})", NAN, NAN, 0)
    sigma = problem.sigma if setting.activation == problem.activation else \
        problem.sigma.smoothed(setting.epsilon)
    assert trajectory is not None  # where nothing was integrated, the defects are NaN
    found = path_second_order(problem, sigma, trajectory, trajectory.breaks)
    if setting.learns and found.verdict.startswith("strict local minimum"):
        found = found._replace(verdict=f"not decided: {HELD}; with these the path is a "
                               f"{found.verdict}")
    return found
