"""`TrainingProblem`: the training of a Leaky ResNet, posed as an optimal control problem.

Minimise over the controls W_p (the weights, depth p ∈ [0, 1])

    J = (1/N) ‖Q A_1 − Yᵀ‖_F² + λ/(2L̃) ∫₀¹ ‖W_p‖_F² dp
    subject to   ∂_p A = −L̃ A + W σ̂(A),   A_0 = P Xᵀ.

Data come the way everyone stores them, rows are samples; inside, representations are (w, N), one
column a sample. The theory page is the docstring of `hamshoot.theory.hamiltonian`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import arguments, saved
from hamshoot.problem import memory_map as mapped
from hamshoot.problem.activations import Activation
from hamshoot.problem.arguments import frozen, positive
from hamshoot.problem.from_files import FromFiles
from hamshoot.problem.hints import projected
from hamshoot.problem.losses import Loss
from hamshoot.problem.magnitude import check_magnitude
from hamshoot.problem.maps import Maps, told
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Scaling, teacher_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.support.names import ActivationName, LossName, ScalingName


@dataclass(frozen=True, eq=False, repr=False)
class TrainingProblem(FromFiles, Maps):
    """Data, leak, weight decay and network of one training problem, validated once.

    Parameters
    ----------
    X : array_like, shape (N, d_in)
        Inputs, rows are samples, in the user's units. A memory-mapped array, as
        ``numpy.load(path, mmap_mode="r")`` gives it, stays in its file in its own type: it is
        checked in chunks, and large problems read it a block of samples at a time. So do rows
        of Parquet, Zarr and object stores, as `hamshoot.open_rows` opens them, a Zarr array, and
        the path or URL of one. The same holds for Y.
    Y : array_like, shape (N, d_out) or (N,), optional
        Targets. May be left out only when `endpoint` is given.
    effective_depth : float
        L̃ > 0: the leak, which plays the role of depth.
    weight_decay : float
        λ > 0: weight of the L2 term λ/(2L̃) ∫‖W‖².
    width : int
        w ≥ 1: neurons of every hidden layer; may exceed, equal or fall short of d_in and d_out.
    activation : {"relu", "smooth_relu", "linear", "leaky_relu", "smooth_leaky_relu", "tanh", \
"softplus", "gelu"} or Activation
        By name, or as `hamshoot.Activation` makes one; the attribute is the name, `sigma` has σ.
    epsilon : float, optional
        ε of the smooth ReLUs (default 0.1); an error with the other activations.
    negative_slope : float, optional
        Slope of the leaky ReLUs below 0 (default 0.01); an error with the others.
    bias : bool
        Whether σ̂(A) has a last row of ones, and W a last column b.
    lift, readout : {"embedding", "orthonormal"} or array_like, optional
        P (w, d_in) and Q (d_out, w), fixed unless a decay is given. Default: the embedding [I; 0]
        where the width allows it, else orthonormal random from `seed`.
    lift_decay, readout_decay : float, optional
        μ > 0: P or Q is learned, from where it is, with a term (μ/2)‖P‖² or (μ/2)‖Q‖² of J.
    endpoint : array_like, shape (w, N), optional
        Hard endpoint A_1 = given, in place of the loss.
    loss : {"squared", "cross_entropy", "huber"}
        Of `hamshoot.problem.losses`: the mean squared error, that of classes with a softmax at the
        readout (targets one-hot, or rows ≥ 0 of sum 1, unscaled), or Huber's.
    huber_delta : float, optional
        δ of Huber's loss in scaled units (default 1).
    sample_weights : array_like, shape (N,), optional
        Weights ≥ 0 of the samples in the loss (1/N) Σ s_j ℓ_j, and in `standardize`.
    X_test, Y_test : array_like, optional
        Held-out samples, in the user's units.
    standardize : {False, True, "columns", "varying", "common"}
        Scale inputs and targets to zero mean and unit deviation, per column (True is "columns") or
        with one common deviation. A constant column is refused, but by "varying", which otherwise
        is "columns": there its mean is taken off. One-hot classes are left as they are.
    seed : int
        Seed of the random orthonormal matrices.
    input_names, target_names : sequence of str, optional
    classes : sequence of str, optional
        Labels of one-hot targets, in column order.
    preparation : Preparation, optional
        How the columns of a table became X, where X comes from one; kept for new rows.

    Attributes
    ----------
    initial_state : ndarray, shape (w, N)
        A_0 = P Xᵀ, of the scaled inputs; computed on first access, like the targets. `block` has
        them for some samples.
    targets : ndarray, shape (d_out, N)
        Yᵀ, scaled.
    input_scaling, target_scaling : Scaling

    Raises
    ------
    ValueError
        Naming the argument, what came and what was expected.
    """

    X: NDArray
    Y: NDArray | None = None
    effective_depth: float = field(kw_only=True)
    weight_decay: float = field(kw_only=True)
    width: int = field(kw_only=True)
    activation: ActivationName | Activation = field(default="relu", kw_only=True)
    epsilon: float | None = field(default=None, kw_only=True)
    negative_slope: float | None = field(default=None, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    lift: NDArray | Any = field(default=None, kw_only=True)  # as it is given also a name or None
    readout: NDArray | Any = field(default=None, kw_only=True)
    lift_decay: float | None = field(default=None, kw_only=True)
    readout_decay: float | None = field(default=None, kw_only=True)
    endpoint: NDArray | None = field(default=None, kw_only=True)
    loss: LossName = field(default="squared", kw_only=True)
    huber_delta: float | None = field(default=None, kw_only=True)
    sample_weights: NDArray | None = field(default=None, kw_only=True)
    X_test: NDArray | None = field(default=None, kw_only=True)
    Y_test: NDArray | None = field(default=None, kw_only=True)
    standardize: bool | ScalingName = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    input_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    target_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    classes: tuple[str, ...] | None = field(default=None, kw_only=True)
    preparation: Preparation | Any = field(default=None, kw_only=True)  # as it is given also a dict

    sigma: Activation = field(init=False)
    criterion: Loss = field(init=False)
    input_scaling: Scaling = field(init=False)
    target_scaling: Scaling = field(init=False)
    _given: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        self._put(_given=given, **np.errstate(all="ignore")(arguments.checked)(given))
        check_magnitude(self)  # what has overflowed is refused, in words

    # -- construction, besides that of `FromFiles` -------------------------------------------------

    def replace(self, **changes: Any) -> TrainingProblem:
        """Return the same problem with some arguments changed (defaults are derived anew)."""
        return TrainingProblem(**arguments.replaced(self._given, changes))

    def subset(self, rows: ArrayLike) -> TrainingProblem:
        """Problem of some samples alone, `rows` of int, in the scaled units, without test data.

        Their rows are copied, except where that takes more than
        `hamshoot.problem.memory_map.MEMORY_BYTES` of mapped data: those stay in the file, in the
        user's units and with the scaling of this problem.
        """
        changes, scalings = saved.subset_arguments(vars(self), np.asarray(rows, dtype=int))
        part = self.replace(**changes)
        part._put(**scalings)
        return part

    # -- what solvers ask --------------------------------------------------------------------------

    @cached_property
    def targets(self) -> NDArray:
        """Yᵀ, scaled, (d_out, N); with a hard endpoint and no Y, that endpoint read out."""
        if self.Y is None:
            return frozen(self.readout @ self.endpoint)
        return frozen(self.target_scaling.apply(np.asarray(self.Y)).T)

    def samples(self, a: int, b: int) -> mapped.Samples:
        """Samples a to b, to be read block by block; of mapped data it holds the path alone."""
        return mapped.Samples(mapped.part(self.X, a, b), mapped.part(self.Y, a, b),
                              self.input_scaling, self.target_scaling, self.lift)

    def block(self, a: int, b: int) -> tuple[NDArray, NDArray]:
        """A_0 (w, b − a) and Yᵀ (d_out, b − a) of samples a to b, scaled.

        Taken from `initial_state` and `targets`, unless these are mapped or large (`in_memory`).
        """
        if self.in_memory:
            return self.initial_state[:, a:b], self.targets[:, a:b]
        return self.samples(a, b).read(0, b - a)

    @property
    def mapped(self) -> bool:
        """Whether X or Y lies in a file."""
        return mapped.is_mapped(self.X) or mapped.is_mapped(self.Y)

    @property
    def in_memory(self) -> bool:
        """Whether A_0 is held whole: X and Y are in memory and A_0 is small, or there is no Y."""
        small = 8 * self.width * self.n_samples <= mapped.MEMORY_BYTES
        return self.Y is None or (small and not self.mapped)

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self.X)

    @property
    def control_shape(self) -> tuple[int, int]:
        """Shape of one W_p: (w, w+1), last column the bias, or (w, w) without bias."""
        return self.width, self.width + int(self.bias)

    @property
    def hard_endpoint(self) -> bool:
        """Whether A_1 is prescribed in place of the loss."""
        return self.endpoint is not None

    @property
    def trivial_objective(self) -> float:
        """J of W ≡ 0 up to the e^{−L̃} that A_0 leaves behind: ‖Y‖²/N, the collapsed solution."""
        if not self.criterion.plain:
            return float(self.criterion.value(np.zeros_like(self.targets), self.targets))
        if self.in_memory:
            return float(np.sum(self.targets**2) / self.n_samples)
        return self.target_scaling.squares(self.Y) / self.n_samples

    # -- persistence -------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Arrays and JSON-ready settings from which `from_arrays` rebuilds the problem exactly.

        Maps of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double precision are not
        among the arrays: the settings hold their absolute paths.
        """
        return saved.arrays_and_settings(vars(self))

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray], settings: dict[str, Any]) -> TrainingProblem:
        """Inverse of `to_arrays`.

        Raises
        ------
        ValueError
            If a file that the settings refer to is gone or has another size.
        """
        return cls(**saved.arguments(arrays, settings))

    def __repr__(self) -> str:
        what = f"{self.sigma}{'' if self.bias else ', no bias'}"
        sizes = f"N={self.n_samples}, {self.d_in} → {self.d_out}, width={self.width}"
        return (f"TrainingProblem({sizes}{projected(self)}, {what}, L̃={self.effective_depth:g}, "
                f"λ={self.weight_decay:g}{'' if self.criterion.plain else f', {self.criterion}'}"
                f"{told(self)}"
                f"{', hard endpoint' if self.hard_endpoint else ''})")

    def __getstate__(self) -> dict[str, Any]:
        """Of maps the paths alone; the other side opens them again."""
        return saved.light({**vars(self), "_given": saved.light(self._given)})

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


def teacher_problem(
    dims: Sequence[int] = (30, 3, 30),
    samples: int = 1000,
    *,
    effective_depth: float = 7.0,
    width: int = 100,
    weight_decay: float | None = None,
    test_samples: int = 1000,
    seed: int = 0,
    **kwargs: Any,
) -> TrainingProblem:
    """Synthetic problem of the paper: a composition of random networks through a narrow middle.

    Parameters
    ----------
    dims : sequence of int
        Dimensions the teacher passes through; the smallest is the true bottleneck rank.
    samples, test_samples : int
        Training and test samples, Gaussian inputs.
    effective_depth, width
        As in `TrainingProblem`.
    weight_decay : float, optional
        λ; default 0.001 L̃ as in the paper.
    seed : int
        Seed of teacher, data, lift and readout.
    **kwargs
        Passed to `TrainingProblem`; `standardize` is "common" unless given.
    """
    X, Y, X_test, Y_test = teacher_data(dims, samples, test_samples, seed)
    if weight_decay is None:
        weight_decay = 1e-3 * positive("effective_depth", effective_depth)
    test = dict(X_test=X_test, Y_test=Y_test) if test_samples else {}
    return TrainingProblem(
        X, Y, effective_depth=effective_depth, weight_decay=weight_decay, width=width, seed=seed,
        **{"standardize": "common", **test, **kwargs},
    )
