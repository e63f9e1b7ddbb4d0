"""`LeakyResNet`: the layered network itself, built from a solution, and what one does with it.

    A_0 = P xᵀ,   A_ℓ = (1 − ρ_ℓL̃) A_{ℓ−1} + ρ_ℓ W_ℓ σ̂(A_{ℓ−1}),   y = Q A_L.

A network knows no solver and no training data; it keeps the scalings, so that inputs and
predictions are in the user's units. `LeakyResNet.from_solution` turns an optimal path into a
network and says how good the result is. What it computes from inputs, and how that is measured, is
in `hamshoot.network.layered_network`, how it goes to PyTorch, ONNX and safetensors in
`hamshoot.network.portable_network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network import follow_path as discretise
from hamshoot.network import saved
from hamshoot.network.discretisation import DiscretisationError, error_of
from hamshoot.network.layered_network import check_problem
from hamshoot.network.path import SolvedPath
from hamshoot.network.portable_network import PortableNetwork
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support import verbs
from hamshoot.support.checks import brief, check_layers
from hamshoot.support.options import has_option, with_options

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Unpack

    from hamshoot.solution.method import Method
    from hamshoot.solution.solution import Callback, Solution
    from hamshoot.support.names import MethodName, PolishOptions


@dataclass(frozen=True, eq=False, repr=False)
class LeakyResNet(PortableNetwork):
    """A Leaky ResNet of L layers with linear maps in and out. Immutable.

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
    hard_endpoint : bool
        Whether it was built for a prescribed A_1 in place of targets: then it is not exported.
    lift_decay, readout_decay : float, optional
        μ of a map that was learned along; to PyTorch it is a parameter then.
    preparation : Preparation, optional
        How the columns of a table become inputs, where the network was trained on one.

    Raises
    ------
    ValueError
        If shapes do not belong together, the steps do not sum to 1, or a number is not finite.
    """

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
        if not hasattr(problem, "control_shape"):
            raise TypeError("from_weights: expected a TrainingProblem and weights, got "
                            f"{brief(problem)}")
        weights = np.asarray(weights, dtype=float)
        if weights.ndim != 3 or weights.shape[1:] != problem.control_shape or not len(weights):
            rows, columns = problem.control_shape
            raise ValueError(
                f"weights: expected shape (layers, {rows}, {columns}), got {weights.shape}"
            )
        return cls(
            weights=weights,
            steps=discretise.equidistant_steps(len(weights)) if steps is None
            else np.asarray(steps),
            effective_depth=problem.effective_depth, activation=problem.sigma,
            bias=bool(problem.bias), lift=problem.lift, readout=problem.readout,
            input_scaling=problem.input_scaling, target_scaling=problem.target_scaling,
            classes=problem.classes, target_names=problem.target_names,
            input_names=problem.input_names, preparation=problem.preparation,
            hard_endpoint=problem.hard_endpoint, lift_decay=problem.lift_decay,
            readout_decay=problem.readout_decay,
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

        The mean W̄ alone drifts off the path, L̃B(p_ℓ)σ̂(A(p_{ℓ−1}))ᵀ, the form of the layered
        optimality conditions, amplifies an error of the costate on the way, and an exact fit of
        each step pays any price for it. `discretisation_error` measures both on your problem.

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
        if not hasattr(solution, "problem"):
            raise TypeError(f"from_solution: expected a Solution, got {brief(solution)}")
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
        networks = (LeakyResNet.from_solution(solution, count, steps) for count in layers)
        return error_of(solution, networks)

    def polish(
        self, problem: TrainingProblem, method: MethodName | Method = "auto",
        callback: Callback | None = None, **options: Unpack[PolishOptions],
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
        check_problem(self, problem)
        if isinstance(method, str):
            return verbs.solve(problem, method, layers=self.layers, steps=self.steps,
                               initial_guess=self, callback=callback, **options)
        for name in options:
            raise ValueError(f"{name}: give options to the method object, not to polish")
        own = with_options(method, layers=self.layers, steps=self.steps)
        return own.solve(problem, initial_guess=self, callback=callback)

    # -- persistence -------------------------------------------------------------------------------

    def save(self, path: str | PathLike) -> Path:
        """Write the network to an .npz file, whole or not at all.

        Returns
        -------
        Path
            The file written; `.npz` is added when the name has no suffix.
        """
        return saved.save(self, path)

    @classmethod
    def load(cls, path: str | PathLike) -> LeakyResNet:
        """Read a network back.

        Raises
        ------
        ValueError
            For a missing, truncated or foreign file, in one sentence.
        """
        return saved.load(path, cls)

    def __repr__(self) -> str:
        sigma = str(self.activation)
        low, high = self.steps.min(), self.steps.max()
        mesh = f"ρ={low:.3g}" if high - low < 1e-9 else f"ρ={low:.3g}…{high:.3g}"
        return (
            f"LeakyResNet({self.lift.shape[1]} → {len(self.readout)}, layers={self.layers}, {mesh},"
            f" width={self.width}, {sigma}{'' if self.bias else ', no bias'}, "
            f"L̃={self.effective_depth:g}, ∫‖W‖²={self.parameter_norm:.6g})"
        )


def _check_layered(method: Any) -> None:
    """Raise ValueError unless a method object can be told to keep a network's layers and steps."""
    if isinstance(method, type) or not hasattr(method, "solve"):
        raise ValueError(f"method: expected a name or a method object, got {method!r}")
    if not (has_option(method, "layers") and has_option(method, "steps")):
        raise ValueError(
            "method: expected one that optimises layers, with the options layers and steps, which "
            f"indirect shooting, for one, does not have; got {type(method).__name__}"
        )
