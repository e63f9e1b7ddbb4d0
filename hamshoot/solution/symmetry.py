"""Which changes of neurons leave a network the same, and which of them takes one to another.

The leak −L̃A is the same for every neuron and acts at every depth, so that a change of neurons T is
one for all layers, A_p → TA_p, W_p → T W_p diag(Tᵀ, 1), B_p → TB_p. It leaves dynamics, J and both
fixed maps as they are where

    ‖TW diag(Tᵀ, 1)‖ = ‖W‖ (T orthogonal),   σ(TA) = Tσ(A),   TP = P,   QTᵀ = Q.

ReLU and the smooth ReLU commute with permutations alone: their symmetries are the permutations of
*free* neurons, those that neither lift nor readout tell apart from each other (equal rows of P and
equal columns of Q). With the embeddings P = [I; 0], Q = [I, 0] these are the neurons beyond the
data; with random orthonormal maps there are none. (Positive scalings commute with ReLU too, but
change ‖W‖.) A linear σ commutes with every orthogonal T: its symmetries are the rotations of the
complement of the columns of P and the rows of Q. A prescribed endpoint, which T has to leave as it
is, takes the place of the readout.

Between two problems whose lift and readout are those of each other up to such a T, the same sets
are looked for, with TP = P′ and QTᵀ = Q′.

*The best T.* Of states, Σ‖TA − A′‖² = const − 2⟨T, ΣA′Aᵀ⟩ is linear in T: the best permutation is
one assignment problem, exactly solved, the best rotation a polar decomposition. Of weights,
Σρ‖TW diag(Tᵀ, 1) − W′‖² is quadratic in T, a quadratic assignment problem: T on the right is held
and the linear problem solved for T on the left, in turns, then pairs of neurons are exchanged while
that helps; from several starts. This is a local search, which may miss the best permutation of many
free neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Rows of lift and columns of readout are equal to this share of the largest entry.
EQUAL = 1e-12
#: Turns of the alternation from one start at most, and random starts.
MOST_TURNS, STARTS = 100, 8
#: Up to so many free neurons all pairs are tried for an exchange in every turn.
MOST_EXCHANGED = 200

#: ⟨T, G⟩ is to be as large as may be: from a gain G (w, w) to T.
Best = Callable[["NDArray"], "NDArray"]


class Group:
    """The changes T of neurons that take the lift and readout of one problem to those of another.

    Parameters
    ----------
    problem, other : TrainingProblem
        T P = P′ and Q Tᵀ = Q′.
    rotations : bool
        Orthogonal T, else permutations.

    Attributes
    ----------
    rotations : bool
    free : int
        Neurons that may change places, or the dimension of the subspace that may turn.

    Raises
    ------
    ValueError
        Where no T does it.
    """

    def __init__(self, problem: TrainingProblem, other: TrainingProblem, rotations: bool) -> None:
        self.rotations = rotations
        maps, others = _maps(problem), _maps(other)
        size = EQUAL * max(float(np.abs(maps).max()), float(np.abs(others).max()), 1e-300)
        if rotations:
            self._turn(maps, others, size)
        else:
            self._permute(maps, others, size)

    def _permute(self, maps: NDArray, others: NDArray, size: float) -> None:
        """Which neuron may become which."""
        from scipy.optimize import linear_sum_assignment

        apart = np.abs(others[:, None] - maps[None]).max(axis=2, initial=0.0)
        self._allowed = apart <= size
        rows, columns = linear_sum_assignment(~self._allowed)
        if not self._allowed[rows, columns].all():
            raise ValueError(_NOT_THE_SAME.format("permutation"))
        self.start = np.zeros((len(maps), len(maps)))
        self.start[rows, columns] = 1.0
        counts = self._allowed.sum(axis=1)
        self.free = int(np.sum(counts > 1))

    def _turn(self, maps: NDArray, others: NDArray, size: float) -> None:
        """The part of T that the maps fix, and bases of what they leave."""
        w = len(maps)
        if float(np.abs(maps.T @ maps - others.T @ others).max()) > size * w:
            raise ValueError(_NOT_THE_SAME.format("rotation"))
        left, values, _ = np.linalg.svd(maps)
        rank = int(np.sum(values > 1e-10 * max(values.max(initial=0.0), 1e-300)))
        span, self._from = left[:, :rank], left[:, rank:]
        self._fixed = others @ np.linalg.pinv(maps, rcond=1e-10) @ span @ span.T
        self._to = np.linalg.svd(others)[0][:, rank:]
        self.free = w - rank
        self.start = self._fixed + self._to @ self._from.T

    # -- the best T --------------------------------------------------------------------------------

    def best(self, gain: NDArray) -> NDArray:
        """T (w, w) with the largest ⟨T, gain⟩; exact. O(w³)."""
        from scipy.optimize import linear_sum_assignment

        if self.rotations:
            left, _, right = np.linalg.svd(self._to.T @ gain @ self._from)
            return self._fixed + self._to @ left @ right @ self._from.T
        large = 2 * len(gain) * max(float(np.abs(gain).max()), 1e-300)
        rows, columns = linear_sum_assignment(np.where(self._allowed, gain, -large), maximize=True)
        T = np.zeros_like(gain)
        T[rows, columns] = 1.0
        return T

    def starts(self, seed: int) -> Iterator[NDArray]:
        """T to begin a local search at: the plainest, then random ones."""
        yield self.start
        rng = np.random.default_rng(seed)
        for _ in range(STARTS if self.free > 1 else 0):
            yield self.best(rng.standard_normal(self.start.shape))

    def exchanged(self, T: NDArray) -> Iterator[NDArray]:
        """Permutations that differ from T in two neurons."""
        if self.rotations or self.free > MOST_EXCHANGED:
            return
        source = np.argmax(T, axis=1)
        for i in range(len(T)):
            for j in range(i):
                if self._allowed[i, source[j]] and self._allowed[j, source[i]]:
                    other = T.copy()
                    other[[i, j]] = T[[j, i]]
                    yield other


def best_for_weights(
    group: Group, weights: NDArray, others: NDArray, lengths: NDArray, first: NDArray, seed: int = 0
) -> NDArray:
    """T for which Σ lengths ‖TW diag(Tᵀ, 1) − W′‖² is small: a local search.

    Parameters
    ----------
    group : Group
    weights, others : ndarray, shape (K, w, w+1) or (K, w, w)
    lengths : ndarray, shape (K,)
        ρ, or the weights of a quadrature.
    first : ndarray, shape (w, w)
        The first start.
    seed : int
        Of random starts.

    Returns
    -------
    ndarray, shape (w, w)
        Exact where the linear problem decides, else a permutation that no exchange of two neurons
        betters. O(K w³) a turn.
    """
    w = len(first)
    W, V = weights[:, :, :w], lengths[:, None, None] * others[:, :, :w]
    bias = np.einsum("kib,kjb->ij", lengths[:, None, None] * others[:, :, w:], weights[:, :, w:])

    def agreement(T: NDArray) -> float:
        """⟨TW diag(Tᵀ, 1), W′⟩ summed."""
        return float(np.sum((T @ W @ T.T) * V) + np.sum(T * bias))

    def climbed(T: NDArray) -> tuple[float, NDArray]:
        value = agreement(T)
        for _ in range(MOST_TURNS):
            gain = np.sum(V @ (T @ np.swapaxes(W, 1, 2)) + np.swapaxes(V, 1, 2) @ (T @ W), axis=0)
            new = [group.best(gain + bias), *group.exchanged(T)]
            values = [agreement(one) for one in new]
            k = int(np.argmax(values))
            if not values[k] > value + 1e-12 * abs(value):
                break
            T, value = new[k], values[k]
        return value, T

    ends = [climbed(first), *(climbed(T) for T in group.starts(seed))]
    return max(ends, key=lambda end: end[0])[1]


_NOT_THE_SAME = (
    "distance: expected networks of one problem, whose lift and readout are the same up to a {} of "
    "neurons, got others"
)


def _maps(problem: TrainingProblem) -> NDArray:
    """What lift and readout, or the endpoint, know of a neuron, a row each: (w, d_in + d_out)."""
    end = problem.readout.T if problem.endpoint is None else problem.endpoint
    return np.hstack([np.asarray(problem.lift), np.asarray(end)])
