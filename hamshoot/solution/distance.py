"""`distance`: how far two solutions are apart, neurons that nothing tells apart taken as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.solved_nodes import SolvedNodes
from hamshoot.solution.symmetry import Group, best_for_weights
from hamshoot.support.checks import brief, check_choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.solution.solution import Solution

#: What a change of neurons may be chosen for.
BY = ("representations", "weights")


@dataclass(frozen=True, eq=False, repr=False)
class Distance:
    """Two solutions after the best change of neurons T of the first. Immutable.

    Attributes
    ----------
    representations, momenta, weights : float
        (∫‖TA_p − A′_p‖² dp)^½ over the mean of (∫‖A_p‖² dp)^½ and (∫‖A′_p‖² dp)^½, and the same of
        B and of TW diag(Tᵀ, 1) against W′: 0 for the same network, of order 1 for strangers.
    outputs : float
        ‖QA_1 − Q′A′_1‖_F over the mean of their norms; no change of neurons enters.
    permutation : ndarray of int, shape (w,), or None
        Neuron i of the second is neuron ``permutation[i]`` of the first. None for rotations.
    change : ndarray, shape (w, w)
        T.
    free : int
        Neurons that may change places, 0 where lift and readout tell all apart; of a linear network
        the dimension of the space that may turn.
    by : str
        What T is best for.
    p : ndarray, shape (K,)
        Depths compared.
    along : ndarray, shape (K,)
        ‖TA_p − A′_p‖_F over the larger of the largest ‖A_p‖ and ‖A′_p‖.
    """

    representations: float
    momenta: float
    weights: float
    outputs: float
    permutation: NDArray | None
    change: NDArray
    free: int
    by: str
    p: NDArray
    along: NDArray

    def __float__(self) -> float:
        """That of what T is best for."""
        return float(getattr(self, self.by))

    def __repr__(self) -> str:
        if self.permutation is None:
            how = f"a rotation of {self.free} dimensions"
        elif self.free == 0:
            how = "lift and readout tell all neurons apart"
        else:
            moved = int(np.sum(self.permutation != np.arange(len(self.permutation))))
            how = (f"{self.free} neurons are free, {moved} of them moved: "
                   f"{self.permutation.tolist()}")
        return (f"Distance: representations {self.representations:.3g}, momenta "
                f"{self.momenta:.3g}, weights {self.weights:.3g}, outputs {self.outputs:.3g}\n"
                f"  best for {self.by}; {how}")


def distance(a: Solution, b: Solution, *, by: str = "representations", seed: int = 0) -> Distance:
    """How far two solutions are apart, up to the symmetry of neurons.

    Parameters
    ----------
    a, b : Solution
        Of the same samples and width: over layers or continuous, of any method, L̃ and λ. Sample i
        of one is compared with sample i of the other.
    by : {"representations", "weights"}
        What the change of neurons is best for. For representations it is the best there is, by
        `scipy.optimize.linear_sum_assignment` or a polar decomposition; for weights it comes of a
        local search, see `hamshoot.solution.symmetry`.
    seed : int
        Of the random starts of that search.

    Returns
    -------
    Distance

    Raises
    ------
    ValueError
        For solutions of other sizes, and for lifts and readouts that no change of neurons takes to
        each other.
    TypeError
        For what is no solution.

    Notes
    -----
    Symmetries are permutations of neurons that lift and readout do not tell apart, of linear
    networks rotations; one acts on all layers. Neurons that share weights, two with the work of
    one, are no symmetry of this kind: networks that compute the same may then be apart, and
    `outputs` says what they compute.

    Layers are compared at the nodes of both, a continuous path is integrated between its nodes.
    O(K w² N) for K depths, and of weights O(K w³) for each step of the search.
    """
    check_choice("by", by, BY)
    _check(a, b)
    linear = a.activation.name == b.activation.name == "linear"
    group = Group(a.problem, b.problem, rotations=linear)
    p = np.unique(np.concatenate([a.p, b.p]).round(12))
    lengths = _quadrature(p)
    one, other = a.at(p), b.at(p)
    A, C = one.representations, other.representations
    gain = np.sum(lengths[:, None, None] * (C @ np.swapaxes(A, 1, 2)), axis=0)
    T = group.best(gain)
    # Between nodes W of layers belongs to the layer on the right, at the end to the last.
    W, V, spans = _controls(a, b, p)
    if by == "weights":
        T = best_for_weights(group, W, V, spans, T, seed)
    difference = T @ A - C
    size = max(float(np.linalg.norm(v, axis=(1, 2)).max()) for v in (A, C)) or 1.0
    turned = T @ W
    turned[:, :, : len(T)] = turned[:, :, : len(T)] @ T.T
    outputs = a.problem.readout @ A[-1], b.problem.readout @ C[-1]
    return Distance(
        _apart(T @ A, C, lengths), _apart(T @ one.momenta, other.momenta, lengths),
        _apart(turned, V, spans), _apart(outputs[0][None], outputs[1][None], np.ones(1)),
        None if linear else np.argmax(T, axis=1), T, group.free, by, p,
        np.linalg.norm(difference, axis=(1, 2)) / size)


def _check(a: Any, b: Any) -> None:
    """Raise for what cannot be compared."""
    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, SolvedNodes):
            raise TypeError(f"{name}: expected a Solution, as hs.solve returns it, got "
                            f"{brief(one)}")
    for name, attribute in (("width", "width"), ("samples", "n_samples"), ("bias", "bias"),
                            ("columns of X", "d_in"), ("outputs", "d_out")):
        one, other = getattr(a.problem, attribute), getattr(b.problem, attribute)
        if one != other:
            raise ValueError(f"distance: expected two solutions of the same {name}, got {one} and "
                             f"{other}")


def _controls(a: Solution, b: Solution, p: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """W of both and the lengths they stand for: at the middle of every interval of p."""
    middle = (p[1:] + p[:-1]) / 2
    return a.at(middle).weights, b.at(middle).weights, np.diff(p)


def _quadrature(p: NDArray) -> NDArray:
    """Weights of the trapezoidal rule at p."""
    h = np.diff(p)
    return 0.5 * (np.append(h, 0) + np.append(0, h))


def _apart(one: NDArray, other: NDArray, lengths: NDArray) -> float:
    """The difference over the mean of the norms, in the mean square; 0 of two that are 0."""
    def norm(values: NDArray) -> float:
        return float(np.sqrt(np.sum(lengths * np.sum(values**2, axis=(1, 2)))))

    size = 0.5 * (norm(one) + norm(other))
    return norm(one - other) / size if size > 0 else 0.0
