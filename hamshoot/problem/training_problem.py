"""`TrainingProblem`: the training of a Leaky ResNet, posed as an optimal control problem.

Minimise over the controls W_p (the weights, depth p ∈ [0, 1])

    J = (1/N) ‖Q A_1 − Yᵀ‖_F² + λ/(2L̃) ∫₀¹ ‖W_p‖_F² dp
    subject to   ∂_p A = −L̃ A + W σ̂(A),   A_0 = P Xᵀ.

Data come the way everyone stores them, rows are samples; inside, representations are (w, N), one
column a sample. The theory page is the docstring of `hamshoot.theory.hamiltonian`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.problem.activations import Activation
from hamshoot.problem.readers import Scaling, read_csv, read_npz, split_rows, teacher_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MATRICES = ("embedding", "orthonormal")
DEFAULT_EPSILON = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class TrainingProblem:
    """Data, leak, weight decay and network of one training problem, validated once.

    Parameters
    ----------
    X : array_like, shape (N, d_in)
        Inputs, rows are samples, in the user's units. A memory-mapped array, as
        ``numpy.load(path, mmap_mode="r")`` gives it, stays in its file in its own type: it is
        checked in chunks, and large problems read it a block of samples at a time. The same holds
        for Y.
    Y : array_like, shape (N, d_out) or (N,), optional
        Targets. May be left out only when `endpoint` is given.
    effective_depth : float
        L̃ > 0: the leak, which plays the role of depth.
    weight_decay : float
        λ > 0: weight of the L2 term λ/(2L̃) ∫‖W‖².
    width : int
        w ≥ 1: neurons of every hidden layer; may exceed, equal or fall short of d_in and d_out.
    activation : {"relu", "smooth_relu", "linear"}
    epsilon : float, optional
        ε of the smooth ReLU (default 0.1); an error with the other activations.
    bias : bool
        Whether σ̂(A) has a last row of ones, and W a last column b.
    lift, readout : {"embedding", "orthonormal"} or array_like, optional
        P (w, d_in) and Q (d_out, w), fixed. Default: the embedding [I; 0] where the width
        allows it, else orthonormal random from `seed`.
    endpoint : array_like, shape (w, N), optional
        Hard endpoint A_1 = given, in place of the loss.
    X_test, Y_test : array_like, optional
        Held-out samples, in the user's units.
    standardize : {False, True, "columns", "common"}
        Scale inputs and targets to zero mean and unit deviation, per column (True is "columns") or
        with one common deviation. One-hot classes are left as they are.
    seed : int
        Seed of the random orthonormal matrices.
    input_names, target_names : sequence of str, optional
    classes : sequence of str, optional
        Labels of one-hot targets, in column order.

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
    activation: str = field(default="relu", kw_only=True)
    epsilon: float | None = field(default=None, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    lift: NDArray | Any = field(default=None, kw_only=True)  # as it is given also a name or None
    readout: NDArray | Any = field(default=None, kw_only=True)
    endpoint: NDArray | None = field(default=None, kw_only=True)
    X_test: NDArray | None = field(default=None, kw_only=True)
    Y_test: NDArray | None = field(default=None, kw_only=True)
    standardize: bool | str = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    input_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    target_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    classes: tuple[str, ...] | None = field(default=None, kw_only=True)

    sigma: Activation = field(init=False)
    input_scaling: Scaling = field(init=False)
    target_scaling: Scaling = field(init=False)
    _given: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        self._put(_given=given)
        self._check_scalars()
        self._check_data()
        self._check_matrices()
        self._check_test_data()

    # -- construction ------------------------------------------------------------------------------

    @classmethod
    def from_csv(
        cls, path: str | PathLike, targets: int | Sequence[str] = 1, **kwargs: Any
    ) -> TrainingProblem:
        """Problem from a CSV file with a header row; see `hamshoot.problem.readers.read_csv`.

        Parameters
        ----------
        path : path
        targets : int or sequence of str
            Names of the target columns, or how many of the last columns they are. One column of
            strings is a class and becomes one-hot.
        **kwargs
            `drop`, `test_fraction`, and everything `TrainingProblem` takes; `standardize` is True
            unless given.
        """
        return cls._from_table(read_csv, path, dict(kwargs, targets=targets))

    @classmethod
    def from_npz(cls, path: str | PathLike, mmap: bool = False, **kwargs: Any) -> TrainingProblem:
        """Problem from an .npz file that holds X, Y and, if it has them, X_test and Y_test.

        Parameters
        ----------
        path : path
        mmap : bool
            Leave X and Y in the file, which has to be uncompressed, as `numpy.savez` writes it.
            There is no `test_fraction` then.
        **kwargs
            As in `from_csv`.
        """
        if mmap and kwargs.get("test_fraction"):
            raise ValueError(
                f"test_fraction: expected 0 with mmap, got {kwargs['test_fraction']!r}; splitting "
                "would copy the rows, so put X_test and Y_test in the file"
            )
        return cls._from_table(read_npz, path, dict(kwargs, mmap=mmap))

    @classmethod
    def _from_table(cls, read: Any, path: str | PathLike, kwargs: dict[str, Any]):
        reading = {k: kwargs.pop(k) for k in ("targets", "drop", "mmap") if k in kwargs}
        table = read(path, **reading)
        table = split_rows(table, kwargs.pop("test_fraction", 0.0), kwargs.get("seed", 0))
        return cls(**{"standardize": True, **table.arguments(), **kwargs})

    def replace(self, **changes: Any) -> TrainingProblem:
        """Return the same problem with some arguments changed (defaults are derived anew)."""
        unknown = sorted(set(changes) - set(self._given))
        if unknown:
            known = ", ".join(self._given)
            raise ValueError(f"replace: no argument {unknown[0]!r}; known: {known}")
        return TrainingProblem(**{**self._given, **changes})

    def subset(self, rows: ArrayLike) -> TrainingProblem:
        """Problem of some samples alone, in the scaled units of this one, without test data.

        Their rows are copied, except where that takes more than
        `hamshoot.problem.memory_map.MEMORY_BYTES` of mapped data: those stay in the file, in the
        user's units and with the scaling of this problem.

        Parameters
        ----------
        rows : array_like of int
        """
        rows = np.asarray(rows, dtype=int)
        columns = self.d_in + (0 if self.Y is None else self.Y.shape[1])
        stays = self.mapped and 8 * len(rows) * columns > mapped.MEMORY_BYTES
        kept: dict[str, Any] = {"X": mapped.taken(self.X, rows) if stays
                                else self.input_scaling.apply(self.X[rows])}
        if self.hard_endpoint:
            kept["endpoint"] = self.endpoint[:, rows]
        if self.Y is not None:
            kept["Y"] = mapped.taken(self.Y, rows) if stays \
                else self.target_scaling.apply(self.Y[rows])
        part = self.replace(**{"X_test": None, "Y_test": None, "endpoint": None, "Y": None, **kept,
                               "standardize": False, "lift": self.lift, "readout": self.readout,
                               "classes": None})
        if stays:
            part._put(input_scaling=self.input_scaling, target_scaling=self.target_scaling)
        return part

    # -- what solvers ask --------------------------------------------------------------------------

    @cached_property
    def initial_state(self) -> NDArray:
        """A_0 = P Xᵀ of the scaled inputs, (w, N)."""
        return _frozen(self.lift @ self.input_scaling.apply(np.asarray(self.X)).T)

    @cached_property
    def targets(self) -> NDArray:
        """Yᵀ, scaled, (d_out, N); with a hard endpoint and no Y, that endpoint read out."""
        if self.Y is None:
            return _frozen(self.readout @ self.endpoint)
        return _frozen(self.target_scaling.apply(np.asarray(self.Y)).T)

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
    def d_in(self) -> int:
        """Columns of X."""
        return self.X.shape[1]

    @property
    def d_out(self) -> int:
        """Rows of the readout Q."""
        return self.readout.shape[0]

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
        if self.in_memory:
            return float(np.sum(self.targets**2) / self.n_samples)
        return sum(float(np.sum(self.target_scaling.apply(values) ** 2))
                   for _, values in mapped.chunks(self.Y)) / self.n_samples

    # -- persistence -------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Arrays and JSON-ready settings from which `from_arrays` rebuilds the problem exactly.

        Maps of more than `hamshoot.problem.memory_map.MEMORY_BYTES` in double precision are not
        among the arrays: the settings hold their absolute paths.
        """
        names = ("X", "lift", "readout", "Y", "endpoint", "X_test", "Y_test")
        arrays = {k: getattr(self, k) for k in names if getattr(self, k) is not None}
        large = {k: mapped.MappedRows.of(v) for k, v in arrays.items()
                 if mapped.is_mapped(v) and 8 * v.size > mapped.MEMORY_BYTES}
        maps = {k: v.to_dict() for k, v in large.items() if v.rows is None}
        arrays = {k: v for k, v in arrays.items() if k not in maps}
        names = ("effective_depth", "weight_decay", "width", "activation", "bias", "standardize",
                 "seed", "input_names", "target_names", "classes")
        settings = {k: getattr(self, k) for k in names}
        if self.activation == "smooth_relu":
            settings["epsilon"] = self.sigma.epsilon
        if maps:
            settings["maps"] = maps
        return arrays, settings

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray], settings: dict[str, Any]) -> TrainingProblem:
        """Inverse of `to_arrays`.

        Raises
        ------
        ValueError
            If a file that the settings refer to is gone or has another size.
        """
        settings = dict(settings)
        maps = {k: mapped.MappedRows.from_dict(k, v) for k, v in settings.pop("maps", {}).items()}
        return cls(**arrays, **maps, **settings)

    def __repr__(self) -> str:
        sigma = f"smooth_relu(ε={self.sigma.epsilon:g})" if self.sigma.epsilon else self.activation
        return (
            f"TrainingProblem(N={self.n_samples}, {self.d_in} → {self.d_out}, width={self.width}, "
            f"{sigma}{'' if self.bias else ', no bias'}, L̃={self.effective_depth:g}, "
            f"λ={self.weight_decay:g}{', hard endpoint' if self.hard_endpoint else ''})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Of maps the paths alone; the other side opens them again."""
        def light(values: dict[str, Any]) -> dict[str, Any]:
            return {k: mapped.MappedRows.of(v) if k in ("X", "Y") and mapped.is_mapped(v) else v
                    for k, v in values.items()}

        whole = ("initial_state", "targets") if self.mapped else ()
        state = {k: v for k, v in vars(self).items() if k not in whole}
        return {**light(state), "_given": light(self._given)}

    # -- validation --------------------------------------------------------------------------------

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_scalars(self) -> None:
        self._put(
            effective_depth=_positive("effective_depth", self.effective_depth),
            weight_decay=_positive("weight_decay", self.weight_decay),
            width=_count("width", self.width, 1),
            seed=_count("seed", self.seed, 0),
        )
        if not isinstance(self.bias, (bool, np.bool_)):
            raise ValueError(f"bias: expected true or false, got {self.bias!r}")
        epsilon = self.epsilon
        if epsilon is None:
            epsilon = DEFAULT_EPSILON if self.activation == "smooth_relu" else 0.0
        elif isinstance(epsilon, bool) or not isinstance(epsilon, (int, float, np.number)):
            raise ValueError(f"epsilon: expected a number > 0, got {epsilon!r}")
        self._put(sigma=Activation(self.activation, float(epsilon)))

    def _check_data(self) -> None:
        X = _matrix("X", self.X)
        if self.endpoint is not None:
            endpoint = _matrix("endpoint", self.endpoint)
            if endpoint.shape != (self.width, len(X)):
                raise ValueError(
                    f"endpoint: expected shape (width, samples) = ({self.width}, {len(X)}), "
                    f"got {endpoint.shape}"
                )
            self._put(endpoint=_frozen(endpoint))
        elif self.Y is None:
            raise ValueError("Y: expected targets (or an endpoint), got none")
        Y = None if self.Y is None else _matrix("Y", self.Y)
        if Y is not None and len(Y) != len(X):
            raise ValueError(f"Y: expected {len(X)} rows as X has, got {len(Y)}")
        # Frozen first: sums depend on the memory order in the last digit, a reload must not.
        X, Y = _kept(X), None if Y is None else _kept(Y)
        self._put(X=X, Y=Y)
        self._check_names(X, Y)
        kind = self._scaling_kind()
        inputs = [str(n) for n in self.input_names or range(X.shape[1])]
        self._put(
            input_scaling=Scaling.fit(X, kind, "X", inputs) if kind else
            Scaling.identity(X.shape[1])
        )
        if Y is None:
            return
        outputs = [str(n) for n in self.target_names or range(Y.shape[1])]
        scale_targets = kind and self.classes is None and self.endpoint is None
        self._put(
            target_scaling=Scaling.fit(Y, kind, "Y", outputs) if scale_targets else
            Scaling.identity(Y.shape[1])
        )

    def _scaling_kind(self) -> str | None:
        if self.standardize in (True, "columns"):
            return "columns"
        if self.standardize == "common":
            return "common"
        if self.standardize is False or self.standardize is None:
            return None
        raise ValueError(
            f"standardize: expected true, false, 'columns' or 'common', got {self.standardize!r}"
        )

    def _check_names(self, X: NDArray, Y: NDArray | None) -> None:
        expected = {"input_names": X.shape[1]}
        if Y is not None:
            expected.update(target_names=Y.shape[1], classes=Y.shape[1])
        for name, count in expected.items():
            value = getattr(self, name)
            if value is None:
                continue
            value = tuple(str(v) for v in value)
            if len(value) != count:
                raise ValueError(f"{name}: expected {count} names, got {len(value)}")
            self._put(**{name: value})

    def _check_matrices(self) -> None:
        w, d_in = self.width, self.X.shape[1]
        d_out = w if self.Y is None else self.Y.shape[1]
        if self.Y is None and isinstance(self.readout, np.ndarray):
            d_out = self.readout.shape[0]
        lift = _linear_map("lift", self.lift, (w, d_in), np.random.default_rng([self.seed, 1]))
        readout = _linear_map(
            "readout", self.readout, (d_out, w), np.random.default_rng([self.seed, 2])
        )
        self._put(lift=_frozen(lift), readout=_frozen(readout))
        if self.Y is None:
            self._put(target_scaling=Scaling.identity(d_out))

    def _check_test_data(self) -> None:
        if self.X_test is None and self.Y_test is None:
            return
        if self.X_test is None or self.Y_test is None:
            raise ValueError("X_test, Y_test: expected both or neither, got one of them")
        X_test, Y_test = _matrix("X_test", self.X_test), _matrix("Y_test", self.Y_test)
        for name, value, like in (("X_test", X_test, self.X), ("Y_test", Y_test, self.Y)):
            if like is None or value.shape[1] != like.shape[1]:
                raise ValueError(
                    f"{name}: expected {0 if like is None else like.shape[1]} columns as in "
                    f"training, got {value.shape[1]}"
                )
        if len(X_test) != len(Y_test):
            raise ValueError(
                f"Y_test: expected {len(X_test)} rows as X_test has, got {len(Y_test)}"
            )
        self._put(X_test=_frozen(X_test), Y_test=_frozen(Y_test))


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
        weight_decay = 1e-3 * _positive("effective_depth", effective_depth)
    test = dict(X_test=X_test, Y_test=Y_test) if test_samples else {}
    return TrainingProblem(
        X, Y, effective_depth=effective_depth, weight_decay=weight_decay, width=width, seed=seed,
        **{"standardize": "common", **test, **kwargs},
    )


# -- checks of single arguments --------------------------------------------------------------------


def _positive(name: str, value: Any) -> float:
    if isinstance(value, (bool, str)) or not np.isscalar(value):
        raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")
    return float(value)


def _count(name: str, value: Any, least: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    return count


def _matrix(name: str, value: ArrayLike) -> NDArray:
    if mapped.is_mapped(value):
        return _mapped_matrix(name, value)
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers in a 2-D array, got {_brief(value)}") from None
    if array.ndim == 1 and name.startswith("Y"):
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"{name}: expected a 2-D array (samples, columns) with at least one of each, "
            f"got shape {array.shape}"
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        i, j = bad[0]
        raise ValueError(_not_finite(name, len(bad), i, j, array[i, j]))
    return array


def _mapped_matrix(name: str, array: Any) -> Any:
    """The map itself, with the checks of `_matrix` made in chunks."""
    if array.ndim == 1 and name.startswith("Y"):
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        return _matrix(name, np.empty(array.shape))
    bad = mapped.not_finite(array)
    if bad is not None:
        count, i, j, value = bad
        raise ValueError(_not_finite(name, count, i, j, value))
    return array


def _not_finite(name: str, count: int, i: int, j: int, value: float) -> str:
    more = f" and {count - 1} more" if count > 1 else ""
    return f"{name}: expected finite numbers, got {value} in row {i}, column {j}{more}"


def _linear_map(
    name: str, value: Any, shape: tuple[int, int], rng: np.random.Generator
) -> NDArray:
    inner = 1 if name == "readout" else 0  # the side that is the width
    fits = shape[inner] >= shape[1 - inner]
    if value is None:
        value = "embedding" if fits else "orthonormal"
    if isinstance(value, str):
        if value not in MATRICES:
            raise ValueError(f"{name}: expected {' or '.join(MATRICES)} or a matrix, got {value!r}")
        if value == "embedding":
            if not fits:
                raise ValueError(
                    f"{name}: an embedding needs width >= {shape[1 - inner]}, got {shape[inner]}; "
                    "use 'orthonormal'"
                )
            return np.eye(*shape)
        return _orthonormal(rng, shape)
    matrix = _matrix(name, value)
    if matrix.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {matrix.shape}")
    return matrix


def _orthonormal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray:
    """Random matrix with orthonormal columns if tall, rows if wide (Haar, by QR with signs)."""
    tall = shape[0] >= shape[1]
    frame, R = np.linalg.qr(rng.standard_normal(shape if tall else shape[::-1]))
    frame = frame * np.sign(np.diag(R))
    return frame if tall else frame.T


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _kept(array: Any) -> Any:
    """A map as it is, anything else frozen."""
    return array if mapped.is_mapped(array) else _frozen(array)


def _frozen(array: NDArray) -> NDArray:
    """Contiguous float64 copy that nobody can write to."""
    array = np.array(array, dtype=float, order="C")
    array.setflags(write=False)
    return array
