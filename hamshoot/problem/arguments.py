"""Arguments of a training problem: checked, with what follows from them.

An error names the argument, what came and what was expected.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.problem.activations import WITH_EPSILON, WITH_SLOPE, Activation
from hamshoot.problem.losses import Loss
from hamshoot.problem.maps import checked_decays
from hamshoot.problem.open_rows import adopted
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Scaling
from hamshoot.problem.stored_rows import StoredRows
from hamshoot.support.checks import brief, finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MATRICES = ("embedding", "orthonormal")
DEFAULT_EPSILON, DEFAULT_SLOPE = 0.1, 0.01
#: Largest number in data: sums of squares of such are doubles yet.
LARGEST = 1e150
#: Neurons of a layer at most, which no method comes near.
MOST_WIDTH = 30_000


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a problem from the arguments given, those included that are derived.

    Parameters
    ----------
    given : mapping of str to object
        All arguments of `TrainingProblem` by name.

    Returns
    -------
    dict of str to object
        What replaces or joins them: arrays frozen, `sigma`, `input_scaling`, `target_scaling`,
        `lift` and `readout` as matrices.

    Raises
    ------
    ValueError
        For an argument out of range, or arguments that do not fit together.
    """
    values = _scalars(given)
    values |= _data({**given, **values})
    values["criterion"] = _criterion({**given, **values})
    values["sample_weights"] = values["criterion"].weights
    values |= _scalings({**given, **values})
    values |= checked_decays({**given, **values})
    values |= _matrices({**given, **values})
    return values | _held_out({**given, **values})


def replaced(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with some changed; other inputs come from no table, unless it is said how.

    Raises
    ------
    ValueError
        For an argument that there is not.
    """
    for name in sorted(set(changes) - set(given)):
        raise ValueError(f"replace: no argument {name!r}; known: {', '.join(given)}")
    elsewhere: dict[str, Any] = {"preparation": None} if "X" in changes else {}
    if isinstance(changes.get("activation"), Activation):
        elsewhere |= {"epsilon": None, "negative_slope": None}
    elif isinstance(given["activation"], Activation) and \
            set(changes) & {"activation", "epsilon", "negative_slope"}:
        sigma = given["activation"]
        elsewhere |= {"activation": sigma.name, "epsilon": sigma.epsilon or None,
                      "negative_slope": sigma.negative_slope or None}
    return {**given, **elsewhere, **changes}


# -- groups of arguments ---------------------------------------------------------------------------


def _scalars(given: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, and σ of the activation's name and ε."""
    values: dict[str, Any] = dict(
        effective_depth=positive("effective_depth", given["effective_depth"]),
        weight_decay=positive("weight_decay", given["weight_decay"]),
        width=count("width", given["width"], 1),
        seed=count("seed", given["seed"], 0),
    )
    if values["width"] > MOST_WIDTH:
        raise ValueError(f"width: expected at most {MOST_WIDTH} neurons (a matrix W of "
                         f"{8e-9 * MOST_WIDTH**2:.0f} GB), got {brief(values['width'])}")
    if not isinstance(given["bias"], (bool, np.bool_)):
        raise ValueError(f"bias: expected true or false, got {brief(given['bias'])}")
    sigma = _activation(given["activation"], given["epsilon"], given["negative_slope"])
    return {**values, "sigma": sigma, "activation": sigma.name}


def _activation(activation: Any, epsilon: Any, negative_slope: Any) -> Activation:
    """σ of a name and its constants, or as it is given."""
    if isinstance(activation, Activation):
        for name, value in (("epsilon", epsilon), ("negative_slope", negative_slope)):
            if value is not None and value != getattr(activation, name):
                raise ValueError(f"{name}: expected none beside an Activation, which has its own, "
                                 f"got {brief(value)}")
        return activation
    known = isinstance(activation, str)
    constants = []
    for name, value, default in (
            ("epsilon", epsilon, DEFAULT_EPSILON if known and activation in WITH_EPSILON else 0),
            ("negative_slope", negative_slope,
             DEFAULT_SLOPE if known and activation in WITH_SLOPE else 0)):
        if value is None:
            value = default
        elif isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or \
                not finite(value):
            raise ValueError(f"{name}: expected a number > 0, got {brief(value)}")
        constants.append(float(value))
    return Activation(activation, constants[0], constants[1])


def _data(given: Mapping[str, Any]) -> dict[str, Any]:
    """Samples, targets or endpoint, and the names of their columns."""
    values: dict[str, Any] = {}
    X = matrix("X", adopted("X", given["X"]))
    if given["endpoint"] is not None:
        endpoint, width = matrix("endpoint", given["endpoint"]), given["width"]
        if endpoint.shape != (width, len(X)):
            raise ValueError(
                f"endpoint: expected shape (width, samples) = ({width}, {len(X)}), "
                f"got {endpoint.shape}"
            )
        values["endpoint"] = frozen(endpoint)
    elif given["Y"] is None:
        raise ValueError("Y: expected targets (or an endpoint), got none")
    Y = None if given["Y"] is None else matrix("Y", adopted("Y", given["Y"]))
    if Y is not None and len(Y) != len(X):
        raise ValueError(f"Y: expected {len(X)} rows as X has, got {len(Y)}")
    # Frozen first: sums depend on the memory order in the last digit, a reload must not.
    X, Y = _kept(X), None if Y is None else _kept(Y)
    columns = {"input_names": X.shape[1]}
    if Y is not None:
        columns.update(target_names=Y.shape[1], classes=Y.shape[1])
    own = {"input_names": X, "target_names": Y}  # stored columns have names of their own
    for name, expected in columns.items():
        if given[name] is not None:
            values[name] = _names(name, given[name], expected)
        elif isinstance(own.get(name), StoredRows):
            values[name] = own[name].columns
    values["preparation"] = _preparation(given["preparation"], X.shape[1])
    return {**values, "X": X, "Y": Y}


def _criterion(given: Mapping[str, Any]) -> Loss:
    """The loss, which fits the targets."""
    name, delta, weights = given["loss"], given["huber_delta"], given["sample_weights"]
    delta = (1.0 if name == "huber" else 0.0) if delta is None else positive("huber_delta", delta)
    if weights is not None:
        array = matrix("sample_weights", np.reshape(np.asarray(weights), (1, -1)))[0]
        if array.shape != (len(given["X"]),) or np.any(array < 0) or not array.any():
            raise ValueError(f"sample_weights: expected {len(given['X'])} numbers >= 0, not all 0, "
                             f"one a sample, got {array.shape[0]} from {array.min():g} up")
        weights = frozen(array)
    criterion, Y = Loss(name, delta, weights), given["Y"]
    if criterion.plain:
        return criterion
    if given["endpoint"] is not None:
        raise ValueError("loss: a hard endpoint stands in place of the loss, which has neither "
                         f"another form nor sample weights then, got {criterion}")
    if any(map(mapped.is_mapped, (given["X"], Y))):
        criterion.check_plain("data that stay in their files, as memory maps do,")
    if name == "cross_entropy" and (
            Y.shape[1] < 2 or np.any(Y < 0) or np.any(np.abs(Y.sum(axis=1) - 1) > 1e-9)):
        raise ValueError("loss: cross_entropy needs targets that are probabilities of at least 2 "
                         "classes: rows >= 0 of sum 1, as one-hot classes have, got "
                         f"{Y.shape[1]} columns, a row of sum {Y.sum(axis=1).min():.3g}")
    return criterion


def _preparation(value: Any, d_in: int) -> Preparation | None:
    """How a table became the inputs, of as many columns."""
    if value is None:
        return None
    preparation = value if isinstance(value, Preparation) else Preparation.from_dict(value)
    if len(preparation.names) != d_in:
        raise ValueError(f"preparation: expected one of {d_in} inputs, got "
                         f"{len(preparation.names)}; None where X comes from no table")
    return preparation


def _names(name: str, value: Any, expected: int) -> tuple[str, ...]:
    names = tuple(str(v) for v in value)
    if len(names) != expected:
        raise ValueError(f"{name}: expected {expected} names, got {len(names)}")
    return names


def _scalings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the inputs; of the targets too where there are any, classes and hard endpoints as are."""
    X, Y, kind = given["X"], given["Y"], _scaling_kind(given["standardize"])
    weights = given["sample_weights"]
    inputs = [str(n) for n in given["input_names"] or range(X.shape[1])]
    values = {"input_scaling": Scaling.identity(X.shape[1]) if kind is None else
              Scaling.fit(X, kind, "X", inputs, weights)}
    if Y is None:
        return values
    outputs = [str(n) for n in given["target_names"] or range(Y.shape[1])]
    as_are = given["classes"] is not None or given["endpoint"] is not None or \
        given["loss"] == "cross_entropy"
    values["target_scaling"] = Scaling.identity(Y.shape[1]) if kind is None or as_are else \
        Scaling.fit(Y, kind, "Y", outputs, weights)
    return values


def _scaling_kind(standardize: Any) -> str | None:
    if standardize in (True, "columns"):
        return "columns"
    if standardize in ("common", "varying"):
        return str(standardize)
    if standardize is False or standardize is None:
        return None
    raise ValueError(
        "standardize: expected true, false, 'columns', 'varying' or 'common', "
        f"got {brief(standardize)}"
    )


def _matrices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Lift and readout; without targets the outputs are as many as the readout given has."""
    w, d_in, Y = given["width"], given["X"].shape[1], given["Y"]
    d_out = w if Y is None else Y.shape[1]
    if Y is None and isinstance(given["readout"], np.ndarray):
        d_out = given["readout"].shape[0]
    rng = [np.random.default_rng([given["seed"], stream]) for stream in (1, 2)]
    lift = linear_map("lift", given["lift"], (w, d_in), rng[0])
    readout = linear_map("readout", given["readout"], (d_out, w), rng[1])
    values: dict[str, Any] = {"lift": frozen(lift), "readout": frozen(readout)}
    if Y is None:
        values["target_scaling"] = Scaling.identity(d_out)
    return values


def _held_out(given: Mapping[str, Any]) -> dict[str, Any]:
    """Test data, which have the columns of the training data."""
    if given["X_test"] is None and given["Y_test"] is None:
        return {}
    if given["X_test"] is None or given["Y_test"] is None:
        raise ValueError("X_test, Y_test: expected both or neither, got one of them")
    X_test, Y_test = matrix("X_test", given["X_test"]), matrix("Y_test", given["Y_test"])
    for name, value, like in (("X_test", X_test, given["X"]), ("Y_test", Y_test, given["Y"])):
        if like is None or value.shape[1] != like.shape[1]:
            raise ValueError(
                f"{name}: expected {0 if like is None else like.shape[1]} columns as in "
                f"training, got {value.shape[1]}"
            )
    if len(X_test) != len(Y_test):
        raise ValueError(f"Y_test: expected {len(X_test)} rows as X_test has, got {len(Y_test)}")
    return {"X_test": frozen(X_test), "Y_test": frozen(Y_test)}


# -- single arguments ------------------------------------------------------------------------------


def positive(name: str, value: Any) -> float:
    """The value as a float; ValueError unless it is a finite number > 0."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) or \
            np.iscomplexobj(value):
        raise ValueError(f"{name}: expected a number > 0, got {brief(value)}")
    number: Any = value
    if not (finite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number > 0, got {brief(value)}")
    return float(number)


def count(name: str, value: Any, least: int) -> int:
    """The value as an int; ValueError unless it is an integer ≥ `least`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: expected an integer >= {least}, got {brief(value)}") from None
    if number < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {brief(value)}")
    return number


def matrix(name: str, value: ArrayLike) -> NDArray:
    """The value as a 2-D array of finite numbers, not empty; a map stays one.

    Targets (a name that begins with Y) may be 1-D: they are one column then.
    """
    if mapped.is_mapped(value):
        return _mapped_matrix(name, value)
    try:
        given = np.asarray(value)
        words = given.dtype.kind == "O" and any(isinstance(v, (str, bytes)) for v in given.flat)
        # Complex numbers would lose a part, dates and words become numbers that nobody meant.
        if given.dtype.kind not in "fiubO" or words:
            raise TypeError
        array = given.astype(float)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name}: expected numbers in a 2-D array, got {_found(value)}"
            f"{_instead(name, value)}") from None
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
    largest = float(np.abs(array).max())
    if largest > LARGEST:
        raise ValueError(_too_large(name, largest))
    return array


def _too_large(name: str, largest: float) -> str:
    return (f"{name}: expected numbers up to {LARGEST:g} in size, whose squares are numbers too, "
            f"got {largest:.3g}; give them in other units")


def _mapped_matrix(name: str, array: Any) -> Any:
    """The map itself, with the checks of `_matrix` made in chunks."""
    if array.ndim == 1 and name.startswith("Y"):
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        return matrix(name, np.empty(array.shape))
    bad = mapped.not_finite(array)
    if bad is not None:
        count, i, j, value = bad
        raise ValueError(_not_finite(name, count, i, j, value, array))
    if isinstance(array, StoredRows) and (largest := mapped.survey(array).moments.size.max()) > \
            LARGEST:
        raise ValueError(_too_large(name, largest))
    return array


def _not_finite(name: str, count: int, i: int, j: int, value: float, array: Any = None) -> str:
    more = f" and {count - 1} more" if count > 1 else ""
    if isinstance(array, StoredRows):
        got = "a gap or nan" if np.isnan(value) else str(value)
        return (f"{name}: {array.name}, row {i + 1}, column {array.called(j)}: expected a finite "
                f"number, got {got}{more}; rows that stay in their file have to be complete")
    return f"{name}: expected finite numbers, got {value} in row {i}, column {j}{more}"


def linear_map(
    name: str, value: Any, shape: tuple[int, int], rng: np.random.Generator
) -> NDArray:
    """A fixed map between data and representations: given, by name, or the default for None."""
    inner = 1 if name == "readout" else 0  # the side that is the width
    fits = shape[inner] >= shape[1 - inner]
    if value is None:
        value = "embedding" if fits else "orthonormal"
    if isinstance(value, str):
        if value not in MATRICES:
            raise ValueError(
                f"{name}: expected {' or '.join(MATRICES)} or a matrix, got {brief(value)}")
        if value == "embedding":
            if not fits:
                raise ValueError(
                    f"{name}: an embedding needs width >= {shape[1 - inner]}, got {shape[inner]}; "
                    "use 'orthonormal'"
                )
            return np.eye(*shape)
        return _orthonormal(rng, shape)
    given = matrix(name, value)
    if given.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {given.shape}")
    return given


def _orthonormal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray:
    """Random matrix with orthonormal columns if tall, rows if wide (Haar, by QR with signs)."""
    tall = shape[0] >= shape[1]
    frame, R = np.linalg.qr(rng.standard_normal(shape if tall else shape[::-1]))
    frame = frame * np.sign(np.diag(R))
    return frame if tall else frame.T


def _found(value: Any) -> str:
    """An array by its type, anything else as it is written."""
    if hasattr(value, "columns") and isinstance(getattr(value, "shape", None), tuple):
        return f"a {type(value).__name__} of shape {value.shape}"
    kind = getattr(value, "dtype", None)
    return brief(value) if kind is None or kind.kind == "O" else f"an array of {kind}"


def _instead(name: str, value: Any) -> str:
    """What to do about tables with words, and names of files and columns."""
    if isinstance(value, str) and name.startswith("Y"):
        return f"; take the column: frame[{brief(value)}]"
    if isinstance(value, (str, PathLike)):
        return ("; read the file with TrainingProblem.from_csv or from_parquet, or with "
                "hamshoot.open_rows where its rows stay in it")
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        kinds = dict(zip(value.columns, value.dtypes, strict=True))
        words = [str(column) for column, kind in kinds.items()
                 if getattr(kind, "kind", "f") not in "fiub"]
        if words:
            return (f" with words in {brief(', '.join(words))[1:-1]}; leave them out or encode "
                    "them, as TrainingProblem.from_csv does with categories")
    return ""


def _kept(array: Any) -> Any:
    """A map as it is, anything else frozen."""
    return array if mapped.is_mapped(array) else frozen(array)


def frozen(array: NDArray) -> NDArray:
    """Contiguous float64 copy that nobody can write to."""
    array = np.array(array, dtype=float, order="C")
    array.setflags(write=False)
    return array
