"""Second-order test of a layered network: is a stationary point a strict local minimum of J?

For a smooth activation the Hessian of J in the controls decides. A ReLU network is piecewise
smooth, and at its optima many entries of A lie on the kink; what is tested then, and why it
suffices, is this.

**An identity.** Let W be stationary with slopes d ∈ [0, 1] (d = σ′ off the kink), B the costate
with these slopes and v = ρWᵀB the force on the entries of σ(A). For every h, with δA and δσ = σ(A +
δA) − σ(A) the exact changes of states and activations from W to W + h, and r = δσ − d ⊙ δA,

    J(W + h) − J(W) = λ/(2L̃) Σ ρ‖h‖² + (1/N)‖Q δA_L‖² − λ Σ ρ ⟨B_ℓ, h_ℓ δσ_{ℓ−1}⟩ − λ Σ ⟨v, r⟩.

(Add λ Σ ⟨B_ℓ, A_ℓ − (1 − ρL̃)A_{ℓ−1} − ρWσ̂⟩ = 0 to J on both sides; the terms linear in δA cancel
by the recursion of B, those linear in h by stationarity.) Here r ≥ 0 entry by entry: on the kink it
is (1 − d)a⁺ + d a⁻ with a = δA. The last sum is of first order in h, all else of second order.

**Entries on the kink** are told apart by the force.

* *Held*, v < 0 and 0 < d < 1: leaving 0 to either side costs −λv r, to first order. A direction
  along which such an entry moves raises J; the others keep it, a = 0.
* *On an edge*, v < 0 and d = 0 or 1: one side costs to first order, the other nothing. The test
  lets the entry go with the slope d, as if the costly side were free too, which only makes it
  stricter.
* *Concave*, v > 0: a side with r > 0 *lowers* J to first order, though W is stationary in Clarke's
  sense.
* *Idle*, v = 0, as when no weight reads the neuron: no force; σ(a) enters at second order.

**Dead neurons.** With h restricted to a = 0 on held entries, the second-order form is

    q(h) = ½ hᵀH h − λ Σ_idle ρ ⟨B_ℓ, c⟩ σ(a),      c the column of h that reads the entry,

H the Hessian with idle entries switched off. If column and activations of the neuron are 0, c
enters H by its weight decay alone, a is linear in the other controls, and q is the form of
`hamshoot.optimality.coupling` in the coordinates in which H is the identity: positive definite if
and only if H is and the coupling κ is below 1. (A neuron of a network that copies another one, its
weights shared as cos θ and sin θ, leaves J as it is: beside a living neuron that is neither in lift
nor in readout, a dead one has κ ≥ 1, and no minimum is strict.)

**Theorem.** If no entry is concave, H is positive definite on {h : a = 0 on held entries} and κ <
1, then W is a strict local minimum. *Proof.* Otherwise J(W + h_n) ≤ J(W) for some h_n → 0; let h̄
be a limit of h_n/‖h_n‖. Divide the identity by ‖h_n‖: as v ≤ 0, Σ⟨v, r⟩ → 0 at this rate, so a = 0
for h̄ on held entries. Divide by ‖h_n‖²: −λΣ⟨v, r⟩ ≥ 0 goes to the other side, and q(h̄) ≤ 0 in the
limit, a contradiction. (Compare Rockafellar & Wets, *Variational Analysis*, theorem 13.24.)

The same holds with concave entries in A_1 that others of A_1 hold in place: A_1 is linear in the
controls, so if −Σ⟨v, r⟩ over its entries grows with every move of them (a linear program shows it),
it is ≥ 0 as above. All hypotheses are checked in floating point, with room for rounding; the
program, up to MOST_CONCAVE concave entries.

**Leaky ReLU.** With slopes α and 1 the identity is the same, d ∈ [α, 1] and r = (1 − d)a⁺ +
(d − α)a⁻, and so are the proof and the kinds of entries, with α in place of 0. Idle entries are
switched off in H, and their σ(a), now a⁺ − αa⁻, is in the coupling as a whole.

The other way round every claim of a descent is shown: a direction is only reported with values of
J along it that are lower.

**A hard endpoint.** Its augmented Lagrangian (`hamshoot.optimality.augmented`) is a J with a loss:
if W is a strict local minimum of that, it is one of the norm among the networks that reach the
endpoint. What is refuted at one weight is tried again at larger ones, where the way down has to
keep closer to the endpoint.

Where lift or readout are learned all of this is in the vector of controls and maps, with the
reasons and the symmetries that are left in `hamshoot.optimality.learned`.

Costs with n = L·w·(w+1) controls: n complex gradients, O(n L w²N) flops, three n² numbers, 4n²k for
the null space of k entries held, n³/3 for a Cholesky factor, and 4n³/3 more for the eigenvalues
where that does not exist; for k idle entries another O(n²k), and what
`hamshoot.optimality.coupling` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.optimality import coupling, formulas
from hamshoot.optimality.augmented import augmented, stiffness
from hamshoot.optimality.checks import missed, setting_of
from hamshoot.optimality.directions import followed, steepest
from hamshoot.optimality.expansion import (
    Derivatives,
    Expansion,
    complex_step_derivatives,
    expanded,
    smallest_eigenvalue,
)
from hamshoot.optimality.kinks import Kinks
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory.clarke import clarke_residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: More controls than this are not decided by the dense test: 14 s at n = 3640, N = 142.
MAX_CONTROLS = 4000
#: More idle entries than this are not searched: a dense array of idle entries times controls.
MAX_IDLE = 6000
#: Eigenvalues within this fraction of the largest count as zero.
EIGENVALUE_TOLERANCE = 1e-10
#: A gradient above this is no stationary point, and its Hessian decides nothing.
STATIONARY = 1e-6
#: A proof asks that a Newton step moves the weights by at most this share, and that no activation
#: off the kink is closer to it than this share of the largest.
CLOSE, NEAR = 1e-6, 1e-6
#: Couplings within this of 1 are 1 to rounding; above this a proof is not tried, since the
#: relaxation is half a per cent too large at best; overlap of feeding and reading that is rounding.
SAME, HOPELESS, CROSSED = 1e-6, 0.995, 1e-8
#: Concave kinks up to which all combinations of sides are tried; slopes, as shares of the largest
#: force, that count as falling; how much less an entry may cost in a proof.
MOST_CONCAVE, STEEP, STRICT = 8, 1e-9, 1e-6
#: With a hard endpoint, the weights of the augmented Lagrangian against that of the stiff loss; and
#: the largest gap, relative to the endpoint, that counts as none.
WEIGHTS, CLOSED = (1.0, 1e2, 1e4), 1e-8


class SecondOrder(NamedTuple):
    """Verdict of the second-order test.

    Attributes
    ----------
    verdict : str
        A sentence that begins with "strict local minimum", "no descent found", "not decided",
        "saddle", "concave kink" or "descent found".
    min_eigenvalue : float
        Smallest eigenvalue of the Hessian on the entries held, idle ones switched off; NaN when it
        was not computed.
    multipliers : tuple of float
        Smallest and largest d over the entries that are not idle; NaN without any.
    kinks : Kinks or None
        The entries on the kink.
    coupling, coupling_bound : float
        Strongest coupling found over the idle entries, and a bound from above, where the weight
        decay is 1; NaN where there is none, infinity for a bound not computed.
    tries : int
        Starts of the search for it.
    direction : ndarray, shape (L, w, w+1), or None
        Along which J falls, of length 1; (n,) where a map is learned, as `lowest`.
    descent : tuple of (float, float)
        Pairs of a step length and the change of J there, after the entries held are set back to 0.
    lowest : ndarray, shape (L, w, w+1), or None
        The controls of the lowest J met along the direction.
    """

    verdict: str
    min_eigenvalue: float
    multipliers: tuple[float, float]
    kinks: Kinks | None = None
    coupling: float = float("nan")
    coupling_bound: float = float("nan")
    tries: int = 0
    direction: NDArray | None = None
    descent: tuple[tuple[float, float], ...] = ()
    lowest: NDArray | None = None

    @property
    def refuted(self) -> bool:
        """Whether it is known to be no minimum."""
        return self.verdict.startswith(("saddle", "concave kink", "descent found"))


def second_order(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    max_controls: int = MAX_CONTROLS,
    *,
    slopes: NDArray | None = None,
    multiplier: NDArray | None = None,
    derivatives: Derivatives | None = None,
    prove: bool = True,
    starts: int = coupling.STARTS,
    seed: int = 0,
) -> SecondOrder:
    """Decide whether an Euler network is a strict local minimum of J.

    Parameters
    ----------
    problem : TrainingProblem
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    max_controls : int
        Larger problems are not decided.
    slopes : ndarray, shape (L, w, N), optional
        For ReLUs, σ′ with slopes d ∈ [0, 1] (of a leaky one [α, 1]) on the kink that make W
        stationary; by default a search for them (`hamshoot.theory.clarke`).
    multiplier : ndarray, shape (w, N), optional
        B_1 of a hard endpoint, needed there.
    derivatives : callable, optional
        In place of `complex_step_derivatives`, for a solver that has faster ones.
    prove : bool
        Whether to look for a bound of the coupling; False stops at the search for a descent.
    starts : int
        Of the search, for each group of dead neurons that couple.
    seed : int
        Of the search.

    Returns
    -------
    SecondOrder
    """
    nan = float("nan")
    if problem.hard_endpoint:
        return _with_endpoint(problem, weights, steps, multiplier, max_controls, dict(
            slopes=slopes, derivatives=derivatives, prove=prove, starts=starts, seed=seed))
    size = weights.size + sum(M.size for M, mu in (
        (problem.lift, problem.lift_decay), (problem.readout, problem.readout_decay)) if mu)
    if size > max_controls:
        return SecondOrder(
            f"not decided: {size} controls, the dense test takes {max_controls}", nan, (nan, nan))
    if not problem.sigma.kinked:
        slopes = None
    elif slopes is None:  # a witness: with wrong slopes the gradient does not vanish
        A = formulas.roll_out(setting_of(problem), weights, steps)
        slopes = clarke_residual(problem, A, weights, steps).slopes
    at = expanded(problem, weights, steps, slopes, derivatives or complex_step_derivatives)
    if np.any(_bends(problem, at.representations[-1]) <= NEAR):
        return _result(at, "not decided: an error lies where Huber's loss goes over to its tangent",
                       nan)
    if not at.gradient <= STATIONARY * at.size:
        return _result(at, f"not decided: not a stationary point (gradient {at.gradient:.1e})", nan)
    return _verdict(at, prove, starts, seed)


def _bends(problem: TrainingProblem, end: NDArray) -> NDArray:
    """How far errors are from δ, where the curvature of Huber's loss jumps, as shares of δ."""
    delta = problem.criterion.delta
    if not delta:
        return np.empty(0)
    return np.abs(np.abs(problem.readout @ end - problem.targets) / delta - 1)


def _with_endpoint(
    problem: TrainingProblem, weights: NDArray, steps: NDArray, multiplier: NDArray | None,
    max_controls: int, more: dict[str, Any],
) -> SecondOrder:
    """The verdict on the augmented Lagrangian, at the least weight that does not refute."""
    assert problem.endpoint is not None
    nan = float("nan")
    if multiplier is None:
        return SecondOrder("not decided: the multiplier of the hard endpoint is not known", nan,
                           (nan, nan))
    end = formulas.roll_out(setting_of(problem), weights, steps)[-1]
    apart = missed(end, problem.endpoint)
    if not apart <= CLOSED:
        return SecondOrder(f"not decided: the endpoint is missed by {apart:.1e}", nan, (nan, nan))
    for factor in WEIGHTS:
        soft = augmented(problem, multiplier, factor * stiffness(problem))
        found = second_order(soft, weights, steps, max_controls, **more)
        if not found.refuted:
            break
    return found


def _verdict(at: Expansion, prove: bool, starts: int, seed: int) -> SecondOrder:
    """Concave kinks, the Hessian, the coupling of idle entries, in this order."""
    if at.kinks is not None and at.kinks.concave.any():
        result = _on_concave_kinks(at)
        if result is not None:
            return result
    smallest, largest, vector = smallest_eigenvalue(at.reduced)
    number = f"smallest eigenvalue {smallest:.2e}"
    of = "network" if at.kinks is None else "leaky ReLU network" if at.kinks.low else "ReLU network"
    if at.setting.learns:
        of += ", its learned maps included"
    if at.turns.size:
        of += f", up to {len(at.turns)} turns of its neurons that leave J as it is"
    if smallest < -EIGENVALUE_TOLERANCE * largest:
        return _falling(at, f"saddle of the {of}: {number}", at.free.directions(vector), smallest)
    if smallest <= EIGENVALUE_TOLERANCE * largest:
        return _result(at, f"not decided: {number} is zero to rounding", smallest)
    doubt = _doubt(at)
    if doubt:
        return _result(at, f"not decided: {doubt}", smallest)
    minimum = f"strict local minimum of the {of} (proved): {number}{_held(at)}"
    if at.kinks is None or not at.kinks.idle.any():
        return _result(at, minimum, smallest)
    return _with_dead_neurons(at, minimum, smallest, prove, starts, seed)


def _doubt(at: Expansion) -> str:
    """Why a positive form at this point need not mean a minimum here; empty if it does.

    The form is that of the exact stationary point near by, and of the pattern of activations here.
    """
    step = np.linalg.solve(at.reduced, at.free.coordinates(at.slope))
    away = float(np.linalg.norm(step)) / max(1.0, float(np.linalg.norm(at.controls)))
    if away > CLOSE:
        return (f"the stationary point is still {away:.1e} of the weights away by a Newton step, "
                f"for a proof at most {CLOSE:g}")
    if at.kinks is not None and at.kinks.nearest < NEAR:
        return (f"an activation lies {at.kinks.nearest:.1e} off the kink, too close to be told "
                "from one on it")
    return ""


def _on_concave_kinks(at: Expansion) -> SecondOrder | None:
    """The verdict on concave kinks; None where others are proved to hold them in place.

    An entry that moves off a concave kink lowers J, and may not be able to move without others, to
    which it costs more: entries of one neuron for more samples than its row has controls.
    """
    assert at.kinks is not None
    concave, nan = at.kinks.concave, float("nan")
    count = int(concave.sum())
    words = f"{count} activation{'s' * (count > 1)} on a kink at which J falls to first order"
    if count > MOST_CONCAVE:
        return _result(at, f"not decided: {words}", nan)
    fall, direction = steepest(at, at.fixed_entries, 0.0)
    if fall < -STEEP:
        return _falling(at, f"concave kink: {words}", direction, nan)
    first = np.zeros_like(concave)
    first[1] = True
    if not np.any(concave & ~first):
        # A_1 is linear in the controls, so that what holds to first order holds.
        fall, _ = steepest(at, at.fixed_entries & first, STRICT)
        if fall >= -STEEP * STRICT:
            return None
    return _result(at, f"not decided: {words}, if others let them", nan)


def _with_dead_neurons(
    at: Expansion, minimum: str, smallest: float, prove: bool, starts: int, seed: int
) -> SecondOrder:
    """Search for a coupling of idle entries above the weight decay, then bound it."""
    assert at.kinks is not None
    idle = at.kinks.idle
    count, neurons = int(idle.sum()), int(idle.any(axis=(0, 2)).sum())
    if count > MAX_IDLE:
        return _result(at, f"not decided: {count} idle activations, the test takes {MAX_IDLE}",
                       smallest)
    dead = _Dead(at)
    if np.any(idle & ~at.kinks.unread) or dead.crossed():
        return _result(at, f"not decided: {count} idle activations, some of neurons that are read "
                           "or active for other samples", smallest)
    groups = dead.groups()
    low = at.kinks.low
    found = [coupling.search(*dead.group(own), starts, seed, dead.copies(own), low)
             for own in groups]
    tries = sum(one.tries for one in found)
    strongest = max(range(len(found)), key=lambda k: found[k].coupling)
    kappa = found[strongest].coupling
    numbers = dict(coupling=kappa, tries=tries, coupling_bound=float("inf"))
    words = (f"{neurons} dead neurons couple" if neurons > 1 else "a dead neuron couples") + \
        f" {kappa:.4g} times the weight decay"
    if kappa > 1 + SAME:
        return _falling(
            at, f"descent found: switching a dead neuron on couples {kappa:.4g} times the weight "
                "decay", dead.switched_on(groups[strongest], found[strongest]), smallest, **numbers)
    if kappa >= 1 - SAME:
        return _result(
            at, "not decided: a dead neuron that takes a share of a living one leaves J as it is "
                f"(coupling 1); no descent found in {tries} tries", smallest, **numbers)
    if prove and kappa < HOPELESS:
        numbers["coupling_bound"] = max(
            coupling.bound(*dead.group(own), low=low) for own in groups)
    if numbers["coupling_bound"] < 1:
        return _result(at, f"{minimum}, {words} in {tries} tries and less than "
                           f"{numbers['coupling_bound']:.4g} times by a bound", smallest, **numbers)
    return _result(at, f"no descent found in {tries} tries: {words} at most", smallest, **numbers)


class _Dead:
    """Idle entries in coordinates in which the reduced Hessian is the identity.

    Attributes
    ----------
    feeding, reading : ndarray, shape (m, k)
        T and E of `hamshoot.optimality.coupling`.
    """

    def __init__(self, at: Expansion) -> None:
        from scipy.linalg import cholesky, solve_triangular

        assert at.kinks is not None
        layer, neuron, sample = np.nonzero(at.kinks.idle)
        read = np.zeros((len(layer), *at.weights.shape))
        force = -at.setting.decay * at.steps[layer, None] * at.momenta[layer + 1, :, sample]
        read[np.arange(len(layer)), layer, :, neuron] = force
        self._factor, self._free = cholesky(at.reduced, lower=True), at.free
        self._low = at.kinks.low
        self._weights, self._neurons = at.weights, neuron
        self._setting, self._size = at.setting, at.controls.size
        self.feeding, self.reading = (
            solve_triangular(self._factor, at.free.coordinates(part.T), lower=True)
            for part in (at.feeding, self._whole(read)))

    def crossed(self) -> bool:
        """Whether a control both feeds an idle entry and reads one, beyond rounding."""
        sizes = np.linalg.norm(self.feeding) * np.linalg.norm(self.reading)
        return bool(np.linalg.norm(self.feeding.T @ self.reading) > CROSSED * sizes)

    def group(self, own: NDArray) -> tuple[NDArray, NDArray]:
        """T and E of some entries."""
        return self.feeding[:, own], self.reading[:, own]

    def groups(self) -> list[NDArray]:
        """Idle entries that couple with each other, of every kind one group.

        They are those of one dead neuron, or of several that are read out. Dead neurons that the
        readout does not see, dead over the same layers, are alike.
        """
        from scipy.sparse.csgraph import connected_components

        products = [part.T @ part for part in (self.feeding, self.reading)]
        related = sum(np.abs(part) > 1e-12 * np.abs(part).max(initial=0.0) for part in products)
        count, label = connected_components(related)
        kinds: list[tuple[NDArray, list[NDArray]]] = []
        for own in (np.flatnonzero(label == k) for k in range(count)):
            mine = [part[np.ix_(own, own)] for part in products]
            if not any(all(a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-12 * b.max())
                           for a, b in zip(mine, other, strict=True)) for _, other in kinds):
                kinds.append((own, mine))
        return [own for own, _ in kinds]

    def copies(self, own: NDArray) -> NDArray:
        """Directions y, (w, m), that give the first dead neuron of a group the row of each neuron.

        Beside a living neuron that lift and readout do not see they have a coupling of 1.
        """
        neuron = self._neurons[own[0]]
        rows = np.zeros((len(self._weights[0]), *self._weights.shape))
        for k, row in enumerate(rows):
            row[:, neuron] = self._weights[:, k]
        whole = self._whole(rows)
        lift = self._setting.lift
        if self._setting.lift_decay > 0 and lift is not None:
            own = whole[:, self._weights.size :][:, : lift.size].reshape(-1, *lift.shape)
            own[:, neuron] = lift
        return self._free.coordinates(whole.T).T @ self._factor

    def _whole(self, rows: NDArray) -> NDArray:
        """Rows (k, L, w, w+1) in the controls as rows (k, n), 0 in learned maps."""
        flat = np.zeros((len(rows), self._size))
        flat[:, : self._weights.size] = rows.reshape(len(rows), -1)
        return flat

    def switched_on(self, own: NDArray, found: coupling.Found) -> NDArray:
        """The direction in the controls of a coupling: y, and the c that answers it best."""
        from scipy.linalg import solve_triangular

        feeding, reading = self.group(own)
        z = found.y - reading @ coupling.sigma(found.y @ feeding, self._low)
        return self._free.directions(solve_triangular(self._factor, z, lower=True, trans=1))


def _held(at: Expansion) -> str:
    """Of the entries on the kink that are not idle, in words."""
    if at.kinks is None:
        return ""
    held, edge = int(at.fixed_entries.sum()), int(at.kinks.edge.sum())
    low, high = at.multipliers
    words = f", {held} activations held on the kink, d in [{low:.2g}, {high:.2g}]" if held else ""
    return words + (f", {edge} on the edge of [{at.kinks.low:g}, 1]" if edge else "")


def _result(at: Expansion, verdict: str, smallest: float, **more: Any) -> SecondOrder:
    return SecondOrder(verdict, smallest, at.multipliers, at.kinks, **more)


def _falling(
    at: Expansion, verdict: str, direction: NDArray, smallest: float, **more: Any
) -> SecondOrder:
    """The verdict, with J along the direction; not decided where J does not show it."""
    direction = direction / np.linalg.norm(direction)
    falls, lowest = followed(at, direction)
    if not falls:
        return _result(at, f"not decided: J was not seen to fall along a direction of descent "
                           f"({verdict})", smallest, **more)
    length, change = min(falls, key=lambda pair: pair[1])
    return _result(at, f"{verdict}; J falls by {-change:.3g} at a distance of {length:.2g}",
                   smallest, direction=direction.reshape(at.controls.shape), descent=falls,
                   lowest=lowest, **more)
