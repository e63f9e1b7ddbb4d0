"""`LayeredNetwork`: a Leaky ResNet as a function of its inputs, and measures of what it predicts.

    A_0 = P xᵀ,   A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),   y = Q A_L.

`hamshoot.LeakyResNet` is such a network; it adds how one is built from a path, and what one does
with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.follow_path import given_steps
from hamshoot.problem.activations import Activation
from hamshoot.problem.arguments import matrix
from hamshoot.problem.losses import softmax
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Scaling
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.checks import brief, check_real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False, repr=False)
class LayeredNetwork:
    """Weights, steps, maps and scalings of a network, checked; what they predict.

    The fields are described in `hamshoot.LeakyResNet`.
    """

    weights: NDArray
    steps: NDArray
    effective_depth: float
    activation: Activation
    bias: bool
    lift: NDArray
    readout: NDArray
    input_scaling: Scaling
    target_scaling: Scaling
    classes: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    input_names: tuple[str, ...] | None = None
    hard_endpoint: bool = False
    preparation: Preparation | None = None
    lift_decay: float | None = None
    readout_decay: float | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "steps", "lift", "readout"):
            check_real(name, getattr(self, name))
            value = np.array(getattr(self, name), dtype=float)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        for name in ("classes", "target_names", "input_names"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(map(str, value)))
        _check(self)

    # -- use ---------------------------------------------------------------------------------------

    @property
    def layers(self) -> int:
        """L."""
        return len(self.steps)

    @property
    def width(self) -> int:
        """w."""
        return self.weights.shape[1]

    @property
    def p(self) -> NDArray:
        """Depths of the nodes, (L+1,), from 0 to 1."""
        p = np.concatenate([[0.0], np.cumsum(self.steps)])
        p[-1] = 1.0
        return p

    def predict(self, X: ArrayLike) -> NDArray:
        """Predictions (K, d_out) for rows X (K, d_in), both in the user's units.

        Raises
        ------
        ValueError
            If X does not have the training columns, or a number is not finite.
        """
        return self.target_scaling.invert(self._outputs(X).T)

    def predict_class(self, X: ArrayLike) -> NDArray:
        """Labels (K,) of the largest output, for rows X (K, d_in).

        Raises
        ------
        ValueError
            As `predict`, and if the network was not trained on classes.
        """
        if self.classes is None:
            raise ValueError("predict_class: the network was not trained on classes; use predict")
        return np.array(self.classes)[np.argmax(self._outputs(X), axis=0)]

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Probabilities (K, classes), softmax of the outputs, for rows X (K, d_in).

        They are those of the loss "cross_entropy"; of a network trained on squares, whose outputs
        are to be 0 and 1 themselves, they are none.

        Raises
        ------
        ValueError
            As `predict`, and for a single output.
        """
        if len(self.readout) < 2:
            raise ValueError("predict_proba: expected a network of at least 2 classes, got one "
                             "output; use predict")
        return softmax(self._outputs(X)).T

    def representations(self, X: ArrayLike) -> NDArray:
        """A at all nodes, (L+1, w, K), one column a row of X (K, d_in).

        Raises
        ------
        ValueError
            As `predict`.
        """
        nodes = [self._lifted(X)]
        for W, rho in zip(self.weights, self.steps, strict=True):
            nodes.append(layer(self, nodes[-1], W, rho))
        return np.array(nodes)

    # -- measures ----------------------------------------------------------------------------------

    @property
    def parameter_norm(self) -> float:
        """Σ_ℓ ρ_ℓ‖W_ℓ‖_F²."""
        return float(np.sum(self.steps * np.sum(self.weights**2, axis=(1, 2))))

    def loss(self, problem: TrainingProblem) -> float:
        """The problem's loss on its training data, in scaled units; 0 with a hard endpoint."""
        check_problem(self, problem)
        if problem.Y is None or problem.hard_endpoint:
            return 0.0
        if not problem.criterion.plain:
            return float(problem.criterion.value(self._outputs(problem.X), problem.targets))
        return self.error(problem.X, problem.Y)

    def objective(self, problem: TrainingProblem) -> float:
        """J = loss + λ/(2L̃) Σρ‖W‖².

        Raises
        ------
        ValueError
            If the problem's effective depth or columns are not the network's.
        """
        decay = problem.weight_decay / (2 * problem.effective_depth)
        return self.loss(problem) + decay * self.parameter_norm

    def error(self, X: ArrayLike, Y: ArrayLike) -> float:
        """Mean over the rows of the squared norm of the error, in scaled units.

        The same measure as the loss, for any data X (K, d_in), Y (K, d_out) in the user's units.

        Raises
        ------
        ValueError
            If the columns are not those of training, or X and Y differ in rows.
        """
        outputs, Y = self._outputs_and_targets(X, Y)
        return float(np.sum((outputs - self.target_scaling.apply(Y)) ** 2) / len(Y))

    def test_error(self, problem: TrainingProblem) -> float:
        """`error` on the problem's held-out samples; of cross-entropy that of the probabilities.

        Raises
        ------
        ValueError
            If the problem has none.
        """
        X, Y = _held_out(problem)
        if problem.loss == "cross_entropy":
            apart = problem.criterion.predicted(self._outputs(X)) - np.asarray(Y).T
            return float(np.sum(apart**2) / len(Y))
        return self.error(X, Y)

    def accuracy(self, X: TrainingProblem | ArrayLike, Y: ArrayLike | None = None) -> float:
        """Fraction of rows whose largest output is that of their class.

        Parameters
        ----------
        X : TrainingProblem or array_like, shape (K, d_in)
            A problem stands for its held-out samples.
        Y : array_like, shape (K, classes)
            One-hot, as in training.

        Raises
        ------
        ValueError
            If the network was not trained on classes, or a problem has no held-out samples.
        """
        if self.classes is None:
            raise ValueError("accuracy: the network was not trained on classes")
        targets: Any = Y
        if isinstance(X, TrainingProblem):
            X, targets = _held_out(X)
        outputs, targets = self._outputs_and_targets(X, targets)
        return float(np.mean(np.argmax(outputs, axis=1) == np.argmax(targets, axis=1)))

    # -- parts -------------------------------------------------------------------------------------

    def _lifted(self, X: ArrayLike) -> NDArray:
        """A_0 (w, K) of rows X (K, d_in)."""
        X = matrix("X", X)
        if X.shape[1] != self.lift.shape[1]:
            raise ValueError(
                f"X: expected {self.lift.shape[1]} columns as in training, got {X.shape[1]}"
            )
        # The very expression TrainingProblem uses, so that A_0 agrees to the last bit.
        return self.lift @ self.input_scaling.apply(X).T

    def _outputs(self, X: ArrayLike) -> NDArray:
        """Q A_L in scaled units, (d_out, K)."""
        return self.readout @ propagate(self, self._lifted(X))

    def _outputs_and_targets(self, X: ArrayLike, Y: ArrayLike) -> tuple[NDArray, NDArray]:
        """Outputs in scaled units and targets in the user's, both (K, d_out)."""
        outputs, Y = self._outputs(X).T, matrix("Y", Y)
        if Y.shape != outputs.shape:
            raise ValueError(f"Y: expected shape {outputs.shape} for this X and this network, "
                             f"got {Y.shape}")
        return outputs, Y


# -- the forward pass ------------------------------------------------------------------------------


def layer(network: LayeredNetwork, A: NDArray, W: NDArray, rho: float) -> NDArray:
    """A_ℓ of A_{ℓ−1}."""
    S = network.activation(A)
    out = W[:, : network.width] @ S
    if network.bias:
        out += W[:, -1:]
    out *= rho
    out += (1 - rho * network.effective_depth) * A
    return out


def propagate(network: LayeredNetwork, A: NDArray) -> NDArray:
    """A_L of A_0 = A, both (w, K); holds two layers at a time."""
    for W, rho in zip(network.weights, network.steps, strict=True):
        A = layer(network, A, W, rho)
    return A


# -- checks ----------------------------------------------------------------------------------------


def _check(network: LayeredNetwork) -> None:
    """Raise ValueError for fields that do not belong together, or a number that is not finite."""
    W, steps = network.weights, network.steps
    if W.ndim != 3 or not len(W) or W.shape[2] != W.shape[1] + int(bool(network.bias)):
        columns = "w + 1" if network.bias else "w"
        raise ValueError(f"weights: expected shape (layers, w, {columns}), got {W.shape}")
    given_steps(steps)
    if len(steps) != len(W):
        raise ValueError(f"steps: expected {len(W)} steps for {len(W)} layers, got {len(steps)}")
    for name, axis, shape in (("lift", 0, "(w, d_in)"), ("readout", 1, "(d_out, w)")):
        value = getattr(network, name)
        if value.ndim != 2 or value.shape[axis] != W.shape[1]:
            raise ValueError(
                f"{name}: expected shape {shape} with w = {W.shape[1]}, got {value.shape}"
            )
    for name in ("weights", "lift", "readout", "effective_depth"):
        if not np.all(np.isfinite(getattr(network, name))):
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if not network.effective_depth > 0:
        raise ValueError(f"effective_depth: expected a number > 0, got {network.effective_depth!r}")
    d_in, d_out = network.lift.shape[1], len(network.readout)
    if network.preparation is not None and len(network.preparation.names) != d_in:
        raise ValueError(f"preparation: expected one of {d_in} inputs, got "
                         f"{len(network.preparation.names)}")
    lengths = {"input_names": d_in, "target_names": d_out, "classes": d_out}
    for name, length in lengths.items():
        value = getattr(network, name)
        if value is not None and len(value) != length:
            raise ValueError(f"{name}: expected {length} names, got {len(value)}")
    for name, length in {"input_scaling": d_in, "target_scaling": d_out}.items():
        scaling = getattr(network, name)
        if not np.shape(scaling.mean) == np.shape(scaling.scale) == (length,):
            raise ValueError(f"{name}: expected {length} means and scales, "
                             f"got {np.size(scaling.mean)} and {np.size(scaling.scale)}")


def _held_out(problem: TrainingProblem) -> tuple[NDArray, NDArray]:
    if problem.X_test is None or problem.Y_test is None:
        raise ValueError("problem: expected held-out samples X_test and Y_test, it has none")
    return problem.X_test, problem.Y_test


def check_problem(network: LayeredNetwork, problem: TrainingProblem) -> None:
    """Raise ValueError unless the problem has the network's effective depth."""
    if not hasattr(problem, "effective_depth"):
        raise TypeError(f"problem: expected a TrainingProblem, got {brief(problem)}")
    if abs(problem.effective_depth - network.effective_depth) > 1e-12 * network.effective_depth:
        raise ValueError(
            f"problem: expected effective_depth {network.effective_depth:g} as the network has, "
            f"got {problem.effective_depth:g}"
        )
