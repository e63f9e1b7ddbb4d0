"""Optimisers that others would take for J of the controls, restarted until their time is up.

`optimisers.py` compares them. Every one is given J and ∂J/∂W by the compiled sweeps of
`hamshoot.dynamics`, and the first-order ones run compiled as a whole, so that what is compared is
the algorithm and not the interpreter. No one has a weight decay of its own, since J holds λ. What
each is, and where it is from:

* Adam: `hamshoot.methods.descent.epochs`, the epochs that the package trains with, cosine schedule;
* Muon: momentum 0.95 of Nesterov's kind, orthogonalised by five Newton–Schulz iterations, times
  √max(1, rows/columns), one matrix (w, w+1) a layer with its bias (Jordan et al., 2024);
* SOAP: Adam in the eigenbasis of Shampoo's two factors, β 0.95, the basis turned every ten epochs
  by a power step and QR (Vyas et al., 2024, Algorithm 3; bias correction as in Adam);
* MSA: the method of successive approximations, W ← (1 − θ)W + θL̃Bσ̂ᵀ, θ = 1 plain (Krylov and
  Chernousko, 1963), and the extended one, whose Hamiltonian has −μ/2 ‖(W − W_old)σ̂‖² (Li, Chen, Tai
  and E, 2018, its term of the states; the one of the costates is left out, which keeps the
  maximum over W in closed form);
* L-BFGS: the package's, `hamshoot.methods.search.lbfgs`, on the ReLU network itself, and SciPy's
  L-BFGS-B, 30 pairs both;
* BFGS with a full matrix, and self-scaled by τ = min(1, yᵀs/sᵀBs) (Al-Baali, 1998), with the weak
  Wolfe conditions by bisection, which are those for functions with kinks (Lewis and Overton, 2013);
  SciPy's BFGS multiplies two n × n matrices an iteration, 2n³ flops where 4n² do;
* trust-krylov: SciPy's, with Hessian products by central differences of gradients. On the kinks of
  ReLU it stalls, and begins anew after 20 iterations in which J fell by less than FLAT;
* Gauss–Newton–CG: in `hessian_free.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import njit
from scipy.linalg import blas
from scipy.optimize import minimize

import hamshoot as hs
from hamshoot.dynamics import _kernels
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.methods.descent.epochs import EpochLoop
from hamshoot.methods.descent.optimizers import schedule_factors
from hamshoot.methods.search.lbfgs import Minimizer

STARTS = ("path", "identity")
#: A quasi-Newton run ends, and another start begins, when J falls by less than the share FLAT in
#: WINDOW iterations.
FLAT, WINDOW, PAIRS = 1e-3, 100, 30
#: Epochs of the pilots of first-order methods, every rate from both starts, and of the rounds after
#: them, from new seeds with the best three of rates and starts; the last one is repeated.
PILOT, ROUNDS, FINALISTS = 1000, (4000, 16_000, 4000, 60_000, 16_000), 3
#: Flops of the gradients between two looks at the clock.
LOOK_FLOPS = 2e7
#: J at which a run has diverged: matrices made of such gradients are no longer to be solved with.
DIVERGED = 1e12
RATES = {"adam": (0.03, 0.1, 0.3, 1.0), "muon": (0.03, 0.1, 0.3, 1.0),
         "soap": (0.03, 0.1, 0.3, 1.0)}
#: Of MSA: θ, and μ of the extended one in units of the loss's own curvature, 2/(Nλ).
RELAXATIONS, PENALTIES = (1.0, 0.1, 0.01), (1.0, 10.0, 100.0)


class Over(Exception):
    """The seconds are over."""


class Trace:
    """Lowest J over CPU seconds of the process, up to a limit.

    Attributes
    ----------
    points : list of (float, float)
        Seconds and J at every look that found a lower one.
    end : str
        What the lowest came from.
    """

    def __init__(self, limit: float):
        self.limit, self.points, self.runs, self.label = limit, [], 0, ""
        self.lowest, self.end = np.inf, ""
        self.began = time.process_time()

    @property
    def seconds(self) -> float:
        """CPU time since the start."""
        return time.process_time() - self.began

    def note(self, objective: float, seconds: float | None = None) -> None:
        """Keep J if it is the lowest, unless time was up before it was reached."""
        seconds = self.seconds if seconds is None else seconds
        if objective < self.lowest and seconds <= self.limit:
            self.lowest, self.end = float(objective), self.label
            self.points.append((seconds, self.lowest))

    def look(self, objective: float) -> None:
        """Note J; raises `Over` when time is up."""
        self.note(objective)
        if self.seconds > self.limit:
            raise Over


class Setting:
    """A problem, its layers, its sweeps, and where runs begin."""

    def __init__(self, problem: hs.TrainingProblem, layers: int, seed: int = 0):
        self.problem, self.seed = problem, seed
        self.steps = equidistant_steps(layers)
        self.sweeps = EulerSweeps(problem, self.steps)
        flops = 6 * np.prod(self.sweeps.shape) * problem.n_samples
        self.chunk = int(np.clip(LOOK_FLOPS / flops, 1, 100))
        # All layers have one ρ, so that v = scale·W, ‖v‖²/2 the weight decay, is a scaling alone.
        self.scale = float(np.sqrt(self.steps[0] * problem.weight_decay / problem.effective_depth))

    def start(self, name: str, seed: int) -> np.ndarray:
        """Controls (L, w, w+1) of a start."""
        return starting_weights(self.problem, self.steps, name, self.seed + seed)

    def starts(self, trace: Trace) -> Iterator[np.ndarray]:
        """Path fits and identities in turn, for ever."""
        k = 0
        while True:
            trace.label = f"{STARTS[k % 2]} {k // 2}"
            trace.runs += 1
            yield self.start(STARTS[k % 2], k // 2)
            k += 1

    def value(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        """J and ∂J/∂v of v (n,)."""
        J, G = self.sweeps.gradient((v / self.scale).reshape(self.sweeps.shape))
        return J, G.ravel() / self.scale


# -- first order -----------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")
def orthogonalised(X):
    """Five Newton–Schulz iterations of Muon on X (rows ≤ columns)."""
    X = X / (np.sqrt(np.sum(X * X)) + 1e-7)
    for _ in range(5):
        A = np.dot(X, X.T)
        X = 3.4445 * X + np.dot(-4.7750 * A + 2.0315 * np.dot(A, A), X)
    return X


@njit(nogil=True, error_model="numpy")
def muon_epochs(rates, count, m, W, best, arguments):
    """Epochs of Muon in place; the lowest J, and the last."""
    G, value = arguments[-1], np.inf
    for rate in rates:
        value = _kernels.gradient(W, *arguments)
        if not value < DIVERGED:
            return best, np.nan
        best = min(best, value)
        for k in range(W.shape[0]):
            m[k] += 0.05 * (G[k] - m[k])
            W[k] -= rate * orthogonalised(0.05 * G[k] + 0.95 * m[k])
    return best, value


@njit(nogil=True, error_model="numpy")
def soap_epochs(rates, count, m, v, left, right, QL, QR, W, best, arguments):
    """Epochs of SOAP in place; the lowest J, and the last.

    m is kept unprojected, v in the eigenbasis; the first gradient only sets the basis.
    """
    G, value, beta = arguments[-1], np.inf, 0.95
    for e in range(len(rates)):
        value = _kernels.gradient(W, *arguments)
        if not value < DIVERGED:
            return best, np.nan
        best = min(best, value)
        t = count + e
        for k in range(W.shape[0]):
            g = G[k]
            if t > 0:
                m[k] = beta * m[k] + (1 - beta) * g
                turned = np.dot(np.dot(QL[k].T, g), QR[k])
                v[k] = beta * v[k] + (1 - beta) * turned * turned
                moment = np.dot(np.dot(QL[k].T, m[k]), QR[k]) / (1 - beta**t)
                step = moment / (np.sqrt(v[k] / (1 - beta**t)) + 1e-8)
                W[k] -= rates[e] * np.dot(np.dot(QL[k], step), QR[k].T)
            left[k] = beta * left[k] + (1 - beta) * np.dot(g, g.T)
            right[k] = beta * right[k] + (1 - beta) * np.dot(g.T, g)
            if t == 0:
                QL[k] = np.linalg.eigh(left[k])[1]
                QR[k] = np.linalg.eigh(right[k])[1]
            elif t % 10 == 0:
                turn(left[k], QL[k], v[k])
                turn(right[k], QR[k], v[k].T)
    return best, value


@njit(nogil=True, error_model="numpy")
def turn(factor, Q, v):
    """One power step and QR of an eigenbasis, in place, v's rows in the order of eigenvalues."""
    product = np.dot(factor, Q)
    order = np.argsort(-np.sum(Q * product, axis=0))
    v[:] = v[order].copy()
    Q[:] = np.linalg.qr(np.ascontiguousarray(product[:, order]))[0]


@njit(nogil=True, error_model="numpy")
def msa_epochs(rates, penalty, W, best, arguments):
    """Iterations of MSA in place, θ by `rates`, μ = penalty·2/(Nλ); the lowest J, and the last."""
    steps, leak, decay = arguments[1], arguments[2], arguments[3]
    S, G = arguments[-6], arguments[-1]
    value, N = np.inf, S.shape[2]
    for rate in rates:
        value = _kernels.gradient(W, *arguments)
        if not value < DIVERGED:
            return best, np.nan
        best = min(best, value)
        for k in range(W.shape[0]):
            change = -leak / (decay * steps[k]) * G[k]  # L̃Bσ̂ᵀ − W
            if penalty > 0:
                gram = np.eye(W.shape[2]) + penalty * 2 * leak / (N * decay) * np.dot(S[k], S[k].T)
                change = np.ascontiguousarray(np.linalg.solve(gram, change.T).T)
            W[k] += rate * change
    return best, value


class Loop:
    """Moments and controls of one first-order run; `advance` makes some epochs of it."""

    def __init__(self, name: str, setting: Setting, weights: np.ndarray, value: float):
        sweeps = setting.sweeps
        self.name, self.setting, self.count, self.best = name, setting, 0, np.inf
        self.W = np.array(weights, order="C")
        L, w, c = sweeps.shape
        if name == "adam":
            self.adam = EpochLoop(sweeps, weights, adam=True, beta1=0.9, beta2=0.999, epsilon=1e-8)
        self.penalty = value if name == "extended msa" else 0.0
        self.moments = [np.zeros((L, w, c))]
        if name == "soap":
            self.moments += [np.zeros(shape) for shape in (
                (L, w, c), (L, w, w), (L, c, c), (L, w, w), (L, c, c))]

    def advance(self, rates: np.ndarray) -> bool:
        """Epochs, one a rate; whether it can go on."""
        try:
            return self._advance(rates)
        except np.linalg.LinAlgError:
            return False

    def _advance(self, rates: np.ndarray) -> bool:
        arguments = self.setting.sweeps.arguments
        if self.name == "adam":
            last = self.adam.run(rates)[-1]
            self.best = self.adam.best
        elif self.name == "muon":
            self.best, last = muon_epochs(rates, self.count, *self.moments, self.W, self.best,
                                          arguments)
        elif self.name == "soap":
            self.best, last = soap_epochs(rates, self.count, *self.moments, self.W, self.best,
                                          arguments)
        else:
            self.best, last = msa_epochs(rates, self.penalty, self.W, self.best, arguments)
        self.count += len(rates)
        return bool(np.isfinite(last))


def grid_of(name: str) -> list[tuple[str, float]]:
    """Optimiser and rate, θ or μ, of everything that the pilots try."""
    if name == "msa":
        return [("msa", x) for x in RELAXATIONS] + [("extended msa", x) for x in PENALTIES]
    return [(name, rate) for rate in RATES[name]]


def first_order(name: str, setting: Setting, trace: Trace, pilot: int = PILOT) -> None:
    """Pilots of the grid, then rounds from new seeds with the best of it, longer and longer."""
    found: dict[tuple, float] = {}

    def run(key: tuple[tuple[str, float], str], seed: int, epochs: int) -> None:
        (kind, value), start = key
        trace.label = f"{kind} {value:g}, {start} {seed}, {epochs} epochs"
        trace.runs += 1
        loop = Loop(kind, setting, setting.start(start, seed), value)
        rates = np.ones(epochs) if kind == "extended msa" else \
            value * schedule_factors("constant" if kind == "msa" else "cosine", epochs)
        for done in range(0, epochs, setting.chunk):
            finite = loop.advance(rates[done:done + setting.chunk])
            trace.look(loop.best)
            if not finite:
                break
        found[key] = min(found.get(key, np.inf), loop.best)

    for entry in grid_of(name):
        for start in STARTS:
            run((entry, start), 0, pilot)
    seed = 1
    while True:
        epochs = ROUNDS[min(seed, len(ROUNDS)) - 1] * pilot // PILOT
        for key in sorted(found, key=found.get)[:FINALISTS]:
            run(key, seed, epochs)
        seed += 1


# -- second order ----------------------------------------------------------------------------------


class Flat:
    """Whether J has stopped falling: less than the share FLAT in `window` iterations."""

    def __init__(self, window: int = WINDOW):
        self.window, self.values = window, []

    def __call__(self, objective: float) -> bool:
        """Hear of an iteration's J."""
        self.values.append(objective)
        return len(self.values) > self.window and (
            self.values[-1 - self.window] - objective < FLAT * abs(objective))


def own_lbfgs(setting: Setting, trace: Trace) -> None:
    """The package's compiled L-BFGS, on the ReLU network itself."""

    class Log:
        stage, iterations = "", 0

        def record(self, objective: float, stationarity: float = np.nan, /) -> None:
            """Look at the clock."""
            trace.look(objective)

    for weights in setting.starts(trace):
        minimizer = Minimizer(setting.sweeps, Log(), memory=PAIRS, max_iter=10**9)
        minimizer.chunk = min(minimizer.chunk, setting.chunk)
        minimizer.minimize(weights, 1e-9, decrease=FLAT)


def scipy_run(setting: Setting, trace: Trace, weights: np.ndarray, method: str, window: int,
              **settings: Any) -> None:
    """One run of `scipy.optimize.minimize` in v; ended by the clock or where J is flat."""
    flat, seen = Flat(window), {}

    def value(v: np.ndarray) -> tuple[float, np.ndarray]:
        J, g = setting.value(v)
        trace.look(J)
        seen["J"] = J
        return (J, g) if np.isfinite(J) else (1e300, np.zeros_like(v))

    def callback(intermediate_result: Any) -> None:
        if flat(float(intermediate_result.fun)):
            raise StopIteration

    minimize(value, weights.ravel() * setting.scale, jac=True, method=method, callback=callback,
             **settings)


def scipy_lbfgs(setting: Setting, trace: Trace) -> None:
    """SciPy's L-BFGS-B."""
    options = dict(maxcor=PAIRS, maxiter=10**9, maxfun=10**9, ftol=0.0, gtol=1e-12)
    for weights in setting.starts(trace):
        scipy_run(setting, trace, weights, "L-BFGS-B", WINDOW, options=options)


def trust_krylov(setting: Setting, trace: Trace) -> None:
    """SciPy's trust-krylov; a product costs two gradients."""

    def product(v: np.ndarray, d: np.ndarray) -> np.ndarray:
        trace.look(np.inf)
        size = np.linalg.norm(d)
        if not size > 0:
            return np.zeros_like(d)
        h = 1e-6 * max(1e-3, np.linalg.norm(v)) / size
        return (setting.value(v + h * d)[1].copy() - setting.value(v - h * d)[1]) / (2 * h)

    for weights in setting.starts(trace):
        scipy_run(setting, trace, weights, "trust-krylov", 20, hessp=product,
                  options=dict(maxiter=10**6, gtol=1e-10))


def weak_wolfe(value: Callable, v: np.ndarray, J: float, g: np.ndarray, d: np.ndarray, t: float
               ) -> tuple[float, float, np.ndarray] | None:
    """Step, J and gradient with J(v + td) ≤ J + 1e-4 t gᵀd and slope ≥ 0.9 gᵀd, by bisection."""
    slope, low, high = float(g @ d), 0.0, np.inf
    for _ in range(30 if slope < 0 else 0):
        trial, h = value(v + t * d)
        if not trial <= J + 1e-4 * t * slope:
            high = t
        elif h @ d < 0.9 * slope:
            low = t
        else:
            return t, trial, h.copy()
        t = 2 * t if high == np.inf else 0.5 * (low + high)
    return None


def bfgs_run(value: Callable, v: np.ndarray, scaled: bool, look: Callable[[float], None]) -> float:
    """BFGS with a full matrix from v (n,), self-scaled or not, until J is flat; the last J.

    H is held by its lower triangle. Costs 4n² flops an iteration besides the gradients, and n²
    more where it is scaled.
    """
    J, g = value(v)
    g, flat, first = g.copy(), Flat(), True
    H = np.asfortranarray(np.eye(len(v)))
    while not flat(J):
        d = -blas.dsymv(1.0, H, g, lower=1)
        first_step = 1 / max(1.0, float(np.linalg.norm(g))) if first else 1.0
        found = weak_wolfe(value, v, J, g, d, first_step)
        if found is None:
            if first:
                break
            H[:], first = np.eye(len(v)), True  # once more along the gradient
            continue
        t, J, new = found
        look(J)
        s, y, curved = t * d, new - g, -t * t * float(g @ d)  # sᵀBs = −t sᵀg
        sy = float(s @ y)
        if not sy > 1e-300:  # it underflows
            break
        if first:
            H[:] *= sy / float(y @ y)  # the size of H, as of L-BFGS
            curved *= float(y @ y) / sy
        Hy = blas.dsymv(1.0, H, y, lower=1)
        yHy, tau = float(y @ Hy), min(1.0, sy / curved) if scaled else 1.0
        H = blas.dsyr2(-1 / sy, s, Hy, lower=1, a=H, overwrite_a=1)
        if tau < 1:
            H *= 1 / tau
        H = blas.dsyr((yHy / sy / tau + 1) / sy, s, lower=1, a=H, overwrite_a=1)
        v, g, first = v + s, new, False
    return J


def bfgs(setting: Setting, trace: Trace, scaled: bool = False) -> None:
    """`bfgs_run` from one start after the other."""
    for weights in setting.starts(trace):
        bfgs_run(setting.value, weights.ravel() * setting.scale, scaled, trace.look)


PEERS: dict[str, Callable[[Setting, Trace], None]] = {
    "Adam": lambda setting, trace: first_order("adam", setting, trace),
    "Muon": lambda setting, trace: first_order("muon", setting, trace),
    "SOAP": lambda setting, trace: first_order("soap", setting, trace),
    "MSA, plain and extended": lambda setting, trace: first_order("msa", setting, trace),
    "L-BFGS": own_lbfgs,
    "L-BFGS-B, SciPy": scipy_lbfgs,
    "BFGS": bfgs,
    "self-scaled BFGS": lambda setting, trace: bfgs(setting, trace, scaled=True),
    "trust-krylov, SciPy": trust_krylov,
}
