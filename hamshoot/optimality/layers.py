"""The check of layered networks: a roll-out, a costate with the stored slopes, one step at a time.

The stored momenta are a witness. Off the kink of ReLU

    B_{ℓ−1} − (1 − ρ_ℓL̃) B_ℓ = σ′(A_{ℓ−1}) ⊙ v_ℓ,    v_ℓ = ρ_ℓW_ℓᵀB_ℓ,

and at an entry on the kink the left side must lie between αv and v, with α the slope of a leaky
ReLU and 0 for ReLU: then it is d ⊙ v for slopes d ∈ [α, 1], an element of Clarke's
subdifferential, and stationarity with these slopes is proof.

Each step of the stored arrays is compared with the formulas entry by entry, relative to the sum of
the absolute values of the terms that make the entry: nothing but rounding may be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.optimality import checks, formulas, learned
from hamshoot.optimality.checks import NAN, NO_EPSILON, ROUNDING, Asked, Bound, Findings
from hamshoot.optimality.formulas import Setting
from hamshoot.optimality.kinks import KINK_TOLERANCE
from hamshoot.optimality.second_order_layers import SecondOrder, second_order
from hamshoot.solution.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Recorded numbers agree to this, relatively. (Measured 5e-15: the objective is a short sum.)
AGREEMENT = 1e-10
#: How much more rounding there may be in two roll-outs than in two sums over the same states.
SWEPT = checks.SWEPT_FLOOR / checks.STORED_FLOOR
#: A column of W below this times the largest one (or 1) reads nothing.
IDLE_COLUMN = 1e-13
#: Entries off the kink by no more than this share of the largest are near it: as far as rounding to
#: single precision takes them, or training that was not finished leaves them.
NEAR_KINK = 1e-5
#: Numbers of the representations of one block, where the states are not stored.
BLOCK_NUMBERS = 2_000_000


# -- with stored states ----------------------------------------------------------------------------


def check_stored(solution: Solution, asked: Asked) -> Findings:
    """Check layers with stored states."""
    setting, rule = checks.setting_of(solution.problem), solution.integrator
    W, steps, momenta = solution.weights, steps_of(solution), solution.momenta
    A = formulas.roll_out(setting, W, steps, rule)
    on_kink, idle = kinks(setting, A, W, rule)
    slopes = witnessed_slopes(setting, A, W, steps, momenta, on_kink)
    end = momenta[-1] if setting.targets is None else None
    B, G = formulas.costates(setting, A, W, steps, rule, slopes, end)
    measured = _objective(setting, A[-1], W, steps)
    costate_defect, own_G, terms_G = check_costate(setting, solution, on_kink)
    stored = {"defect": state_defect(setting, solution), "costate_defect": costate_defect}
    residuals = {**_residuals(setting, W, steps, G, (A, B)),
                 "boundary_residual": checks.boundary_residual(setting, solution)}
    own = {**residuals, "defect": stored["defect"],
           **_residuals(setting, W, steps, own_G, (solution.representations, momenta))}
    terms = {**checks.map_terms(setting, A, B, _residuals(setting, W, steps, terms_G)),
             "boundary_residual": checks.boundary_terms(setting, A[-1]),
             "loss": checks.loss_terms(setting, A)}
    bounds = [
        *_nodes(solution),
        *checks.defects(stored["defect"], costate_defect, asked, (ROUNDING, ROUNDING)),
        *checks.agreement(solution, measured, own, asked, AGREEMENT, terms=terms),
        *checks.counted(solution, int(on_kink.sum()), asked),
        *checks.stationary(solution, residuals["stationarity"], asked),
    ]
    if solution.status is Status.SMOOTHED:
        bounds += _smoothed_claim(setting, solution, end, asked)
    else:
        bounds += [checks.boundary(residuals["boundary_residual"], asked),
                   *_own_records(setting, solution, measured["objective"],
                                 own["stationarity"], asked, terms["stationarity"])]
    H = formulas.hamiltonian(setting, *((A[:-1], B[1:]) if rule == "euler" else (A, B)))
    numbers = {
        **measured, **residuals, **stored, "layer_stationarity": _by_layer(W, G),
        **checks.map_parts(setting),
        "hamiltonian": float(np.median(H)),
        "hamiltonian_drift": checks.drift(H), "kinks": int(on_kink.sum()),
        "idle_kinks": int(idle.sum()), "near_kinks": near_kinks(setting, A, W, rule),
        **_second_order(solution, measured["objective"], asked, slopes),
    }
    return Findings(numbers, bounds)


def kinks(
    setting: Setting, A: NDArray, W: NDArray, rule: str, tolerance: float = KINK_TOLERANCE
) -> tuple[NDArray, NDArray]:
    """Entries of the left nodes on the kink, (L, w, N), and those of them that nothing reads.

    None at the first node, where A is given unless the lift is learned, nor between RK4 layers,
    whose stages pass the kink.
    """
    left = A[:-1]
    on_kink = np.zeros(left.shape, bool)
    if setting.activation in formulas.SMOOTHED and rule == "euler":
        on_kink[:] = np.abs(left) <= tolerance * max(1.0, float(np.abs(left).max()))
        on_kink[0] &= setting.lift_decay > 0
    columns = np.linalg.norm(W[:, :, : A.shape[1]], axis=1)[:, :, None]
    return on_kink, on_kink & (columns <= IDLE_COLUMN * columns.max(initial=1.0))


def near_kinks(setting: Setting, A: NDArray, W: NDArray, rule: str) -> int:
    """How many entries are near the kink and not on it, of neurons that are read."""
    counts = []
    for tolerance in (NEAR_KINK, KINK_TOLERANCE):
        on_kink, idle = kinks(setting, A, W, rule, tolerance)
        counts.append(int(np.sum(on_kink & ~idle)))
    return counts[0] - counts[1]


def witnessed_slopes(
    setting: Setting, A: NDArray, W: NDArray, steps: NDArray, momenta: NDArray, on_kink: NDArray
) -> NDArray | None:
    """σ′, (L, w, N), with the stored momenta's d in [α, 1] on the kink; None without kinks.

    Where v = 0 any d will do. What the momenta say beyond [α, 1] is left to their defect.
    """
    if not on_kink.any():
        return None
    rho = steps[:, None, None]
    force = rho * np.swapaxes(W[:, :, : A.shape[1]], 1, 2) @ momenta[1:]
    passed = momenta[:-1] - (1 - rho * setting.leak) * momenta[1:]
    d = np.clip(np.divide(passed, force, out=np.zeros_like(force), where=force != 0),
                setting.negative_slope, 1)
    return np.where(on_kink, d, formulas.slope(setting, A[:-1]))


def state_defect(setting: Setting, solution: Solution) -> float:
    """Largest defect of an entry of the stored representations, relative to its terms."""
    A, W, rule = solution.representations, solution.weights, solution.integrator
    rho = steps_of(solution)[:, None, None]
    positive = setting._replace(leak=-setting.leak)  # on absolute values every term then adds
    return max(
        checks.entries_apart(A[0], setting.start, np.abs(setting.start)),
        checks.entries_apart(A[1:], formulas.step(setting, A[:-1], W, rho, rule),
                             formulas.step(positive, np.abs(A[:-1]), np.abs(W), rho, rule)),
        key=checks.worst,
    )


def check_costate(
    setting: Setting, solution: Solution, on_kink: NDArray
) -> tuple[float, NDArray, NDArray]:
    """Largest defect of an entry of the stored momenta, relative to its terms; their G.

    And G of the absolute values of all terms, |W_ℓ| + L̃|B_ℓ|σ̂(|A_{ℓ−1}|)ᵀ.
    """
    A, B, W = solution.representations, solution.momenta, solution.weights
    steps, rule = steps_of(solution), solution.integrator
    rho, slopes = steps[:, None, None], witnessed_slopes(setting, A, W, steps, B, on_kink)
    back, G = formulas.pull_back(setting, A[:-1], W, rho, B[1:], rule, slopes)
    positive = setting._replace(leak=-setting.leak)
    terms, terms_G = formulas.pull_back(positive, np.abs(A[:-1]), np.abs(W), rho, np.abs(B[1:]),
                                        rule, slopes)
    apart = checks.entries_apart(B[:-1], back, terms)
    apart = max(apart, _terminal_defect(setting, A[-1], B[-1]), key=checks.worst)
    return apart, G, terms_G


def _terminal_defect(setting: Setting, end: NDArray, momenta: NDArray) -> float:
    """The same of B_L; with a hard endpoint it is a multiplier, and free."""
    if setting.targets is None:
        return 0.0
    return checks.entries_apart(momenta, formulas.terminal(setting, end),
                                checks.terminal_terms(setting, end))


def _smoothed_claim(
    setting: Setting, solution: Solution, end: NDArray | None, asked: Asked
) -> list[Bound]:
    """What SMOOTHED claims: the smoothed network is stationary, and it reaches a hard endpoint."""
    smooth, W, steps, rule = (checks.smoothed(setting, solution), solution.weights,
                              steps_of(solution), solution.integrator)
    if smooth is None:
        return [NO_EPSILON]
    A = formulas.roll_out(smooth, W, steps, rule)
    B, G = formulas.costates(smooth, A, W, steps, rule, end=end)
    positive = smooth._replace(leak=-smooth.leak)
    _, terms = formulas.pull_back(positive, np.abs(A[:-1]), np.abs(W), steps[:, None, None],
                                  np.abs(B[1:]), rule)
    bounds = _smooth_bounds(
        solution, _objective(smooth, A[-1], W, steps)["objective"],
        _residuals(smooth, W, steps, G, (A, B))["stationarity"], asked,
        checks.map_terms(smooth, A, B, _residuals(smooth, W, steps, terms))["stationarity"])
    if setting.endpoint is not None:
        apart = checks.missed(A[-1], setting.endpoint)
        bounds.append(checks.boundary(apart, asked, " of the smoothed network"))
    return bounds


def _smooth_bounds(
    solution: Solution, objective: float, value: float, asked: Asked, terms: float = 0.0
) -> list[Bound]:
    """Bounds on the stationarity of the smoothed network, and on what is recorded of it."""
    return [Bound("stationarity of the smoothed network", value,
                  max(checks.CLAIMED, asked.stationarity or 0.0)),
            *_smooth_records(solution, objective, value, asked, terms)]


def _smooth_records(
    solution: Solution, objective: float, stationarity: float, asked: Asked, terms: float
) -> list[Bound]:
    """What the solver recorded of the smooth network that it solved, where it did.

    It had states and costates of its own sweeps: rounding that they amplify is in both. `terms` is
    the stationarity with the absolute values of its terms.
    """
    numbers, bounds = solution.residuals, []
    most = AGREEMENT if asked.agreement is None else asked.agreement
    if "smooth_stationarity" in numbers:
        bounds.append(checks.recorded(
            "smooth stationarity", abs(numbers["smooth_stationarity"] - stationarity),
            max(checks.SWEPT_FLOOR, most * stationarity, SWEPT * checks.TERMS * terms)))
    if "smooth_objective" in numbers:
        apart = float(checks.relative(numbers["smooth_objective"], objective))
        bounds.append(checks.recorded("smooth objective", apart, most))
    return bounds


def _own_records(
    setting: Setting, solution: Solution, objective: float, stationarity: float, asked: Asked,
    terms: float = 0.0,
) -> list[Bound]:
    """The same of a network that is smooth itself: then the two are one.

    (Of a ReLU network that was polished it is an account of the way, and cannot be recomputed.)
    """
    if setting.activation in formulas.SMOOTHED or solution.status is not Status.CONVERGED:
        return []
    epsilon = solution.residuals.get("epsilon", setting.epsilon)
    return [Bound("recorded against given ε", abs(epsilon - setting.epsilon), 0.0),
            *_smooth_records(solution, objective, stationarity, asked, terms)]


# -- with states that are not stored ---------------------------------------------------------------


class _Sums(NamedTuple):
    """What is summed over blocks of samples.

    Entries within a factor 2 of the tolerance of a kink, relative to the largest entry of a block,
    are `unsure`: other blocks may count otherwise.
    """

    objective: dict[str, float]
    G: NDArray
    hamiltonian: NDArray
    kinks: int
    idle: int
    unsure: int


def check_blocks(solution: Solution, asked: Asked) -> Findings:
    """Check layers from the controls alone, by blocks of samples."""
    W, steps = solution.weights, steps_of(solution)
    setting = checks.setting_of(solution.problem, next(_blocks(solution)))
    sums = _sums(solution, setting)
    residuals = _residuals(setting, W, steps, sums.G)
    bounds = [
        *_nodes(solution),
        *checks.agreement(solution, sums.objective, residuals, asked, AGREEMENT,
                          checks.SWEPT_FLOOR),
        *checks.counted(solution, sums.kinks, asked, sums.unsure),
        *checks.stationary(solution, residuals["stationarity"], asked),
    ]
    bounds += _own_records(setting, solution, sums.objective["objective"],
                           residuals["stationarity"], asked)
    if solution.status is Status.SMOOTHED:
        smooth = checks.smoothed(setting, solution)
        if smooth is None:
            bounds.append(NO_EPSILON)
        else:
            again = _sums(solution, smooth)
            bounds += _smooth_bounds(solution, again.objective["objective"],
                                     formulas.stationarity(W, again.G), asked)
    numbers = {
        **sums.objective, **residuals, "layer_stationarity": _by_layer(W, sums.G),
        "defect": 0.0, "costate_defect": 0.0,
        "boundary_residual": 0.0, "hamiltonian": float(np.median(sums.hamiltonian)),
        "hamiltonian_drift": checks.drift(sums.hamiltonian), "kinks": sums.kinks,
        "idle_kinks": sums.idle, **_second_order(solution, sums.objective["objective"], asked,
                                             None),
    }
    return Findings(numbers, bounds)


def _blocks(solution: Solution) -> Iterator[tuple[NDArray, NDArray, NDArray | None]]:
    """A_0, Yᵀ and the sample weights, if any, of one block of samples after the other."""
    problem = solution.problem
    weights = problem.criterion.weights
    size = max(1, BLOCK_NUMBERS // (len(solution.p) * problem.width))
    for a in range(0, problem.n_samples, size):
        b = min(a + size, problem.n_samples)
        yield *problem.block(a, b), None if weights is None else weights[a:b]


def _sums(solution: Solution, setting: Setting) -> _Sums:
    """Sums over all samples, with the activation of `setting`, whose data are one block's.

    H_ℓ = ‖M‖²/(2L̃) − L̃ Tr(BAᵀ) with M = L̃Bσ̂(A)ᵀ: both M and the trace are sums over samples.
    """
    W, steps, rule, leak = solution.weights, steps_of(solution), solution.integrator, setting.leak
    loss, found = 0.0, np.zeros(4, dtype=int)
    products, traces, at_nodes = np.zeros(()), np.zeros(()), np.zeros(())
    for start, targets, sample_weights in _blocks(solution):
        block = setting._replace(start=start, targets=targets, sample_weights=sample_weights)
        A = formulas.roll_out(block, W, steps, rule)
        B, G = formulas.costates(block, A, W, steps, rule)
        loss += float(formulas.loss(block, A[-1]))
        products = products + (W - G)
        left, right = (A[:-1], B[1:]) if rule == "euler" else (A, B)
        at_nodes = at_nodes + formulas.control(block, left, right)
        traces = traces + np.sum(left * right, axis=(1, 2))
        found += _count(block, A, W, rule)
    norm = float(steps @ np.sum(W * W, axis=(1, 2)))
    objective = {"objective": loss + setting.decay / (2 * leak) * norm, "loss": loss,
                 "parameter_norm": norm}
    H = np.sum(at_nodes**2, axis=(1, 2)) / (2 * leak) - leak * traces
    on_kink, idle, least, most = found.tolist()
    return _Sums(objective, W - products, H, on_kink, idle, most - least)


def _count(setting: Setting, A: NDArray, W: NDArray, rule: str) -> NDArray:
    """Kinks, idle ones, and those at half and at twice the tolerance."""
    on_kink, idle = kinks(setting, A, W, rule)
    around = [kinks(setting, A, W, rule, factor * KINK_TOLERANCE)[0].sum() for factor in (0.5, 2)]
    return np.array([on_kink.sum(), idle.sum(), *around])


# -- both ------------------------------------------------------------------------------------------


def steps_of(solution: Solution) -> NDArray:
    """Layer steps ρ, (L,), of a layered solution."""
    assert solution.steps is not None
    return solution.steps


def _nodes(solution: Solution) -> list[Bound]:
    """Steps that are positive, and positions of the nodes against them, from 0 to 1."""
    p, steps = solution.p, steps_of(solution)
    ends = np.concatenate([[0.0], np.cumsum(steps)])
    apart = float(np.max(np.abs([*(p - ends), p[-1] - 1])))
    return [Bound("steps that are not positive", float(np.sum(~(steps > 0))), 0.0),
            Bound("nodes p against the steps", apart, ROUNDING)]


def _objective(setting: Setting, end: NDArray, W: NDArray, steps: NDArray) -> dict[str, float]:
    values = formulas.objective(setting, end, W, steps)
    return dict(zip(("objective", "loss", "parameter_norm"), map(float, values), strict=True))


def _residuals(
    setting: Setting, W: NDArray, steps: NDArray, G: NDArray,
    ends: tuple[NDArray, NDArray] | None = None,
) -> dict[str, float]:
    """Stationarity and ‖∇J‖; where maps are learned theirs too, from states and costates."""
    norm, maps = formulas.gradient_norm(setting, steps, G), {}
    if setting.learns and ends is not None:
        A, B = ends
        norm = float(np.linalg.norm(learned.slopes(setting, steps, G, A[-1], B[0])))
        maps = formulas.map_stationarities(setting, A[-1], B[0])
    largest = float(np.max([formulas.stationarity(W, G), *maps.values()]))
    return {"stationarity": largest, "gradient_norm": norm, "clarke_residual": norm, **maps}


def _by_layer(W: NDArray, G: NDArray) -> tuple[float, ...]:
    """‖G_ℓ‖ / max(1, ‖W_ℓ‖) of every layer."""
    return tuple(formulas.stationarity(w[None], g[None]) for w, g in zip(W, G, strict=True))


def _second_order(
    solution: Solution, objective: float, asked: Asked, slopes: NDArray | None
) -> dict[str, Any]:
    """Fields of the certificate from the second-order test, if it was asked for and applies."""
    if not asked.second_order:
        result = SecondOrder("not decided: not asked for", NAN, (NAN, NAN))
    elif not np.isfinite(objective):
        result = SecondOrder("not decided: numbers are not finite", NAN, (NAN, NAN))
    elif solution.integrator != "euler":
        result = SecondOrder("not decided: the test is for Euler layers", NAN, (NAN, NAN))
    else:
        result = second_order(solution.problem, solution.weights, steps_of(solution),
                              asked.max_controls, slopes=slopes,
                              multiplier=solution.momenta[-1] if solution.problem.hard_endpoint
                              else None)
    kinks = result.kinks
    return {
        "second_order": result.verdict, "min_eigenvalue": result.min_eigenvalue,
        "coupling": result.coupling, "coupling_bound": result.coupling_bound,
        "complementarity": NAN if kinks is None else kinks.margin,
        "nearest_kink": NAN if kinks is None else kinks.nearest,
        "direction": result.direction, "descent": result.descent,
    }
