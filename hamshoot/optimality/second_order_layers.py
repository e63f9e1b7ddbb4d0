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

The other way round every claim of a descent is shown: a direction is only reported with values of J
along it that are lower.

Costs with n = L·w·(w+1) controls: n complex gradients, O(n L w²N) flops, three n² numbers, O(n³)
for the null space and the eigenvalues: 2 s at n = 1440 and N = 50, 14 s at n = 3640, N = 142; for
k idle entries another O(n²k), and what `hamshoot.optimality.coupling` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.optimality import coupling, formulas
from hamshoot.optimality.kinks import KINK_TOLERANCE, Kinks, told_apart
from hamshoot.problem import TrainingProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.optimality.formulas import Setting

#: More controls than this are not decided by the dense test.
MAX_CONTROLS = 4000
#: More idle entries than this are not searched: a dense array of idle entries times controls.
MAX_IDLE = 6000
#: Eigenvalues within this fraction of the largest count as zero.
EIGENVALUE_TOLERANCE = 1e-10
#: Rows of the constraints within this fraction of the largest of being dependent count as such.
RANK_TOLERANCE = 1e-12
#: A gradient above this is no stationary point, and its Hessian decides nothing.
STATIONARY = 1e-6
#: Couplings within this of 1 are 1 to rounding; above this a proof is not tried, since the
#: relaxation is half a per cent too large at best.
SAME, HOPELESS = 1e-6, 0.995
#: Fall of J, relatively, below which a descent is not told from rounding.
SEEN = 1e-12
#: Step lengths along a direction, as shares of ‖W‖; corrections of each back to the entries held.
LENGTHS, CORRECTIONS = 0.5 ** np.arange(0, 24), 3
#: Concave kinks up to which all combinations of sides are tried; slopes, as shares of the largest
#: force, that count as falling; how much less an entry may cost in a proof.
MOST_CONCAVE, STEEP, STRICT = 8, 1e-9, 1e-6
_STEP = 1e-30
_CHUNK_NUMBERS = 20_000_000

Derivatives = Callable[..., "tuple[NDArray, NDArray]"]


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
        Along which J falls, of length 1.
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
    def is_minimum(self) -> bool:
        """Whether a strict local minimum was proved."""
        return self.verdict.startswith("strict local minimum")

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
    derivatives: Derivatives | None = None,
    prove: bool = True,
    starts: int = coupling.STARTS,
    seed: int = 0,
) -> SecondOrder:
    """Decide whether an Euler network with a soft loss is a strict local minimum of J.

    Parameters
    ----------
    problem : TrainingProblem
    weights : ndarray, shape (L, w, w+1)
    steps : ndarray, shape (L,)
    max_controls : int
        Larger problems are not decided.
    slopes : ndarray, shape (L, w, N), optional
        For ReLU, σ′ with slopes d ∈ [0, 1] on the kink that make W stationary; by default a search
        for them (`hamshoot.clarke`).
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
        return SecondOrder("not decided: the test is for the soft loss", nan, (nan, nan))
    if weights.size > max_controls:
        return SecondOrder(
            f"not decided: {weights.size} controls, the dense test takes {max_controls}",
            nan, (nan, nan))
    test = _Test(problem, weights, steps, slopes, derivatives or complex_step_derivatives)
    if not test.gradient <= STATIONARY * max(test.size, 1e-12):
        return SecondOrder(
            f"not decided: not a stationary point (gradient {test.gradient:.1e})", nan,
            test.multipliers, test.kinks)
    return test.verdict(prove, starts, seed)


def complex_step_derivatives(
    setting: Setting, weights: NDArray, steps: NDArray, pattern: NDArray | None, entries: NDArray
) -> tuple[NDArray, NDArray]:
    """Hessian of J in the controls with a pattern of slopes held, and ∂A/∂W of some entries.

    Parameters
    ----------
    setting : Setting
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
    pattern : ndarray, shape (L, w, N), or None
        σ(A) = pattern ⊙ A; None takes σ itself.
    entries : ndarray of bool, shape (L, w, N)

    Returns
    -------
    hessian : ndarray, shape (n, n)
        Symmetrised; exact to rounding, as every gradient is differentiated by the complex step.
    rows : ndarray, shape (k, n)
    """
    n, (w, N) = weights.size, setting.start.shape
    chunk = max(1, _CHUNK_NUMBERS // (len(weights) * w * N * 2))
    scale = (setting.decay / setting.leak * steps)[:, None, None]
    hessian, rows = np.empty((n, n)), np.empty((n, int(entries.sum())))
    for first in range(0, n, chunk):
        some = np.arange(first, min(first + chunk, n))
        perturbed = np.repeat(weights.reshape(1, -1).astype(complex), len(some), axis=0)
        perturbed[np.arange(len(some)), some] += 1j * _STEP
        W = perturbed.reshape(-1, *weights.shape)
        A = formulas.roll_out(setting, W, steps, pattern=pattern)
        _, G = formulas.costates(setting, A, W, steps, slopes=pattern, pattern=pattern)
        hessian[some] = (scale * G).imag.reshape(len(some), n) / _STEP
        rows[some] = A[:, :-1][:, entries].imag / _STEP
    return 0.5 * (hessian + hessian.T), rows.T


class _Test:
    """One network: its entries on the kink, the second-order form, and J along directions."""

    def __init__(self, problem, weights, steps, slopes, derivatives):
        self.W, self.steps, self.derivatives = weights, steps, derivatives
        self.relu = problem.activation == "relu"
        self.setting = setting = setting_of(problem)
        self.A = formulas.roll_out(setting, weights, steps)
        if self.relu and slopes is None:
            from hamshoot.clarke import clarke_residual

            slopes = clarke_residual(problem, self.A, weights, steps).slopes
        slopes = slopes if self.relu else None
        B, G = formulas.costates(setting, self.A, weights, steps, slopes=slopes)
        self.B, self.gradient = B, formulas.gradient_norm(setting, steps, G)
        self.size = formulas.gradient_norm(setting, np.sqrt(steps), weights)
        self.J = float(formulas.objective(setting, self.A[-1], weights, steps)[0])
        self.kinks = told_apart(self.A, weights, steps, B, slopes) if self.relu else None
        nan = float("nan")
        bound = self.kinks.on_kink & ~self.kinks.idle if self.relu else np.zeros(0, bool)
        d = slopes[bound] if bound.any() else np.array([nan])
        self.multipliers = float(d.min()), float(d.max())

    # -- the verdict -------------------------------------------------------------------------------

    def verdict(self, prove: bool, starts: int, seed: int) -> SecondOrder:
        """Concave kinks, the Hessian, the coupling of idle entries, in this order."""
        self._expand()
        if self.relu and self.kinks.concave.any():
            result = self._concave()
            if result is not None:
                return result
        eigenvalues, vectors = self._spectrum()
        smallest, largest = float(eigenvalues[0]), float(np.abs(eigenvalues).max())
        number = f"smallest eigenvalue {smallest:.2e}"
        of = "ReLU network" if self.relu else "network"
        if smallest < -EIGENVALUE_TOLERANCE * largest:
            return self._falls(f"saddle of the {of}: {number}", self.basis @ vectors[:, 0],
                               smallest)
        if smallest <= EIGENVALUE_TOLERANCE * largest:
            return self._result(f"not decided: {number} is zero to rounding", smallest)
        if not self.relu:
            return self._result(f"strict local minimum of the network: {number}", smallest)
        if not self.kinks.idle.any():
            return self._result(f"strict local minimum of the ReLU network: {number}"
                                f"{self._held()}", smallest)
        return self._idle(smallest, prove, starts, seed)

    def _held(self) -> str:
        held, edge = int(self.kinks.held.sum()), int(self.kinks.edge.sum())
        low, high = self.multipliers
        words = f", {held} activations held on the kink, d in [{low:.2g}, {high:.2g}]" \
            if held else ""
        return words + (f", {edge} on the edge of [0, 1]" if edge else "")

    def _result(self, verdict: str, smallest: float, **more) -> SecondOrder:
        return SecondOrder(verdict, smallest, self.multipliers, self.kinks, **more)

    def _falls(self, verdict: str, direction: NDArray, smallest: float, **more) -> SecondOrder:
        """The verdict, with J along the direction; not decided where J does not show it."""
        direction = direction / np.linalg.norm(direction)
        descent, lowest = self._followed(direction)
        if not descent:
            return self._result(f"not decided: {verdict}, but J was not seen to fall along it",
                                smallest, **more)
        length, change = min(descent, key=lambda pair: pair[1])
        return self._result(
            f"{verdict}; J falls by {-change:.3g} at a distance of {length:.2g}", smallest,
            direction=direction.reshape(self.W.shape), descent=descent, lowest=lowest, **more)

    def _concave(self) -> SecondOrder | None:
        """The verdict on concave kinks; None where others are proved to hold them in place.

        An entry that moves off a concave kink lowers J, and may not be able to move without others,
        to which it costs more: entries of one neuron for more samples than its row has controls.
        """
        concave, nan = self.kinks.concave, float("nan")
        count = int(concave.sum())
        words = f"{count} activations on a kink at which J falls to first order"
        if count > MOST_CONCAVE:
            return self._result(f"not decided: {words}", nan)
        fall, direction = self._steepest(concave | self.kinks.held, 0.0)
        if fall < -STEEP:
            return self._falls(f"concave kink: {words}", direction, nan)
        first = np.zeros_like(concave)
        first[1] = True
        if not np.any(concave & ~first):
            # A_1 is linear in the controls, so that what holds to first order holds.
            fall, _ = self._steepest((concave | self.kinks.held) & first, STRICT)
            if fall >= -STEEP * STRICT:
                return None
        return self._result(f"not decided: {words}, if others let them", nan)

    def _steepest(self, entries: NDArray, slack: float) -> tuple[float, NDArray]:
        """Least slope −λΣ⟨v, r(a)⟩ over directions, |a| ≤ 1, as a share of λ max|v|; its direction.

        A linear program for each choice of the sides of the concave entries. With `slack` every
        entry costs that much less to leave 0, or gives that much more: a slope of 0 then says that
        the true one is positive for every direction that moves an entry.
        """
        from itertools import product

        from scipy.optimize import linprog

        stay = self.kinks.held | self.kinks.concave
        rows = self.fixed[entries[stay]]
        U, sizes, V = np.linalg.svd(rows, full_matrices=False)
        kept = sizes > _negligible(sizes[0])
        U, back = U[:, kept], V[kept].T / sizes[kept]
        k, r = U.shape
        if r == 0:  # no control moves these entries, as of a sample that is 0 in a net without bias
            return 0.0, np.zeros(self.W.size)
        force = self.kinks.force[entries] / np.abs(self.kinks.force).max()
        d, concave = self.kinks.slopes[entries], self.kinks.concave[entries]
        up, down = -force * (1 - d) - slack, -force * d - slack  # J's slopes for a > 0 and −a > 0
        convex = np.flatnonzero(~concave)
        # Variables: a = Uz, and for each convex entry a cost t ≥ up·a, t ≥ −down·a.
        above = np.zeros((2 * len(convex), r + len(convex)))
        above[: len(convex), :r] = up[convex, None] * U[convex]
        above[len(convex) :, :r] = -down[convex, None] * U[convex]
        for part in (slice(0, len(convex)), slice(len(convex), None)):
            above[part, r:] = -np.eye(len(convex))
        box = np.concatenate([np.concatenate([U, -U]), np.zeros((2 * k, len(convex)))], axis=1)
        best, direction = 0.0, np.zeros(r)
        for sides in product((1.0, -1.0), repeat=int(concave.sum())):
            sides = np.array(sides)
            slope = np.where(sides > 0, up[concave], -down[concave])
            cost = np.concatenate([slope @ U[concave], np.ones(len(convex))])
            side = np.concatenate([-sides[:, None] * U[concave],
                                   np.zeros((len(sides), len(convex)))], axis=1)
            limit = np.concatenate([np.zeros(len(above)), np.ones(2 * k), np.zeros(len(sides))])
            end = linprog(cost, np.concatenate([above, box, side]), limit, bounds=(None, None))
            if end.status == 0 and end.fun < best:
                best, direction = float(end.fun), end.x[:r]
        return best, back @ direction

    def _idle(self, smallest: float, prove: bool, starts: int, seed: int) -> SecondOrder:
        """Search for a coupling of idle entries above the weight decay, then bound it."""
        count = int(self.kinks.idle.sum())
        neurons = int(np.any(self.kinks.idle, axis=2).any(axis=0).sum())
        if count > MAX_IDLE:
            return self._result(f"not decided: {count} idle activations, the test takes {MAX_IDLE}",
                                smallest)
        if np.any(self.kinks.idle & ~self.kinks.unread) or self._crossed():
            return self._result(f"not decided: {count} idle activations, some of neurons that are "
                                "read or active for other samples", smallest)
        groups, found, tries = self._groups(), [], 0
        for own in groups:
            found.append(coupling.search(self.feeding[:, own], self.reading[:, own], starts, seed))
            tries += found[-1].tries
        strongest = max(range(len(found)), key=lambda k: found[k].coupling)
        kappa = found[strongest].coupling
        numbers = dict(coupling=kappa, tries=tries, coupling_bound=float("inf"))
        words = (f"{neurons} dead neurons couple" if neurons > 1 else "a dead neuron couples") + \
            f" {kappa:.4g} times the weight decay"
        if kappa > 1 + SAME:
            result = self._falls(
                f"descent found: switching a dead neuron on couples {kappa:.4g} times the weight "
                "decay", self._turned_on(groups[strongest], found[strongest]), smallest, **numbers)
            return result
        if kappa >= 1 - SAME:
            return self._result(
                "not decided: a dead neuron that takes a share of a living one leaves J as it is "
                f"(coupling 1); no descent found in {tries} tries", smallest, **numbers)
        if prove and kappa < HOPELESS:
            numbers["coupling_bound"] = max(
                coupling.bound(self.feeding[:, own], self.reading[:, own]) for own in groups)
        if numbers["coupling_bound"] < 1:
            return self._result(
                f"strict local minimum of the ReLU network: smallest eigenvalue {smallest:.2e}"
                f"{self._held()}, {words} in {tries} tries and less than "
                f"{numbers['coupling_bound']:.4g} times by a bound", smallest, **numbers)
        return self._result(f"no descent found in {tries} tries: {words} at most", smallest,
                            **numbers)

    # -- the form ----------------------------------------------------------------------------------

    def _expand(self) -> None:
        """Hessian, the rows of the entries that stay at 0, and a basis of what is left free."""
        shape = self.A[:-1].shape
        if not self.relu:
            self.hessian, _ = self.derivatives(self.setting, self.W, self.steps, None,
                                               np.zeros(shape, bool))
            self.fixed, self.basis = np.empty((0, self.W.size)), np.eye(self.W.size)
            return
        kinks = self.kinks
        slopes = np.where(kinks.edge, np.round(kinks.slopes), kinks.slopes)
        stay = kinks.held | kinks.concave
        wanted = stay | kinks.idle
        self.hessian, rows = self.derivatives(self.setting, self.W, self.steps, slopes, wanted)
        self.fixed, self.rows = rows[stay[wanted]], rows[kinks.idle[wanted]]
        self.basis = _null_space(self.fixed, self.W.size)

    def _spectrum(self) -> tuple[NDArray, NDArray]:
        reduced = self.basis.T @ self.hessian @ self.basis
        self.reduced = 0.5 * (reduced + reduced.T)
        return np.linalg.eigh(self.reduced)

    def _whiten(self) -> None:
        """How idle entries are fed and read, in coordinates in which the Hessian is identity."""
        from scipy.linalg import cholesky, solve_triangular

        layer, neuron, sample = np.nonzero(self.kinks.idle)
        read = np.zeros((len(layer), *self.W.shape))
        force = -self.setting.decay * self.steps[layer, None] * self.B[layer + 1, :, sample]
        read[np.arange(len(layer)), layer, :, neuron] = force
        self.factor = cholesky(self.reduced, lower=True)
        self.feeding, self.reading = (
            solve_triangular(self.factor, self.basis.T @ part.reshape(len(layer), -1).T, lower=True)
            for part in (self.rows, read))

    def _crossed(self) -> bool:
        """Whether a control both feeds an idle entry and reads one, beyond rounding."""
        self._whiten()
        sizes = [float(np.linalg.norm(part)) for part in (self.feeding, self.reading)]
        cross = float(np.linalg.norm(self.feeding.T @ self.reading))
        return cross > 1e-8 * max(sizes[0] * sizes[1], 1e-300)

    def _groups(self) -> list[NDArray]:
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

    def _turned_on(self, own: NDArray, found: coupling.Found) -> NDArray:
        """The direction in the controls of a coupling: y, and the c that answers it best."""
        from scipy.linalg import solve_triangular

        on = np.maximum(found.y @ self.feeding[:, own], 0.0)
        z = found.y - self.reading[:, own] @ on
        return self.basis @ solve_triangular(self.factor, z, lower=True, trans=1)

    # -- along a direction -------------------------------------------------------------------------

    def _objective(self, W: NDArray) -> float:
        with np.errstate(all="ignore"):
            end = formulas.roll_out(self.setting, W, self.steps)[-1]
            return float(formulas.objective(self.setting, end, W, self.steps)[0])

    def _followed(
        self, direction: NDArray
    ) -> tuple[tuple[tuple[float, float], ...], NDArray | None]:
        """Step lengths at which J is lower, with its change, and the lowest point."""
        step = direction.reshape(self.W.shape)
        pairs, best, lowest = [], self.J, None
        for length in LENGTHS * max(1.0, float(np.linalg.norm(self.W))):
            for W in self._points(self.W + length * step):
                J = self._objective(W)
                if self.J - SEEN * abs(self.J) > J:
                    pairs.append((float(length), J - self.J))
                if best > J:
                    best, lowest = J, W
        if not pairs:
            return (), None
        least: dict[float, float] = {}
        for length, change in pairs:
            least[length] = min(change, least.get(length, 0.0))
        return tuple(least.items()), lowest

    def _points(self, W: NDArray) -> list[NDArray]:
        """W, and W with the entries held set back to 0, which a straight step leaves."""
        held = self.kinks.held if self.relu else np.zeros(1, bool)
        if not held.any():
            return [W]
        stay = (self.kinks.held | self.kinks.concave)
        rows = self.fixed[held[stay]]
        corrected = W
        for _ in range(CORRECTIONS):
            off = formulas.roll_out(self.setting, corrected, self.steps)[:-1][held]
            if not np.all(np.isfinite(off)):
                return [W]
            back = np.linalg.lstsq(rows, off, rcond=RANK_TOLERANCE)[0]
            corrected = corrected - back.reshape(W.shape)
        return [W, corrected]


def setting_of(problem: TrainingProblem) -> Setting:
    """The arrays and numbers of a problem, for the formulas."""
    hard = problem.hard_endpoint
    return formulas.Setting(
        start=problem.initial_state, targets=None if hard else problem.targets,
        endpoint=problem.endpoint if hard else None, readout=problem.readout,
        leak=problem.effective_depth, decay=problem.weight_decay, bias=problem.bias,
        activation=problem.activation, epsilon=problem.sigma.epsilon, samples=problem.n_samples)


def _null_space(rows: NDArray, n: int) -> NDArray:
    """Orthonormal basis (n, n − rank) of the directions that leave the rows at 0."""
    if not len(rows):
        return np.eye(n)
    from scipy.linalg import qr

    Q, R, _ = qr(rows.T, pivoting=True, check_finite=False)
    sizes = np.abs(np.diag(R))
    return Q[:, int(np.sum(sizes > _negligible(sizes[0]))) :]


def _negligible(largest: float) -> float:
    """Size up to which rows of ∂A/∂W, the largest of this size, count as dependent or 0.

    Controls that change A by less than its tolerance on the kink do not take it off the kink, and
    such a row holds nothing. To leave it out only makes the test stricter.
    """
    return max(RANK_TOLERANCE * largest, KINK_TOLERANCE)
