"""What every check of a solution is made of: bounds, the claim of a status, recorded numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.optimality import formulas
from hamshoot.optimality.formulas import Setting
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bound on the stationarity that a status claims, unless the caller asks for another.
CLAIMED = 1e-6
#: Bound on what is equal but for rounding: 450 units of the last place, where an entry is a sum of
#: some hundreds of terms taken in another order. Measured are 1e-15; a change by 1e-9 stands out.
ROUNDING = 1e-13
#: Recorded residuals agree to the agreement asked for, or to this: rounding in what is computed
#: from the stored arrays, and rounding that a roll-out has amplified. (Measured 1e-14, and 3e-12 at
#: L̃ = 15.)
STORED_FLOOR, SWEPT_FLOOR = 1e-12, 1e-10
#: Or to this share of the sizes of their terms: where λ is small, or data are large, a residual is
#: a small difference of large sums. (Measured 6e-12 where terms are 1e5, 2e-17 of them.)
TERMS = 1e-14
#: Outputs that differ by less than this share of what the targets do are the same, as for solvers.
COLLAPSE = 0.05
#: Statuses that claim a stationary point.
CLAIMING = (Status.CONVERGED, Status.SMOOTHED)
NAN = float("nan")


class Bound(NamedTuple):
    """One check: a number, the most it may be, and whether it holds."""

    name: str
    value: float
    most: float

    @property
    def holds(self) -> bool:
        """value ≤ most; NaN does not hold."""
        return bool(self.value <= self.most)


#: Of a solution that claims to be stationary once smoothed, and does not say how.
NO_EPSILON = Bound("stationarity of a smoothed network, of which no ε is known", NAN, CLAIMED)


class Asked(NamedTuple):
    """The arguments of `certify`; and whether the solution records numbers to be held against."""

    stationarity: float | None
    defect: float | None
    boundary_residual: float
    drift: float
    agreement: float | None
    second_order: bool
    max_controls: int
    records: bool = True


class Findings(NamedTuple):
    """What a check found.

    Attributes
    ----------
    numbers : dict
        Fields of the certificate by name.
    bounds : list of Bound
    """

    numbers: dict[str, Any]
    bounds: list[Bound]


# -- the data of the formulas ----------------------------------------------------------------------


def setting_of(
    problem: TrainingProblem, block: tuple[NDArray, NDArray, NDArray | None] | None = None
) -> Setting:
    """The data of a problem, or of a block of its samples, (A_0, Yᵀ, weights), for the formulas."""
    loss = problem.criterion
    hard = problem.hard_endpoint
    start, targets, weights = block if block is not None else \
        (problem.initial_state, None if hard else problem.targets, loss.weights)
    return Setting(start, targets, problem.endpoint, problem.readout, problem.effective_depth,
                   problem.weight_decay, problem.bias, problem.sigma.name, problem.sigma.epsilon,
                   problem.n_samples, problem.sigma.negative_slope, problem.sigma.functions,
                   loss.name, loss.delta, weights, *learned_in(problem))


def learned_in(problem: TrainingProblem) -> tuple[NDArray | None, NDArray | None, float, float]:
    """P, Xᵀ, μ_P and μ_Q for the formulas; nothing where the maps are fixed."""
    if not problem.learns:
        return None, None, 0.0, 0.0
    inputs = problem.input_scaling.apply(np.asarray(problem.X)).T
    return problem.lift, inputs, problem.lift_decay or 0.0, problem.readout_decay or 0.0


def smoothed(setting: Setting, solution: Solution) -> Setting | None:
    """The (leaky) ReLU network smoothed with the ε that the solution records; None without one."""
    path = solution.steps is None
    epsilon = solution.epsilon if path else solution.residuals.get("epsilon")
    if setting.activation not in formulas.SMOOTHED or not epsilon or not epsilon > 0:
        return None
    return setting._replace(activation=formulas.SMOOTHED[setting.activation], epsilon=epsilon)


def collapsed(solution: Solution) -> bool:
    """Whether a network with stored states has the same output for all samples.

    That is a stationary point which has not seen its inputs, and often a minimum: outputs hardly
    differ where targets do, and fit no better than the mean of the targets, or than 0.
    """
    problem = solution.problem
    if problem.hard_endpoint or not solution.stored:
        return False
    out, asked = problem.readout @ solution.representations[-1], problem.targets
    if problem.criterion.name == "cross_entropy":
        grown = np.exp(out - out.max(axis=0))
        out = grown / grown.sum(axis=0)
    pairs = [(out, asked)]
    centred = asked - asked.mean(axis=1, keepdims=True)
    if np.sum(centred**2) > 1e-12 * np.sum(asked**2):
        pairs.append((out - out.mean(axis=1, keepdims=True), centred))
    with np.errstate(all="ignore"):
        missed = np.sum((out - asked) ** 2)
        return any(np.sum(o**2) <= COLLAPSE**2 * np.sum(a**2)
                   and missed >= (1 - 2 * COLLAPSE) * np.sum(a**2) for o, a in pairs)


# -- bounds ----------------------------------------------------------------------------------------


def defects(
    of_states: float, of_momenta: float, asked: Asked, default: tuple[float, float]
) -> list[Bound]:
    """Bounds on the stored arrays."""
    most = default if asked.defect is None else (asked.defect, asked.defect)
    return [Bound("defect of the representations", of_states, most[0]),
            Bound("defect of the momenta", of_momenta, most[1])]


def agreement(
    solution: Solution, measured: dict[str, float], residuals: dict[str, float], asked: Asked,
    default: float, floor: float = STORED_FLOOR, terms: dict[str, float] | None = None,
) -> list[Bound]:
    """Recorded numbers against recomputed ones, relative to themselves; residuals to a floor.

    None of a candidate, which records nothing. `terms` are the residuals with the absolute values
    of all terms that they are made of, by which the floor rises; that of the loss is `loss_terms`.
    """
    if not asked.records:
        return []
    most = default if asked.agreement is None else asked.agreement
    terms = terms or {}
    bounds = [recorded(name, float(relative(getattr(solution, name), value)),
                       max(most, TERMS * terms.get(name, 0.0)))
              for name, value in measured.items()]
    for name, value in residuals.items():
        if name in solution.residuals or name == "stationarity":
            bounds.append(recorded(name, abs(solution.residuals.get(name, NAN) - value),
                                   max(floor, most * abs(value),
                                       TERMS * terms.get(name, 0.0))))
    return bounds


def recorded(name: str, apart: float, most: float) -> Bound:
    """How far a recorded number is from the recomputed one."""
    return Bound(f"recorded against recomputed {name.replace('_', ' ')}", float(apart), most)


def counted(solution: Solution, kinks: int, asked: Asked, unsure: int = 0) -> list[Bound]:
    """The recorded number of kinks against the one counted, where it is recorded."""
    apart = float(abs(solution.kinks - kinks))
    return [Bound("recorded against counted kinks", apart, float(unsure))] if asked.records else []


def stationary(solution: Solution, measured: float, asked: Asked) -> list[Bound]:
    """The bound on the stationarity: the one asked for, or that of the claim to have converged."""
    most = asked.stationarity
    if most is None and solution.status is Status.CONVERGED:
        most = CLAIMED
    return [] if most is None else [Bound("stationarity", measured, most)]


def boundary(value: float, asked: Asked, of: str = "") -> Bound:
    """The bound on the boundary residual."""
    return Bound(f"boundary residual{of}", value, asked.boundary_residual)


# -- distances -------------------------------------------------------------------------------------


def boundary_residual(setting: Setting, solution: Solution) -> float:
    """Largest violation of A_0 = PXᵀ and of the condition at p = 1, relative to max(1, norm)."""
    A, B = solution.representations, solution.momenta
    if setting.endpoint is not None:
        end = missed(A[-1], setting.endpoint)
    else:
        end = missed(B[-1], formulas.terminal(setting, A[-1]))
    return max(missed(A[0], setting.start), end, key=worst)


def boundary_terms(setting: Setting, end: NDArray) -> float:
    """The same with the absolute values of the terms of B_1; 0 with a hard endpoint."""
    if setting.targets is None:
        return 0.0
    terms = terminal_terms(setting, end)
    return float(np.linalg.norm(terms)
                 / max(1.0, np.linalg.norm(formulas.terminal(setting, end))))


def loss_terms(setting: Setting, A: NDArray) -> float:
    """How much the loss changes, relative to itself, when each QA_1 − Yᵀ does by its terms.

    These are |Q| max_ℓ|A_ℓ| + |Y|, since rounding in A_1 is that of the largest states before it: a
    loss far below the data is a small difference of large sums. 0 with a hard endpoint.
    """
    if setting.targets is None:
        return 0.0
    missed_by = np.abs(setting.readout @ A[-1] - setting.targets)
    terms = np.abs(setting.readout) @ np.abs(A).max(axis=0) + np.abs(setting.targets)
    loss = float(np.sum(missed_by**2))
    changed = 2 * float(np.sum(missed_by * terms)) + TERMS * float(np.sum(terms**2))
    return changed / loss if loss > 0 else 0.0


def terminal_terms(setting: Setting, end: NDArray) -> NDArray:
    """(2/(λN)) |Q|ᵀ(|Q||A_1| + |Yᵀ|), (w, N); of another loss with the largest slopes it has."""
    targets = setting.targets
    assert targets is not None
    if setting.loss == "cross_entropy":  # |π − y| ≤ π + y, and an error of z is one of ln π
        reach = 1 + targets + np.abs(setting.readout) @ np.abs(end)
        if setting.sample_weights is not None:
            reach = setting.sample_weights * reach
        return np.abs(setting.readout).T @ reach / (setting.decay * setting.samples)
    setting = setting._replace(loss="squared")
    positive = setting._replace(readout=np.abs(setting.readout), targets=-np.abs(targets))
    return np.abs(formulas.terminal(positive, np.abs(end)))


def map_terms(setting: Setting, A: NDArray, B: NDArray, terms: dict[str, float]
              ) -> dict[str, float]:
    """The stationarity of learned maps with the absolute values of its terms, beside `terms`."""
    if not setting.learns:
        return terms
    found = {}
    if setting.lift_decay > 0:
        assert setting.lift is not None
        assert setting.inputs is not None
        positive = setting._replace(lift=np.abs(setting.lift), inputs=np.abs(setting.inputs))
        found["lift_stationarity"] = formulas.map_stationarities(
            positive._replace(readout_decay=0.0), A[-1], -np.abs(B[0]))["lift_stationarity"]
    if setting.readout_decay > 0:
        pull = np.abs(formulas.slopes_of_loss(setting, setting.readout @ A[-1])) / setting.samples
        size = max(1.0, float(np.linalg.norm(setting.readout)))
        found["readout_stationarity"] = float(np.linalg.norm(
            np.abs(setting.readout) + pull @ np.abs(A[-1]).T / setting.readout_decay)) / size
    return {**terms, **found, "stationarity": max(terms["stationarity"], *found.values())}


def map_parts(setting: Setting) -> dict[str, float]:
    """The part of J that learned maps have; nothing where they are fixed."""
    return {"map_decay": float(formulas.map_decay(setting))} if setting.learns else {}


def missed(stored: NDArray, given: NDArray) -> float:
    """‖stored − given‖ / max(1, ‖given‖)."""
    return float(np.linalg.norm(stored - given) / max(1.0, np.linalg.norm(given)))


def entries_apart(stored: NDArray, computed: NDArray, terms: NDArray) -> float:
    """Largest |stored − computed| / terms of an entry; 0/0 is 0."""
    return float(np.max(relative(stored, computed, terms)))


def relative(stored: Any, computed: Any, size: Any = None) -> NDArray:
    """|stored − computed| / size, by default relative to |computed|; 0/0 is 0."""
    apart = np.abs(np.asarray(stored, dtype=float) - computed)
    size = np.abs(computed) if size is None else size
    return np.divide(apart, size, out=np.zeros_like(apart), where=apart != 0)


def drift(H: NDArray) -> float:
    """(max H − min H) / max(1, |median H|)."""
    return float((H.max() - H.min()) / max(1.0, abs(float(np.median(H)))))


def worst(value: float) -> float:
    """The order in which NaN is the worst."""
    return np.inf if np.isnan(value) else value
