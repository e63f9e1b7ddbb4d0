"""`certify`: check a solution, or any network, by formulas of its own, `optimality.formulas`.

Only the problem's data are taken on trust. What the solution stores is compared with the formulas
one step at a time, and what it records relative to itself; nothing is searched for. The stored
momenta are the witness for the slopes on the kink of ReLU (`optimality.layers`), and a continuous
path is integrated anew (`optimality.paths`). So a file that was tampered with is caught, and so is
a formula of a solver that is wrong. The second-order test is the one with which solvers end, its
derivatives computed anew by complex steps.

A network that was trained elsewhere records nothing, and is held to what a solution claims that has
converged: `optimality.candidate` makes a solution of it, and says where it does not fit its
problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.optimality import checks
from hamshoot.optimality.candidate import Candidate, candidate_in
from hamshoot.optimality.checks import CLAIMED, CLAIMING, Asked, Bound
from hamshoot.optimality.layers import check_blocks, check_stored
from hamshoot.optimality.paths import check_path
from hamshoot.optimality.second_order_layers import MAX_CONTROLS
from hamshoot.optimality.words import headline, in_words
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import instead_of_solution
from hamshoot.solution.notebook import shown
from hamshoot.solution.solution import Solution, Status

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Beginnings of verdicts of the second-order test that say: no minimum.
NO_MINIMUM = ("saddle", "concave kink", "descent found")
#: Beginning of the verdict on a network that has not seen its inputs, whatever the test says of it.
COLLAPSED = "collapsed to the same output for all samples"
#: Statuses that claim no stationary point, but may be recorded as a success.
CONTENT = (Status.FLAT, Status.TRAINED)


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the certificate's own formulas say of a solution.

    Attributes
    ----------
    objective, loss, parameter_norm : float
        Of the rolled-out controls.
    defect : float
        Largest |A_ℓ − F(A_{ℓ−1}, W_ℓ)| of an entry of the stored representations, relative to the
        absolute values of its terms; A_0 = PXᵀ counts too. On a path F is the flow from the node
        before, and the norm of the node takes the place of the terms.
    costate_defect : float
        The same of the stored momenta and one step of the costate back, with the best slopes on the
        kink, and of B_L; on a path, of the flow from the node before.
    boundary_residual : float
        Of the stored ends: A_0 = PXᵀ and B_1 (or the hard endpoint), relative to max(1, norm).
    stationarity : float
        Largest ‖W − L̃Bσ̂ᵀ‖_F / max(1, ‖W‖_F); for ReLU with the slopes of the stored momenta on the
        kink.
    clarke_residual : float
        ‖∇J(d)‖_F with these slopes d ∈ [0, 1], an upper bound on Clarke's residual; ‖∇J‖_F where
        there is no kink. Of a solution that does not store its states ‖∇J‖_F with the activation's
        own slopes, also an upper bound; the same holds for the stationarity.
    hamiltonian, hamiltonian_drift : float
        Median along the path, and (max − min)/max(1, |median|).
    second_order : str
        Begins with "strict local minimum", "saddle" or "not decided", or another verdict of
        `second_order_layers`. A network whose output is the same for all samples is called
        collapsed before anything else, and does not hold: its status would be COLLAPSED.
    min_eigenvalue : float
        Smallest one of the reduced Hessian; NaN when not computed. Over layers in the plain inner
        product of the controls (L, w, w+1); on a path in ∫⟨V, V′⟩dp, where it is extrapolated in
        the mesh. Divided by ρ, the eigenvalues of equal layers tend to those of the path.
    kinks : int
        Hidden entries on the kink of ReLU.
    idle_kinks : int
        Those of them in neurons that no weight reads (their column of W is 0): all slopes are the
        same there.
    bounds : tuple of Bound
        Each bound asked for, and whether it holds.
    reasons : tuple of str
        Why it is not certified, the most serious first: bounds that fail, a verdict that denies a
        minimum, a status that claims no stationary point. Empty if everything holds.
    coupling, coupling_bound : float
        Of dead neurons: the strongest coupling found, and a bound that none exceeds, where the
        weight decay is 1; NaN without dead neurons.
    complementarity : float
        Least |v|·min(d, 1 − d) of the entries held on the kink, as a share of the largest |v|: how
        strictly they are held. NaN without any.
    nearest_kink : float
        Least |A| of the entries off the kink, as a share of max(1, max|A|): how far the pattern of
        activations holds.
    direction : ndarray, shape (L, w, w+1), or None
        Where a descent was found, the direction, of length 1.
    descent : tuple of (float, float)
        Step lengths along it at which J is lower, and by how much.
    layer_stationarity : tuple of float
        ‖W_ℓ − L̃Bσ̂ᵀ‖_F / max(1, ‖W_ℓ‖_F) of every layer, (L,), whose largest is the stationarity;
        empty on a path.
    lift_stationarity, readout_stationarity : float
        ‖(1/μ) ∂J/∂P‖_F / max(1, ‖P‖_F) of a learned lift, and the same of a learned readout; the
        stationarity is the largest of these and the layers'. NaN of fixed ones.
    map_decay : float
        (μ_P/2)‖P‖² + (μ_Q/2)‖Q‖², their part of J; 0 where both are fixed.
    near_kinks : int
        Hidden entries of ReLU that are off the kink by at most 1e-5 of the largest, of neurons that
        are read: single precision rounds activations off the kink, and training stops short of
        it. Not counted (0) where the states are not stored.
    """

    objective: float
    loss: float
    parameter_norm: float
    defect: float
    costate_defect: float
    boundary_residual: float
    stationarity: float
    clarke_residual: float
    hamiltonian: float
    hamiltonian_drift: float
    second_order: str
    min_eigenvalue: float
    kinks: int
    idle_kinks: int
    bounds: tuple[Bound, ...]
    reasons: tuple[str, ...]
    coupling: float = float("nan")
    coupling_bound: float = float("nan")
    complementarity: float = float("nan")
    nearest_kink: float = float("nan")
    direction: NDArray | None = None
    descent: tuple[tuple[float, float], ...] = ()
    layer_stationarity: tuple[float, ...] = ()
    near_kinks: int = 0
    lift_stationarity: float = float("nan")
    readout_stationarity: float = float("nan")
    map_decay: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether there is no reason against it."""
        return not self.reasons

    @property
    def failures(self) -> tuple[Bound, ...]:
        """The bounds that do not hold."""
        return tuple(bound for bound in self.bounds if not bound.holds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, the direction left out; None stands for NaN and infinity."""
        values: dict[str, Any] = {
            k: v for k, v in vars(self).items() if k not in ("bounds", "direction")
        }
        values = {k: _finite(v) if isinstance(v, float) else v for k, v in values.items()}
        values["reasons"] = list(self.reasons)
        values["descent"] = [list(step) for step in self.descent]
        values["layer_stationarity"] = [_finite(value) for value in self.layer_stationarity]
        values["holds"] = self.holds
        values["bounds"] = [
            {"name": b.name, "value": _finite(b.value), "most": _finite(b.most), "holds": b.holds}
            for b in self.bounds
        ]
        return values

    def _by_layer(self) -> list[str]:
        """A line with the gradient, and the layer that is off most; none on a path."""
        layers = self.layer_stationarity
        if not layers:
            return []
        of = "Clarke      " if self.kinks else "gradient    "
        return [f"  {of}  {self.clarke_residual:.2e}   stationarity least in layer "
                f"{int(np.argmin(layers)) + 1} of {len(layers)}, {min(layers):.1e}, most in layer "
                f"{int(np.argmax(layers)) + 1}"]

    def _maps(self) -> list[str]:
        """A line on learned maps."""
        found = [f"{name} {value:.1e}" for name, value in (
            ("lift", self.lift_stationarity), ("readout", self.readout_stationarity))
            if not np.isnan(value)]
        return [f"  learned       stationarity of {', '.join(found)}; their weight decay is "
                f"{self.map_decay:.6g} of J"] if found else []

    def _near(self) -> list[str]:
        """A line on activations that miss the kink, where the network is not stationary."""
        if not self.near_kinks or "stationarity" not in [bound.name for bound in self.failures]:
            return []
        count = f"{self.near_kinks} activation{'s' * (self.near_kinks > 1)}"
        return [f"  near kinks    {count} within 1e-5 of the kink and not on it, as single "
                "precision or training leaves them; solve on from here"]

    def to_json(self) -> str:
        """`to_dict` as strict JSON, one string over several lines."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def in_words(self) -> list[str]:
        """What it says in sentences, for a reader who did not compute it.

        Returns
        -------
        list of str
            The checks, the objective, first and second order, the Hamiltonian, and what it cannot
            say.
        """
        return [sentence.text for sentence in in_words(self.to_dict())]

    def _repr_html_(self) -> str:
        """What a notebook shows: sentences, and every check."""
        rows = [(b.name, f"{b.value:.2e}", f"{b.most:.1e}", "holds" if b.holds else "FAILS")
                for b in self.bounds]
        return shown(headline(self.to_dict()), self.holds, rows, self.in_words(),
                     ("check", "value", "at most", ""))

    def __repr__(self) -> str:
        idle = f", {self.idle_kinks} of them of neurons that nothing reads" if self.kinks else ""
        lines = [
            "Certificate: " + ("every bound holds" if self.holds
                               else f"NOT certified: {self.reasons[0]}"),
            f"  objective     {self.objective:.12g}",
            f"  stationarity  {self.stationarity:.2e}   kinks {self.kinks}{idle}",
            *self._by_layer(),
            *self._maps(),
            *self._near(),
            f"  Hamiltonian   {self.hamiltonian:.8g}, drift {self.hamiltonian_drift:.1e}",
            f"  second order  {self.second_order}",
        ]
        for b in self.bounds:
            lines.append(f"  {'ok  ' if b.holds else 'FAIL'} {b.name:<46} {b.value:9.2e} "
                         f"<= {b.most:.1e}")
        lines += [f"  FAIL {reason}" for reason in self.reasons[len(self.failures):]]
        return "\n".join(lines)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite fails its bound
def certify(
    solution: Any,
    problem: TrainingProblem | None = None,
    *,
    steps: ArrayLike | None = None,
    stationarity: float | None = None,
    defect: float | None = None,
    boundary_residual: float = 1e-8,
    drift: float = 1e-8,
    agreement: float | None = None,
    second_order: bool = True,
    max_controls: int = MAX_CONTROLS,
) -> Certificate:
    """Check a solution, or any network in a problem, independently of how it was found.

    Parameters
    ----------
    solution : Solution, or network with `problem`
        A solution over Euler or RK4 layers, or a continuous path. A path of a ReLU network that was
        smoothed is checked as the path of the smoothed flow that it claims to be.

        With `problem`, any candidate: a `LeakyResNet`; weights (L, w, w+1), an array or tensor; a
        torch module, as `LeakyResNet.from_torch` takes it, or its state_dict; the name of a file,
        .safetensors, .pt or .npz, of a network or of a solution; a solution over Euler layers,
        whose weights are looked at in this problem. It is held to the bounds of a network that
        claims to have converged, to maps and scalings of the problem, and to J of the network
        without weights.
    problem : TrainingProblem, optional
        With targets, and the network's sizes, L̃ and σ.
    steps : array_like, shape (L,), optional
        ρ of weights that are given as an array; default equidistant.
    stationarity : float, optional
        Bound asked of the stationarity. Default 1e-6 for CONVERGED and for a candidate. SMOOTHED
        claims a stationary point of the smoothed network: 1e-6, or what is given here if that is
        more, bounds that network's. Every other status claims none: without this argument such a
        solution does not hold.
    defect : float, optional
        Bound on the defects of the stored arrays. Default 1e-13 over layers, where only rounding
        tells them from the formulas. On a path, which is integrated anew, 1e-9 of A and 1e-7 of B,
        and 1e-13 of the controls, which follow from A and B.
    boundary_residual : float
        Bound on the boundary residual. (A_0 and B_L of layers count among the defects too.)
    drift : float
        Bound on the Hamiltonian drift of a continuous path, which conserves H; layers do only up to
        O(1/L) and get no bound.
    agreement : float, optional
        Largest difference between recomputed and recorded objective, loss and norm, relative to
        each of them; default 1e-10 over layers, 1e-9 on a path. Recorded residuals may differ by as
        much, or by rounding, 1e-12 (1e-10 where it is amplified by a roll-out).
    second_order : bool
        Run the second-order test where it applies: Euler layers and continuous paths, with the soft
        loss or a hard endpoint.
    max_controls : int
        Size up to which the dense test over layers runs; the limit for paths is
        `hamshoot.optimality.second_order_path.MAX_NUMBERS`.

    Returns
    -------
    Certificate
        Cost: a handful of sweeps, and the dense test of `hamshoot.optimality.second_order_layers`.
        On a path the integration anew, and the test of `hamshoot.optimality.second_order_path`. A
        solution that does not store its states is evaluated over blocks of samples; with nothing
        stored there is no defect to be found.

    Raises
    ------
    ValueError
        For a bound that is negative or not a number; for a candidate without a problem, one that is
        no network or does not fit the problem, and one of a hard endpoint, whose multiplier no
        network holds.

    Notes
    -----
    Of a candidate nothing is recorded: its states are rolled out and the best slopes on its kinks
    searched for (`hamshoot.theory.clarke`), which the formulas of the certificate then check.

    What is an account of the way cannot be recomputed and is not checked: iterations, seconds,
    history, messages, what a solver measured before the polish, and its `extra` but for ε and the
    Hamiltonian of a path. Of the problem, test data do not enter, nor the readout with a hard
    endpoint.
    """
    for name, most in (("stationarity", stationarity), ("defect", defect),
                       ("boundary_residual", boundary_residual), ("drift", drift),
                       ("agreement", agreement)):
        if most is not None and not most >= 0:
            raise ValueError(f"{name}: expected a number >= 0, got {most!r}")
    # Non-finite numbers are answered by bounds that do not hold, not by warnings.
    with np.errstate(all="ignore"):
        candidate = _candidate(solution, problem, steps)
    if candidate is not None:
        solution = candidate.solution
        stationarity = CLAIMED if stationarity is None else stationarity
    asked = Asked(stationarity, defect, boundary_residual, drift, agreement, second_order,
                  max_controls, records=candidate is None)
    check = check_path if solution.steps is None else \
        check_stored if solution.stored else check_blocks
    with np.errstate(all="ignore"):
        found = check(solution, asked)
    names = Certificate.__dataclass_fields__.keys() - {"bounds", "reasons"}
    if checks.collapsed(solution):
        found.numbers["second_order"] = f"{COLLAPSED}: {found.numbers['second_order']}"
    bounds = found.bounds if candidate is None else _in_order(found.bounds, candidate)
    reasons = reasons_against(solution, found.numbers["second_order"], bounds, stationarity)
    return Certificate(**{name: found.numbers[name] for name in names & found.numbers.keys()},
                       bounds=tuple(bounds), reasons=reasons)


def _candidate(given: Any, problem: TrainingProblem | None, steps: ArrayLike | None
               ) -> Candidate | None:
    """Evaluate what is no solution, or is asked about in another problem; else None."""
    if problem is not None:
        return candidate_in(given, problem, steps)
    if steps is not None:
        raise ValueError("steps: expected none without a problem")
    if not isinstance(given, Solution):
        raise ValueError(
            "problem: expected the problem that the network is to solve, hs.certify(network, "
            f"problem), got none with {type(given).__name__}; only a Solution holds its own"
            + instead_of_solution("certify", given))
    return None


def _in_order(bounds: list[Bound], candidate: Candidate) -> list[Bound]:
    """The bounds of a candidate, what a user looks for first."""
    first = [bound for bound in bounds if bound.name == "stationarity"]
    return [*first, *candidate.bounds, *(bound for bound in bounds if bound not in first)]


def reasons_against(
    solution: Solution, verdict: str, bounds: Iterable[Bound], stationarity: float | None
) -> tuple[str, ...]:
    """Why the solution is not certified, the most serious first.

    Parameters
    ----------
    solution : Solution
        Whose status and success count.
    verdict : str
        Of the second-order test.
    bounds : iterable of Bound
    stationarity : float, optional
        The bound that the caller asked for.
    """
    status, name = solution.status, solution.status.name.lower()
    reasons = [f"{b.name} {b.value:.2e}, expected at most {b.most:.1e}"
               for b in bounds if not b.holds]
    if verdict.startswith((*NO_MINIMUM, COLLAPSED)):
        reasons.append(verdict)
    if solution.success and status not in CLAIMING + CONTENT:
        reasons.append(f"success is recorded with the status {name}, which denies it")
    if not solution.success and status in CLAIMING:
        reasons.append(f"no success is recorded with the status {name}, which claims it")
    if status is Status.COLLAPSED and stationarity is not None:
        reasons.append("the network collapsed to a trivial solution, the same output for all "
                       "samples")
    if status not in CLAIMING and stationarity is None:
        reasons.append(f"the status, {name}, claims no stationary point, and no bound on the "
                       "stationarity was asked for")
    return tuple(reasons)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
