"""`LeakyResNet`: the layered network itself, built from a solution, and what one does with it.

    A_0 = P xᵀ,   A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),   y = Q A_L.

A network knows no solver and no training data; it keeps the scalings, so that inputs and
predictions are in the user's units. `LeakyResNet.from_solution` turns an optimal path into a
network and says how good the result is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.network import follow_path as discretise
from hamshoot.network.path import SolvedPath
from hamshoot.problem.activations import Activation
from hamshoot.problem.training_problem import Scaling, TrainingProblem, _matrix
from hamshoot.support import verbs
from hamshoot.support.checks import check_layers
from hamshoot.support.files import load_npz, write_whole
from hamshoot.support.options import has_option, with_options
from hamshoot.support.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.solution.method import Method
    from hamshoot.solution.solution import Callback, Solution

FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class LeakyResNet:
    """A Leaky ResNet of L layers with fixed linear maps in and out. Immutable.

    Parameters
    ----------
    weights : array_like, shape (L, w, w+1), or (L, w, w) without bias
        Last column the bias.
    steps : array_like, shape (L,)
        Layer steps ρ > 0 with sum 1.
    effective_depth : float
        L̃.
    activation : Activation
    bias : bool
    lift, readout : array_like, shapes (w, d_in) and (d_out, w)
        P and Q.
    input_scaling, target_scaling : Scaling
        Between the user's units and those the network works in.
    classes : tuple of str, optional
        Labels of the outputs of a classifier.
    target_names, input_names : tuple of str, optional

    Raises
    ------
    ValueError
        If shapes do not belong together, the steps do not sum to 1, or a number is not finite.
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

    def __post_init__(self) -> None:
        for name in ("weights", "steps", "lift", "readout"):
            value = np.array(getattr(self, name), dtype=float)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        for name in ("classes", "target_names", "input_names"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(map(str, value)))
        _check(self)

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def from_weights(
        cls, problem: TrainingProblem, weights: ArrayLike, steps: ArrayLike | None = None
    ) -> LeakyResNet:
        """Network of a problem with given weights (L, w, w+1) and steps (L,), default equidistant.

        Raises
        ------
        ValueError
            If the weights do not have the problem's width.
        """
        weights = np.asarray(weights, dtype=float)
        if weights.ndim != 3 or weights.shape[1:] != problem.control_shape or not len(weights):
            rows, columns = problem.control_shape
            raise ValueError(
                f"weights: expected shape (layers, {rows}, {columns}), got {weights.shape}"
            )
        return cls(
            weights=weights,
            steps=discretise.equidistant_steps(len(weights)) if steps is None else steps,
            effective_depth=problem.effective_depth, activation=problem.sigma,
            bias=bool(problem.bias), lift=problem.lift, readout=problem.readout,
            input_scaling=problem.input_scaling, target_scaling=problem.target_scaling,
            classes=problem.classes, target_names=problem.target_names,
            input_names=problem.input_names,
        )

    @classmethod
    def from_solution(
        cls,
        solution: SolvedPath,
        layers: int | None = None,
        steps: str | ArrayLike | None = None,
    ) -> LeakyResNet:
        """Network of a solution.

        A solution of the L-layer network (Euler) gives that very network, weights and steps, when
        neither argument is given or they ask for what it is. Otherwise the solution is a path, and
        the network its discretisation at the depths p_ℓ = ρ_1 + … + ρ_ℓ: layer after layer,

            W_ℓ = argmin_W  λ/(2L̃) ρ_ℓ ‖W − W̄_ℓ‖² + (1/N) ‖A_ℓ(W) − A(p_ℓ)‖²,

        with W̄_ℓ the mean of the path's control over the layer and A_ℓ(W) the step the network takes
        from where it is: it follows the path, at the prices of the problem itself. The objective
        exceeds that of the *optimal* L-layer network by O(L⁻²), and both differ from the path's by
        O(L⁻¹).

        Measured on geodesics of the smooth ReLU (width 4, 8 samples, L̃ = 3, 5, 3), that excess is
        0.014, 0.027, 0.009 at L = 20 and a quarter of it at 40. The mean W̄ alone: 0.077, 0.103,
        0.021. W = L̃B(p_ℓ)σ̂(A(p_{ℓ−1}))ᵀ, the form of the layered optimality conditions, also has
        order 2 but 1.4 at L = 20 (an error of the costate is amplified on the way). An exact fit
        of each step, without W̄: 0.060, and only order 1.8. `discretisation_error` measures it on
        your problem.

        To make the result optimal for its L layers, use it as a start:
        ``hs.solve(problem, layers=L, initial_guess=network)``.

        Parameters
        ----------
        solution : Solution
        layers : int, optional
            L; default the solution's own, or 20 for a continuous path.
        steps : {"equidistant", "irregular", "adaptive"} or array_like, shape (L,), optional
            Default the solution's own at its own L, otherwise equidistant. Adaptive steps give
            every layer the same relative change, from the path's cumulative length.

        Raises
        ------
        ValueError
            For an unknown scheme, steps that do not sum to 1, or ρL̃ ≥ 1 in some layer.

        Notes
        -----
        Cost O(L w² (w + N)), and 4L depths of `Solution.at` on a continuous path.
        """
        mesh = discretise.mesh_of(solution, layers, steps)
        if solution.integrator == "euler" and discretise.same_steps(mesh, solution.steps):
            return cls.from_weights(solution.problem, solution.weights, solution.steps)
        check_layers(len(mesh), solution.problem.effective_depth, mesh)
        return cls.from_weights(solution.problem, discretise.follow(solution, mesh), mesh)

    @staticmethod
    def discretisation_error(
        solution: SolvedPath,
        layers: Sequence[int] = (10, 20, 40, 80),
        steps: str = "equidistant",
    ) -> DiscretisationError:
        """How far the networks of a path are from it, against the number of layers.

        Parameters
        ----------
        solution : Solution
        layers : sequence of int
        steps : {"equidistant", "irregular", "adaptive"}

        Returns
        -------
        DiscretisationError
            Prints as a table.

        Raises
        ------
        ValueError
            As `from_solution`.
        """
        problem, rows = solution.problem, []
        for count in layers:
            network = LeakyResNet.from_solution(solution, count, steps)
            endpoint = network._propagate(problem.initial_state)
            rows.append((network.objective(problem),
                         np.linalg.norm(endpoint - solution.representations[-1])))
        objective, distance = np.array(rows).reshape(-1, 2).T
        size = max(float(np.linalg.norm(solution.representations[-1])), np.finfo(float).tiny)
        return DiscretisationError(
            tuple(int(count) for count in layers), objective, objective - solution.objective,
            distance / size,
        )

    def polish(
        self, problem: TrainingProblem, method: str | Method = "auto",
        callback: Callback | None = None, **options: Any,
    ) -> Solution:
        """Re-optimise this network, same layers and steps, from its own weights.

        A network built from a continuous path is only near the optimum of its number of layers;
        this goes the rest of the way.

        Parameters
        ----------
        problem : TrainingProblem
            With the network's width, effective depth and columns.
        method : {"auto", "multiple_shooting", "single_shooting"} or method object
            As in `hamshoot.solve`; an object with the options ``layers`` and ``steps``.
        callback : callable, optional
        **options
            Of the method, where it is given by name.

        Returns
        -------
        Solution
            Its objective is at or below the network's own; `to_network()` gives the network.

        Raises
        ------
        ValueError
            As `hamshoot.solve`, and for "indirect", which has no layers.
        """
        if method == "indirect":
            raise ValueError("method: expected one that optimises layers, got indirect shooting")
        if not isinstance(method, str):
            _check_layered(method)
        self._check_problem(problem)
        if isinstance(method, str):
            return verbs.solve(problem, method, layers=self.layers, steps=self.steps,
                               initial_guess=self, callback=callback, **options)
        for name in options:
            raise ValueError(f"{name}: give options to the method object, not to polish")
        own = with_options(method, layers=self.layers, steps=self.steps)
        return own.solve(problem, initial_guess=self, callback=callback)

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

    def representations(self, X: ArrayLike) -> NDArray:
        """A at all nodes, (L+1, w, K), one column a row of X (K, d_in).

        Raises
        ------
        ValueError
            As `predict`.
        """
        nodes = [self._lifted(X)]
        for W, rho in zip(self.weights, self.steps, strict=True):
            nodes.append(self._layer(nodes[-1], W, rho))
        return np.array(nodes)

    # -- measures ----------------------------------------------------------------------------------

    @property
    def parameter_norm(self) -> float:
        """Σ_ℓ ρ_ℓ‖W_ℓ‖_F²."""
        return float(np.sum(self.steps * np.sum(self.weights**2, axis=(1, 2))))

    def loss(self, problem: TrainingProblem) -> float:
        """(1/N)‖QA_L − Yᵀ‖_F² on the training data, in scaled units; 0 with a hard endpoint."""
        self._check_problem(problem)
        return 0.0 if problem.hard_endpoint else self.error(problem.X, problem.Y)

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
        """`error` on the problem's held-out samples.

        Raises
        ------
        ValueError
            If the problem has none.
        """
        return self.error(*_held_out(problem))

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
        if isinstance(X, TrainingProblem):
            X, Y = _held_out(X)
        outputs, Y = self._outputs_and_targets(X, Y)
        return float(np.mean(np.argmax(outputs, axis=1) == np.argmax(Y, axis=1)))

    # -- persistence -------------------------------------------------------------------------------

    def save(self, path: str | PathLike) -> Path:
        """Write the network to an .npz file, whole or not at all.

        Returns
        -------
        Path
            The file written; `.npz` is added when the name has no suffix.
        """
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".npz")
        arrays = {name: getattr(self, name) for name in ("weights", "steps", "lift", "readout")}
        for name in ("input_scaling", "target_scaling"):
            scaling = getattr(self, name)
            arrays.update({f"{name}.mean": scaling.mean, f"{name}.scale": scaling.scale})
        metadata = {
            "format": FORMAT, "package": "hamshoot", "kind": "network", "version": __version__,
            "effective_depth": float(self.effective_depth), "activation": self.activation.name,
            "epsilon": float(self.activation.epsilon), "bias": bool(self.bias),
            "classes": self.classes, "target_names": self.target_names,
            "input_names": self.input_names,
        }
        arrays["metadata"] = np.array(json.dumps(metadata))
        write_whole(path, lambda file: np.savez(file, **arrays))
        return path

    @classmethod
    def load(cls, path: str | PathLike) -> LeakyResNet:
        """Read a network back.

        Raises
        ------
        ValueError
            For a missing, truncated or foreign file, in one sentence.
        """
        path = Path(path)
        arrays = load_npz(path)
        metadata = _metadata(path, arrays)
        try:
            for name in ("format", "package", "kind", "version"):
                metadata.pop(name)
            metadata["activation"] = Activation(metadata["activation"], metadata.pop("epsilon"))
            for name in ("input_scaling", "target_scaling"):
                metadata[name] = Scaling(arrays.pop(f"{name}.mean"), arrays.pop(f"{name}.scale"))
            return cls(**arrays, **metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a hamshoot network ({error})") from None

    def __repr__(self) -> str:
        sigma = self.activation.name + (
            f"(ε={self.activation.epsilon:g})" if self.activation.epsilon else ""
        )
        low, high = self.steps.min(), self.steps.max()
        mesh = f"ρ={low:.3g}" if high - low < 1e-9 else f"ρ={low:.3g}…{high:.3g}"
        return (
            f"LeakyResNet({self.lift.shape[1]} → {len(self.readout)}, layers={self.layers}, {mesh},"
            f" width={self.width}, {sigma}{'' if self.bias else ', no bias'}, "
            f"L̃={self.effective_depth:g}, ∫‖W‖²={self.parameter_norm:.6g})"
        )

    # -- parts -------------------------------------------------------------------------------------

    def _lifted(self, X: ArrayLike) -> NDArray:
        X = _matrix("X", X)
        if X.shape[1] != self.lift.shape[1]:
            raise ValueError(
                f"X: expected {self.lift.shape[1]} columns as in training, got {X.shape[1]}"
            )
        # The very expression TrainingProblem uses, so that A_0 agrees to the last bit.
        return self.lift @ self.input_scaling.apply(X).T

    def _layer(self, A: NDArray, W: NDArray, rho: float) -> NDArray:
        S = self.activation(A)
        out = W[:, : self.width] @ S
        if self.bias:
            out += W[:, -1:]
        out *= rho
        out += (1 - rho * self.effective_depth) * A
        return out

    def _propagate(self, A: NDArray) -> NDArray:
        for W, rho in zip(self.weights, self.steps, strict=True):
            A = self._layer(A, W, rho)
        return A

    def _outputs(self, X: ArrayLike) -> NDArray:
        """Q A_L in scaled units, (d_out, K); holds two layers at a time."""
        return self.readout @ self._propagate(self._lifted(X))

    def _outputs_and_targets(self, X: ArrayLike, Y: ArrayLike) -> tuple[NDArray, NDArray]:
        """Outputs in scaled units and targets in the user's, both (K, d_out)."""
        outputs, Y = self._outputs(X).T, _matrix("Y", Y)
        if Y.shape != outputs.shape:
            raise ValueError(f"Y: expected shape {outputs.shape} for this X and this network, "
                             f"got {Y.shape}")
        return outputs, Y

    def _check_problem(self, problem: TrainingProblem) -> None:
        if abs(problem.effective_depth - self.effective_depth) > 1e-12 * self.effective_depth:
            raise ValueError(
                f"problem: expected effective_depth {self.effective_depth:g} as the network has, "
                f"got {problem.effective_depth:g}"
            )


class DiscretisationError(NamedTuple):
    """Networks built from a path, against the number of layers.

    Attributes
    ----------
    layers : tuple of int
    objective : ndarray
        J of the networks.
    objective_error : ndarray
        J of the network minus J of the path.
    endpoint_error : ndarray
        ‖A_L − A(1)‖_F / ‖A(1)‖_F.
    """

    layers: tuple[int, ...]
    objective: NDArray
    objective_error: NDArray
    endpoint_error: NDArray

    def orders(self) -> NDArray:
        """Observed order of the endpoint error in 1/L between neighbours, (len(layers) − 1,)."""
        ratio = np.diff(np.log(self.layers))
        return -np.diff(np.log(np.maximum(self.endpoint_error, 1e-300))) / ratio

    def __str__(self) -> str:
        orders = ["", *(f"{order:.2f}" for order in self.orders())]
        lines = [f"{'layers':>6} {'objective':>14} {'minus path':>11} {'endpoint':>9} {'order':>6}"]
        lines += [
            f"{count:>6} {J:>14.8g} {error:>11.3e} {end:>9.2e} {order:>6}"
            for count, J, error, end, order in zip(
                self.layers, self.objective, self.objective_error, self.endpoint_error, orders,
                strict=True,
            )
        ]
        return "\n".join(lines)


# -- checks ----------------------------------------------------------------------------------------


def _check(network: LeakyResNet) -> None:
    W, steps = network.weights, network.steps
    if W.ndim != 3 or not len(W) or W.shape[2] != W.shape[1] + int(bool(network.bias)):
        columns = "w + 1" if network.bias else "w"
        raise ValueError(f"weights: expected shape (layers, w, {columns}), got {W.shape}")
    discretise.given_steps(steps)
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
    if problem.X_test is None:
        raise ValueError("problem: expected held-out samples X_test and Y_test, it has none")
    return problem.X_test, problem.Y_test


def _metadata(path: Path, arrays: dict[str, NDArray]) -> dict[str, Any]:
    foreign = f"{path}: not a hamshoot network"
    if "metadata" not in arrays:
        raise ValueError(f"{foreign} (it holds {', '.join(sorted(arrays)) or 'nothing'})")
    try:
        metadata = json.loads(str(arrays.pop("metadata")))
        kind, version = metadata.get("kind"), metadata["format"]
    except (json.JSONDecodeError, KeyError, AttributeError):
        raise ValueError(f"{foreign} (its metadata cannot be read)") from None
    if kind != "network":
        if "status" in metadata:
            raise ValueError(f"{foreign} but a solution; use Solution.load(path).to_network()")
        raise ValueError(f"{foreign} (its metadata says kind {kind!r})")
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}, this hamshoot reads format {FORMAT}")
    return metadata


def _check_layered(method: Any) -> None:
    """Raise ValueError unless a method object can be told to keep a network's layers and steps."""
    if isinstance(method, type) or not hasattr(method, "solve"):
        raise ValueError(f"method: expected a name or a method object, got {method!r}")
    if not (has_option(method, "layers") and has_option(method, "steps")):
        raise ValueError(
            "method: expected one that optimises layers, with the options layers and steps, which "
            f"indirect shooting, for one, does not have; got {type(method).__name__}"
        )
