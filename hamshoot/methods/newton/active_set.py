"""The exact optimum of a ReLU network: Newton's method with the activations held on the kink.

An optimal ReLU network has entries of A exactly at 0, where J has a kink, so no method for smooth
functions converges on it. The smooth ReLU with a small ε comes close; from there three sets of
entries are told apart: active (slope 1), inactive (slope 0), and *held*, the set 𝒦 with A_𝒦 = 0.
With the sets fixed, minimising J subject to A_𝒦 = 0 is a smooth problem. Its stationary points
solve a square system in (W, m), m being the multipliers of the entries held: the roll-out in which
only active entries pass, and the costate

    B_{ℓ−1} = (1 − ρ_ℓL̃) B_ℓ + [active] ⊙ v_ℓ + m_{ℓ−1},    v_ℓ = ρ_ℓ W_ℓᵀ B_ℓ,

in which an entry held contributes its multiplier in place of slope times v. The point is stationary
for the ReLU network itself in Clarke's sense when every d = m/v lies in [0, 1] and the sign of
every other entry agrees with its set.

A leaky ReLU has the slopes 1 and α in place of 1 and 0. With σ = α z + (1 − α) ReLU(z), inactive
entries and those held pass αA and αv, active ones (1 − α)A and (1 − α)v more, and m is (1 − α)v
times d, so that σ′ = α + (1 − α)d on the kink; all else is as it stands here, with (1 − α)v for v.

The sets are found on the way. A Newton step is followed only up to the first *event*. Where v < 0,
J as a function of the entry has a convex kink: an entry that reaches 0 is held from there on, with
the multiplier its old set gave it, and one whose d reaches 1 (or 0) is let go to the active
(inactive) side, downhill. Where v > 0 the kink is concave and no place to stay: an entry passes
through to the other side, and one held leaves at d = 1 to the inactive side. Stopping at events
keeps the iterate on the piece on which the linearisation is valid; where that piece has a saddle
the Hessian is shifted, so that Newton's method does not go up to it. Where the sets cycle all the
same, Newton's method is run to its end with the entries in question held, and then entries change
sides, and so on (how often it settles: `demos/benchmarks/polish.py`). A neuron that the optimum
never switches on, W row and A row 0 for every sample, is taken out of the system. Where one is held
for more samples than it has controls otherwise, its multipliers are not unique, and only the Clarke
residual at the end judges them.

An iteration costs about 2L²w⁴N flops for the Hessian, a sum over samples taken in blocks
(`hamshoot.methods.newton.reduced_hessian`), n³/3 + n²k + nk² for the KKT system, n = Lw(w+1)
controls and k entries held, and 3n² + 3nk numbers of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.methods.common.kept import Midway, Step, kept
from hamshoot.methods.newton.kkt import solve_kkt
from hamshoot.methods.newton.polished import Polished
from hamshoot.methods.newton.reduced_hessian import expansion, second_derivatives
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import layers as discrete
from hamshoot.theory import learned
from hamshoot.theory.clarke import clarke_residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.common.watch import Watch

#: More controls than this are not polished, nor with more entries held: the KKT matrix is dense,
#: and one iteration takes 5 s and 1.5 GB at n = 7000. Nor with more activations, since entries
#: change sides one event, and one iteration, at a time.
MAX_CONTROLS, MAX_HELD, MAX_ACTIVATIONS = 7000, 7000, 200_000
#: Entries whose smooth slope lies further inside (0, 1) than INSIDE·√(ε/1e-3) are held to begin
#: with: the smaller ε, the closer to an end may d be of one that belongs on the kink.
INSIDE = 0.05
#: How far d may lie outside [0, 1], and an entry on the wrong side of 0, by rounding.
SLACK, ZERO = 1e-9, 1e-12
#: Largest change of a control in one step, against the largest control.
LONGEST = 0.2
#: Most Newton steps of a round with fixed sets.
MOST_STEPS = 15
#: The sets cycle when they come back more often than this; not counted are the steps in which
#: Newton's method converges with the sets as they are.
RETURNS, NEARLY = 3, 1e-4
IMAGINARY = 1e-30
#: The arrays that say where it stands.
PARTS = ("W", "m", "active", "held", "hidden", "changes", "free")


def affordable(problem: TrainingProblem, layers: int) -> bool:
    """Whether a network of so many layers can be polished: ReLUs, a loss, and not too large."""
    if not problem.sigma.kinked or problem.hard_endpoint:
        return False
    activations = layers * problem.width * problem.n_samples
    controls = learned.count(problem, layers)
    return controls <= MAX_CONTROLS and activations <= MAX_ACTIVATIONS


def polish(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    epsilon: float,
    *,
    tol: float = 1e-10,
    max_iter: int = 100,
    callback: Callable[[float, float], None] | None = None,
    look: Callable[[], None] | None = None,
    watch: Watch | None = None,
    kind: type[ActiveSet] | None = None,
) -> Polished:
    """Go from a stationary point of the network smoothed with ε to one of the ReLU network itself.

    Parameters
    ----------
    problem : TrainingProblem
        ReLU or leaky ReLU, with a loss.
    weights : ndarray, shape (L, w, w+1)
        Stationary, or nearly, for the smooth ReLU of width `epsilon`.
    steps : ndarray, shape (L,)
    epsilon : float
    tol : float
        For the stationarity, max_ℓ ‖W_ℓ − L̃Bσ̂ᵀ‖_F / max(1, ‖W_ℓ‖_F), of the ReLU network.
    max_iter : int
        Most linear systems to be solved.
    callback : callable, optional
        Receives objective and residual of every iterate; may raise.
    look : callable, optional
        Called between the factorisations of a step, each O(n³) in the n controls; may raise.
    watch : Watch, optional
        Of the solve that this is a step of, which `callback` tells: with it the step is kept
        (`hamshoot.methods.common.kept`), and so are the sets on the way.
    kind : type, optional
        The sets and their system; `ActiveSet` by default.

    Returns
    -------
    Polished
        Not settled when the sets did not agree within `max_iter`, or J rose: then try a smaller ε.

    Raises
    ------
    ValueError
        For another activation, a hard endpoint, or more than MAX_CONTROLS controls.
    """
    if not problem.sigma.kinked:
        raise ValueError("activation: only relu and leaky_relu have a kink to polish, got "
                         f"{problem.activation}")
    if problem.hard_endpoint:
        raise ValueError("problem: the polish is for the loss, got a hard endpoint")
    if weights.size > MAX_CONTROLS:
        raise ValueError(f"weights: at most {MAX_CONTROLS} controls, got {weights.size}")
    def compute(midway: Midway) -> Step:
        state = (kind or ActiveSet)(problem, np.array(weights, dtype=float), steps, epsilon, look)
        start = learned.objective_of(problem, weights, steps)
        found = _polished(state, start, tol, max_iter, callback, midway)
        numbers = found._asdict()
        return {"weights": numbers.pop("weights")}, numbers

    inputs = (weights, steps, epsilon, tol, max_iter)
    arrays, numbers = kept(watch, problem, "polish", inputs, compute)
    found: dict[str, Any] = {**arrays, **numbers}
    return Polished(**found)


def _polished(
    state: ActiveSet, start: float, tol: float, max_iter: int,
    callback: Callable[[float, float], None] | None, midway: Midway,
) -> Polished:
    """`polish`, made now, from a network of objective `start`."""
    problem, steps = state.problem, state.steps

    def report() -> None:
        if callback is not None:
            callback(learned.objective_of(problem, state.stack, steps), state.residual())

    begun = midway.resumed()
    met, iteration = ({}, 0) if begun is None else (state.take(begun[0]), begun[1]["iteration"])
    done, whole = False, begun is not None and begun[1]["whole"]
    if not whole:
        done, iteration = _follow_events(state, met, iteration, 0.1 * tol, max_iter, report,
                                         midway)
    if not done:
        done, iteration = _whole_rounds(state, met if whole else None, iteration, 0.1 * tol,
                                        max_iter, report, midway)
    stack = state.stack
    objective = learned.objective_of(problem, stack, steps)
    at, W = learned.settled(problem, stack)
    clarke = clarke_residual(at, discrete.roll_out(at, W, steps), W, steps)
    gradient = learned.scaled_gradient(problem, stack, steps, slopes=clarke.slopes)[2]
    stationarity = learned.stationarity_of(problem, stack, gradient)
    # J of the smooth optimum is O(ε) above; a rise means another branch, or none.
    settled = done and stationarity <= tol and objective <= start + 1e-9 * abs(start)
    dead = int(clarke.idle.sum())
    return Polished(stack, bool(settled), float(objective), float(stationarity),
                    int(clarke.on_kink.sum()) - dead, dead, iteration)


def _follow_events(
    state: ActiveSet, met: dict[bytes, int], first: int, tol: float, limit: int,
    report: Callable[[], None], midway: Midway,
) -> tuple[bool, int]:
    """Newton steps up to the next event; ends when done, or when the sets cycle.

    `met` counts the patterns met, in place.
    """
    def here() -> Step:
        return state.arrays(met), {"iteration": iteration, "whole": False}

    for iteration in range(first, limit + 1):
        midway.offer(here)
        residual = state.residual()
        report()
        if residual <= tol and state.consistent():
            return True, iteration
        pattern = state.pattern()
        met[pattern] = met.get(pattern, 0) + (residual > NEARLY)
        cycles = met[pattern] > RETURNS
        if cycles or iteration == limit or not np.isfinite(residual) or not state.step():
            return False, iteration
    raise AssertionError("unreachable")


def _whole_rounds(
    state: ActiveSet, met: dict[bytes, int] | None, iteration: int, tol: float, limit: int,
    report: Callable[[], None], midway: Midway,
) -> tuple[bool, int]:
    """Converge with the sets fixed, then let entries change sides, and again.

    The way to a consistent point is not monotone when a piece on it has a saddle: an entry that
    changes sides at its event comes straight back. Held through to the end, its d returns into
    [0, 1] by itself. The patterns met are None to begin with.
    """
    if met is None:
        state.hold(state.changes > 1)
    seen, done = {} if met is None else met, False

    def here() -> Step:
        return state.arrays(seen), {"iteration": iteration, "whole": True}

    while iteration < limit and state.pattern() not in seen:
        midway.offer(here)
        seen[state.pattern()] = 1
        for _ in range(MOST_STEPS):
            residual = state.residual()
            if residual <= tol or iteration == limit or not state.step(to_event=False):
                break
            iteration += 1
            report()
        done = state.residual() <= tol
        if not done or state.consistent():
            break
        done = False
        state.change_sides()
    return done, iteration


class Sweep(NamedTuple):
    """Nodes A (L+1, w, N), features S (L, c, N), momenta B (L+1, …), v (L, w, N), ∂(J/λ)/∂W.

    Of a leaky ReLU v is (1 − α)ρWᵀB, what the kink has a part in.
    """

    A: NDArray
    S: NDArray
    B: NDArray
    v: NDArray
    G: NDArray


class ActiveSet:
    """Controls W, multipliers m (L, w, N), and the sets `active` and `held`, at left nodes."""

    def __init__(self, problem: TrainingProblem, weights: NDArray, steps: NDArray, epsilon: float,
                 look: Callable[[], None] | None = None):
        self.problem, self.W, self.steps, self.look = problem, weights, steps, look
        self.low = problem.sigma.negative_slope
        A, momenta = self.smoothed(problem.sigma.smoothed(epsilon))
        d = Activation("smooth_relu", epsilon).slope(A[:-1])
        self.hidden = np.ones(d.shape, bool)
        self.hidden[0] = problem.lift_decay is not None  # an A_0 that is given has any signs
        inside = INSIDE * min(1.0, np.sqrt(epsilon / 1e-3))
        self.held = self.hidden & (d > inside) & (d < 1 - inside)
        self.active = (A[:-1] > 0) & ~self.held
        v = (1 - self.low) * discrete.pulled(self.controls, steps, momenta)
        self._switch_off_idle()
        self.m = np.where(self.held, d * v, 0.0)
        self.changes = np.zeros(self.held.shape, int)  # of side, by entry
        self.now = self.sweep(self.W, self.m)

    @property
    def stack(self) -> NDArray:
        """The controls as they came."""
        return self.W

    @property
    def controls(self) -> NDArray:
        """W, (L, w, w+1)."""
        return self.W

    def smoothed(self, sigma: Activation) -> tuple[NDArray, NDArray]:
        """States and costates of the smooth network."""
        A, B, _ = learned.scaled_gradient(self.problem.replace(activation=sigma), self.stack,
                                          self.steps)
        return A, B

    def arrays(self, met: dict[bytes, int]) -> dict[str, NDArray]:
        """Where it stands, with patterns and how often each was met: what `take` goes on from."""
        patterns = np.frombuffer(b"".join(met), np.int8).reshape(len(met), self.held.size)
        return {**{name: getattr(self, name) for name in PARTS}, "patterns": patterns,
                "often": np.array(list(met.values()), dtype=np.int64)}

    def take(self, arrays: dict[str, NDArray]) -> dict[bytes, int]:
        """Stand where `arrays` says; the patterns met."""
        for name in PARTS:
            setattr(self, name, np.array(arrays[name]))
        self.now = self.sweep(self.W, self.m)
        return dict(zip(map(bytes, arrays["patterns"]), arrays["often"].tolist(), strict=True))

    def _switch_off_idle(self) -> None:
        """Set W to 0 where a neuron rests on the kink for every sample, from the start on.

        Its A row is 0 because nothing ever feeds it, so W = 0 says the same as all its entries
        held, with fewer and independent conditions; and as nothing reads it, its costate is of no
        account. The Newton system goes without these controls.
        """
        resting = ~np.any(self.problem.initial_state, axis=1)
        self.free: NDArray = np.ones(self.W.shape, bool)
        for k in range(1, len(self.W)):
            resting = resting & self.held[k].all(axis=1)
            self.W[k - 1, resting] = 0.0
            self.free[k - 1, resting] = False
            self.held[k, resting] = self.hidden[k, resting] = self.active[k, resting] = False
        self.free = self.free.ravel()

    def slopes(self) -> NDArray:
        """σ′ of the sets, (L, w, N), that of inactive entries on the kink."""
        return self.low + (1 - self.low) * self.active if self.low else self.active

    def sweep(self, W: NDArray, m: NDArray) -> Sweep:
        """Roll-out and costate with the sets as they are; real or complex."""
        problem, w = self.problem, self.problem.width
        keep = 1 - self.steps * problem.effective_depth
        A, S = [problem.initial_state.astype(W.dtype)], []
        ones, slopes = np.ones((1, problem.n_samples)), self.slopes()
        for k, rho in enumerate(self.steps):
            passed = slopes[k] * A[-1]
            S.append(np.concatenate([passed, ones]) if problem.bias else passed)
            A.append(keep[k] * A[-1] + rho * W[k] @ S[-1])
        outputs, decay = problem.readout @ A[-1], problem.weight_decay
        if problem.criterion.plain:
            B = -2 / (decay * problem.n_samples) * problem.readout.T @ (outputs - problem.targets)
        else:
            B = -1 / decay * problem.readout.T @ problem.criterion.gradient(
                outputs, problem.targets)
        momenta, v, G = [B], np.empty_like(m, dtype=W.dtype), np.empty_like(W)
        for k in range(len(W) - 1, -1, -1):
            G[k] = self.steps[k] * (W[k] / problem.effective_depth - B @ S[k].T)
            v[k] = self.steps[k] * W[k][:, :w].T @ B
            B = keep[k] * B + slopes[k] * v[k] + m[k]
            momenta.append(B)
        if self.low:
            v *= 1 - self.low
        return Sweep(np.array(A), np.array(S), np.array(momenta[::-1]), v, G)

    # -- where it stands ---------------------------------------------------------------------------

    def residual(self) -> float:
        """The larger of the scaled gradient and the entries held, relative to the largest A."""
        scaled = self.problem.effective_depth / self.steps[:, None, None] * self.now.G
        scaled.ravel()[~self.free] = 0.0
        A = self.now.A[:-1]
        off = np.abs(A[self.held]).max(initial=0.0) / max(1.0, float(np.abs(A).max()))
        return max(discrete.stationarity(self.W, scaled), float(off))

    def consistent(self) -> bool:
        """Whether every d lies in [0, 1] and every sign agrees with its set."""
        wrong, below, above = self._misfits()
        return not (wrong.any() or below.any() or above.any())

    def _misfits(self) -> tuple[NDArray, NDArray, NDArray]:
        """Entries on the wrong side of 0, held with d < 0, and held with d > 1."""
        A, v, m = self.now.A[:-1], self.now.v, self.m
        sided = np.where(self.active, A, -A)
        wrong = self.hidden & ~self.held & (sided < -ZERO * max(1.0, float(np.abs(A).max())))
        slack, bounded = SLACK * np.maximum(np.abs(v), 1e-30), self.held & ~self.idle()
        below = bounded & (m * np.sign(v) < -slack)
        above = bounded & ((v - m) * np.sign(v) < -slack)
        return wrong, below, above

    def idle(self) -> NDArray:
        """Entries of neurons held at 0 for more samples than they have controls: switched off.

        Such constraints depend on each other and leave the multipliers open, so that no single d
        outside [0, 1] says that its entry wants to go. Whether some choice of them all fits is for
        the Clarke residual at the end.
        """
        return np.broadcast_to(
            self.held.sum(axis=2, keepdims=True) > self.W.shape[2], self.held.shape)

    def pattern(self) -> bytes:
        """The sets, for telling whether they were met before."""
        return np.where(self.held, 2, self.active).astype(np.int8).tobytes()

    def hold(self, entries: NDArray) -> None:
        """Hold entries, with the multipliers that their sets gave them."""
        self.m = np.where(entries & ~self.held, self.active * self.now.v, self.m)
        self.held, self.active = self.held | entries, self.active & ~entries
        self.now = self.sweep(self.W, self.m)

    def change_sides(self) -> None:
        """Hold what is on the wrong side; let go what has its d outside [0, 1], downhill."""
        wrong, below, above = self._misfits()
        convex = self.now.v < 0
        self.held = self.held & ~below & ~above
        self.active = np.where(below | above, above == convex, self.active)
        self.m = np.where(self.held, self.m, 0.0)
        self.hold(wrong)

    # -- one step ----------------------------------------------------------------------------------

    def step(self, to_event: bool = True) -> bool:
        """Newton's direction, followed to the first event; False when it cannot be computed."""
        direction = self._newton()
        if direction is None:
            return False
        dW, dm = direction
        tangent = self.sweep(self.W + 1j * IMAGINARY * dW, self.m + 1j * IMAGINARY * dm)
        dA, dv = tangent.A[:-1].imag / IMAGINARY, tangent.v.imag / IMAGINARY
        reach, release, side = self._events(dA, dv, dm)
        event = min(reach.min(), release.min()) if to_event else np.inf
        longest = LONGEST * max(1.0, float(np.abs(self.W).max())) / max(np.abs(dW).max(), 1e-300)
        length = min(1.0, longest, event)
        self.W = self.W + length * dW
        self.m = self.m + length * dm
        if event <= min(1.0, longest):
            caught, freed = reach <= event + ZERO, release <= event + ZERO
            self.changes += caught | freed
            v = self.sweep(self.W, self.m).v
            held = caught & (v < 0)  # the others pass through to the other side
            self.m = np.where(held, self.active * v, self.m)
            self.held = (self.held | held) & ~freed
            self.active = np.where(freed, side ^ (v >= 0), self.active ^ caught)
            self.active = self.active & ~self.held
            self.m = np.where(self.held, self.m, 0.0)
        self.now = self.sweep(self.W, self.m)
        return True

    def _events(self, dA: NDArray, dv: NDArray, dm: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Step lengths at which entries reach 0, and at which d leaves [0, 1]; and to which side.

        What is on the wrong side already, and moves further, has its event at once.
        """
        A, v, m = self.now.A[:-1], self.now.v, self.m
        inf = np.inf
        with np.errstate(all="ignore"):
            sided, slope = np.where(self.active, A, -A), np.where(self.active, dA, -dA)
            reach = np.where(slope < 0, np.maximum(sided, 0) / -slope, inf)
            reach = np.where(self.hidden & ~self.held, reach, inf)
            sign = np.sign(v)
            low, dlow = m * sign, dm * sign
            high, dhigh = (v - m) * sign, (dv - dm) * sign
            bounded = self.held & ~self.idle()
            at_0 = np.where(bounded & (dlow < 0), np.maximum(low, 0) / -dlow, inf)
            at_1 = np.where(bounded & (dhigh < 0), np.maximum(high, 0) / -dhigh, inf)
        return reach, np.minimum(at_0, at_1), at_1 < at_0

    def _newton(self) -> tuple[NDArray, NDArray] | None:
        """Solve the KKT system of the sets as they are for δW and δm."""
        if self.held.sum() > MAX_HELD:
            return None
        hessian, constraints = self._kkt_blocks()
        if not self.free.all():
            hessian = hessian[np.ix_(self.free, self.free)]
            constraints = constraints[:, self.free]
        solution = solve_kkt(hessian, constraints, -self.now.G.ravel()[self.free],
                              -self.now.A[:-1][self.held], self.look)
        if solution is None:
            return None
        dW, dm = np.zeros(self.W.size), np.zeros_like(self.m)
        dW[self.free], dm[self.held] = solution
        return dW.reshape(self.W.shape), dm

    def _kkt_blocks(self) -> tuple[NDArray, NDArray]:
        """Hessian of the Lagrangian (n, n), and ∂A_𝒦/∂W (k, n)."""
        at = expansion(self.problem, self.now.A, self.now.B, self.W, self.steps,
                       self.slopes().astype(float))
        return second_derivatives(at, self.held)
