"""How strongly switching neurons on couples, against the weight decay that it costs.

Around a stationary ReLU network, controls y that feed idle entries make them a = Tᵀy, and controls
c that read them answer through E. In coordinates in which the second-order form without the idle
entries is ½‖y‖² + ½‖c‖² (see `hamshoot.optimality.second_order_layers`) the whole form is

    ½‖y‖² + ½‖c‖² + ⟨c, E σ(Tᵀy)⟩,      σ(a) = max(a, 0) entry by entry.

The best c is −Eσ(Tᵀy), and what is left, ½‖y‖² − ½‖Eσ(Tᵀy)‖², is positive for every y ≠ 0 exactly
if the *coupling*

    κ = max { ‖E σ(Tᵀy)‖ : ‖y‖ = 1 }

is below 1. That is a maximum over a piecewise quadratic function, hard in general (for one hidden
layer it is the dual certificate of convex neural networks, Bach, JMLR 18 (2017) 19). Two numbers
enclose it: `search` ascends from many starts, a bound from below with the y that attains it, and
`bound` relaxes the pieces, a bound from above that holds whatever its optimiser did.

The relaxation. x = σ(a) means x ≥ 0, x − a ≥ 0 and x ∘ (x − a) = 0. So for multipliers μ of any
sign and matrices N₁, N₂, N₃ with entries ≥ 0

    ½κ(‖y‖² + ‖c‖²) + ⟨c, Ex⟩ ≥ ½ [κ‖y‖² + κ‖c‖² + 2⟨c, Ex⟩ + 2 xᵀ diag(μ) (x − a)
                                     − xᵀN₁x − xᵀN₂(x − a) − (x − a)ᵀN₃(x − a)],

as every term added is 0 and every term taken off is ≥ 0 for the true x. If the right-hand side is a
positive semidefinite form of (y, c, x), free of each other, κ is at least the coupling. It is the
Lagrangian dual of the doubly nonnegative relaxation (Burer, Math. Program. 120 (2009) 479). Without
N₁, N₂, N₃ it is several times too large, since the pattern of signs is then any.

Of a leaky ReLU σ(a) = αa + (1 − α)x with this x, so that ⟨c, Eσ⟩ is α⟨c, ETᵀy⟩ + (1 − α)⟨c, Ex⟩
in the form; nothing else changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Starts of the search; how many of the best are left after each sifting, since most starts climb
#: to the same few maxima; steps before each; and L-BFGS steps for the last ones.
STARTS, SIFTED, STEPS, FINISHING = 256, (64, 16, 8), 100, 500
#: First step of a climb after each sifting, its shrinking a step, and the share of chance in it. On
#: 60 random instances and 13 of networks, steps of this kind ended below the best known coupling
#: once, plain steps to the gradient's own direction 13 times, once at 0.71 of it.
LENGTHS, SHRINK, CHANCE = (1.0, 0.5, 0.25, 0.125), 0.97, 0.3
#: Entries up to which the relaxation is solved: 3k² multipliers, an eigenvalue problem of size up
#: to 2k for each of some thousand evaluations, 7 s at k = 90. Above, the norms alone bound the
#: coupling.
MOST_RELAXED = 130
#: Penalties of an eigenvalue below MARGIN, one after the other, and L-BFGS steps for each.
PENALTIES, MARGIN, EVALUATIONS = (1e1, 1e2, 1e3), 3e-4, 600
#: A bound that is still this much too large after the second penalty will not get there.
HOPELESS = 1.2
#: Root of the first entries of N₁, N₂, N₃.
FIRST = 0.05
#: A column counts as dependent whose part outside the span of others is below this share of the
#: largest.
RANK = 1e-12


class Found(NamedTuple):
    """The strongest coupling that a search found.

    Attributes
    ----------
    coupling : float
        ‖Eσ(Tᵀy)‖ at y.
    y : ndarray, shape (m,)
        Of length 1.
    tries : int
        Starts.
    """

    coupling: float
    y: NDArray
    tries: int


def search(
    T: NDArray, E: NDArray, starts: int = STARTS, seed: int = 0, guesses: NDArray | None = None,
    low: float = 0.0,
) -> Found:
    """Ascend to large couplings from random starts.

    Parameters
    ----------
    T, E : ndarray, shapes (m, k) and (m′, k)
        k idle entries.
    starts : int
    seed : int
    guesses : ndarray, shape (g, m), optional
        Further starts.
    low : float
        α of a leaky ReLU.

    Returns
    -------
    Found
        Steps along the gradient of ½‖Eσ(Tᵀy)‖² on the piece where y is, shrinking and with some
        chance, taken where they lead up; then L-BFGS. Costs O(starts·k(r + k)) flops a step, r the
        rank of T, a quarter after each sifting.
    """
    basis, T = _compressed(T)
    products = E.T @ E
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((starts, T.shape[0]))
    if guesses is not None:
        y = np.concatenate([y, guesses @ basis])
    y, tries = _unit(y), len(y)
    for count, length in zip((tries, *SIFTED), LENGTHS, strict=True):
        y = _climbed(T, products, y, length, rng, low)
        y = y[np.argsort(-_squared(T, products, y, low))[:count]]
    best = max((_finished(T, products, one, low) for one in y), key=lambda found: found[0])
    return Found(float(np.sqrt(max(best[0], 0.0))), basis @ best[1], tries)


def sigma(a: NDArray, low: float = 0.0) -> NDArray:
    """max(a, 0), or of a leaky ReLU max(a, αa)."""
    return np.maximum(a, low * a) if low else np.maximum(a, 0.0)


def _unit(y: NDArray) -> NDArray:
    return y / np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-300)


def _squared(T: NDArray, products: NDArray, y: NDArray, low: float) -> NDArray:
    """‖Eσ(Tᵀy)‖² of every row of y."""
    x = sigma(y @ T, low)
    return np.einsum("...i,...i->...", x @ products, x)


def _climbed(
    T: NDArray, products: NDArray, y: NDArray, length: float, rng: np.random.Generator, low: float
) -> NDArray:
    """STEPS steps from every row, back to length 1, each taken only if it leads up.

    Where EᵀE has entries of both signs, ‖Eσ(Tᵀy)‖² is not convex, and the gradient's direction
    itself, as in a power iteration, may be lower than y.
    """
    reached = _squared(T, products, y, low)
    for k in range(STEPS):
        x = sigma(y @ T, low)
        gradient = ((x @ products) * _passed(x, low)) @ T.T
        step = _unit(gradient) + CHANCE * rng.standard_normal(y.shape)
        trial = _unit(y + length * SHRINK**k * step)
        value = _squared(T, products, trial, low)
        higher = value > reached
        y, reached = np.where(higher[:, None], trial, y), np.where(higher, value, reached)
    return y


def _passed(x: NDArray, low: float) -> NDArray:
    """σ′ from σ."""
    return np.where(x > 0, 1.0, low) if low else x > 0


def _finished(T: NDArray, products: NDArray, y: NDArray, low: float) -> tuple[float, NDArray]:
    """The coupling squared and its y at the end of L-BFGS on ‖Eσ(Tᵀy)‖²/‖y‖².

    Maxima lie where pieces meet, and there the steps along gradients zigzag; quasi-Newton methods
    cope with such ridges (Lewis and Overton, Math. Program. 141 (2013) 135).
    """
    from scipy.optimize import minimize

    def lowered(z: NDArray) -> tuple[float, NDArray]:
        x = sigma(z @ T, low)
        pull, size = x @ products, float(z @ z)
        value = float(pull @ x) / size
        return -value, -2 / size * (T @ (pull * _passed(x, low)) - value * z)

    end = minimize(lowered, y, jac=True, method="L-BFGS-B",
                   options=dict(maxiter=FINISHING, ftol=0.0, gtol=0.0, maxcor=30))
    return max(((float(_squared(T, products, one, low)), one) for one in (y, _unit(end.x))),
               key=lambda found: found[0])


def bound(T: NDArray, E: NDArray, enough: float = 1.0, low: float = 0.0) -> float:
    """A number that no coupling exceeds, from the relaxation or, for many entries, from norms.

    Parameters
    ----------
    T, E : ndarray, shapes (m, k) and (m′, k)
    enough : float
        A bound below this ends the search for a lower one.
    low : float
        α of a leaky ReLU.

    Returns
    -------
    float
        The least of the bounds computed. The multipliers need not be optimal for it to hold.
    """
    norms = float(np.linalg.norm(T, 2) * np.linalg.norm(E, 2))  # |σ(a)| ≤ |a|
    if norms < enough or T.shape[1] > MOST_RELAXED or norms == 0.0:
        return norms
    return min(norms, _relaxed(T, E, enough, low))


def _compressed(T: NDArray) -> tuple[NDArray, NDArray]:
    """Orthonormal basis (m, r) of the range of T, and T in it, (r, k).

    By pivoted QR: the singular value decomposition of the feeding of 450 idle entries, of rank 85,
    did not converge.
    """
    from scipy.linalg import qr

    Q, R, order = qr(T, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(R))
    r = max(1, int(np.sum(sizes > RANK * sizes[0])))
    inside = np.empty((r, T.shape[1]))
    inside[:, order] = R[:r]
    return Q[:, :r], inside


class _Relaxation:
    """The form on (y, c, x) and its derivatives in the multipliers.

    With c eliminated from the start the x-block loses EᵀE/κ, which is not linear in κ; kept, c adds
    the rank of E to the size. T and E are scaled to one norm, so that μ is near 1.
    """

    def __init__(self, T: NDArray, E: NDArray, low: float = 0.0):
        self.low = low
        T, E = _compressed(T)[1], _compressed(E)[1]
        scale = np.sqrt(np.linalg.norm(E, 2) / np.linalg.norm(T, 2))
        self.T, self.E, self.k = scale * T, E / scale, T.shape[1]
        self.r = len(T)
        self.free = len(T) + len(E)  # y and c

    def unpack(self, z: NDArray) -> tuple[float, NDArray, NDArray, NDArray, NDArray]:
        """κ, μ and N₁, N₂, N₃, the squares of the optimiser's variables: never negative."""
        k = self.k
        N1, N2, N3 = z[1 + k :].reshape(3, k, k) ** 2
        return float(z[0]), z[1 : 1 + k], 0.5 * (N1 + N1.T), N2, 0.5 * (N3 + N3.T)

    def form(self, mu: NDArray, N1: NDArray, N2: NDArray, N3: NDArray) -> NDArray:
        """The symmetric matrix without κ, shape (free + k, free + k)."""
        r, n, T = self.r, self.free, self.T
        F = np.zeros((n + self.k, n + self.k))
        F[:r, :r] = -T @ N3 @ T.T
        F[:r, n:] = -T * mu + 0.5 * T @ N2.T + T @ N3
        F[r:n, n:] = (1 - self.low) * self.E
        if self.low:
            F[:r, r:n] = self.low * T @ self.E.T
            F[r:n, :r] = F[:r, r:n].T
        F[n:, n:] = np.diag(2 * mu) - N1 - 0.5 * (N2 + N2.T) - N3
        F[n:, :n] = F[:n, n:].T
        return F

    def penalised(self, z: NDArray, penalty: float) -> tuple[float, NDArray]:
        """κ + penalty Σ (eigenvalues below MARGIN)², and its gradient."""
        r, n, T = self.r, self.free, self.T
        kappa, mu, N1, N2, N3 = self.unpack(z)
        F = self.form(mu, N1, N2, N3)
        F[np.arange(n), np.arange(n)] += kappa
        values, vectors = np.linalg.eigh(F)
        short = np.maximum(MARGIN - values, 0.0)
        below = short > 0
        V = vectors[:, below] * np.sqrt(2 * penalty * short[below])
        D = -V @ V.T  # derivative in F
        cross, square = T.T @ D[:r, n:], D[n:, n:]
        gradient = np.empty_like(z)
        gradient[0] = 1.0 + np.trace(D[:n, :n])
        gradient[1 : 1 + self.k] = 2 * np.diag(square) - 2 * np.diag(cross)
        parts = np.stack([
            -square, -square + cross.T, -square - T.T @ D[:r, :r] @ T + cross + cross.T])
        gradient[1 + self.k :] = 2 * z[1 + self.k :] * parts.ravel()
        return kappa + penalty * float(np.sum(short**2)), gradient

    def least(self, z: NDArray) -> float:
        """The least κ that the multipliers prove, after the least of a few additions to μ.

        By the Schur complement of the x-block, which must be positive definite; nothing of the
        optimiser's κ is believed.
        """
        n, best = self.free, np.inf
        _, mu, *parts = self.unpack(z)
        for more in (0.0, 1e-4, 1e-3, 1e-2, 1e-1):
            F = self.form(mu + more, *parts)
            try:
                half = np.linalg.solve(np.linalg.cholesky(F[n:, n:]), F[n:, :n])
            except np.linalg.LinAlgError:
                continue
            best = min(best, float(np.linalg.eigvalsh(half.T @ half - F[:n, :n])[-1]))
        return best


def _relaxed(T: NDArray, E: NDArray, enough: float, low: float) -> float:
    """The bound of the relaxation, by L-BFGS on penalised eigenvalues."""
    from scipy.optimize import minimize

    relaxation = _Relaxation(T, E, low)
    k = relaxation.k
    norms = float(np.linalg.norm(relaxation.T, 2) * np.linalg.norm(relaxation.E, 2))
    z = np.concatenate([[norms], np.ones(k), np.full(3 * k * k, FIRST)])
    best = np.inf
    for penalty in PENALTIES:
        z = minimize(relaxation.penalised, z, args=(penalty,), jac=True, method="L-BFGS-B",
                     options=dict(maxiter=EVALUATIONS, maxcor=20, ftol=1e-13, gtol=0.0)).x
        best = min(best, relaxation.least(z))
        if best < enough or (penalty >= PENALTIES[1] and best > HOPELESS * enough):
            break
    return best
