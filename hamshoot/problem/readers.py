"""Data for training problems: CSV and npz files, their scaling, the teacher, the test split."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.support.files import load_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Table:
    """Rows read from a file: X (N, d_in), Y (N, d_out), their names, and labels if Y is one-hot."""

    X: NDArray
    Y: NDArray
    input_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    X_test: NDArray | None = None
    Y_test: NDArray | None = None

    def arguments(self) -> dict[str, Any]:
        """What `TrainingProblem` takes, by name."""
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass(frozen=True, eq=False)
class Scaling:
    """Affine scaling of columns, v ↦ (v − mean)/scale, kept so that it can be undone.

    Attributes
    ----------
    mean, scale : ndarray, shape (d,)
        In the user's units.
    """

    mean: NDArray
    scale: NDArray

    @classmethod
    def identity(cls, d: int) -> Scaling:
        """Leave columns as they are."""
        return cls(np.zeros(d), np.ones(d))

    @classmethod
    def fit(cls, values: NDArray, kind: str, argument: str, names: Sequence[str]) -> Scaling:
        """Scaling that demeans each column and divides by its deviation, or by a common one.

        Parameters
        ----------
        values : ndarray, shape (N, d)
        kind : {"columns", "varying", "common"}
            "common" keeps the relative size of the columns (the paper's normalisation); "varying"
            scales each column as "columns" does, and of a constant one takes off the mean alone.
        argument, names
            For messages: the argument's name, and those of its columns.

        Raises
        ------
        ValueError
            If a column is constant (a deviation of 0 cannot be divided by) and `kind` is "columns",
            or all columns are and it is "common".
        """
        if len(values) < 2:
            raise ValueError(
                f"{argument}: standardising needs at least 2 rows (samples), got {len(values)}"
            )
        mean, spread, size, common = mapped.moments(values)
        constant = np.flatnonzero(spread <= 1e-13 * size)
        if kind == "common":
            if constant.size == values.shape[1]:
                raise ValueError(f"{argument}: every column is constant, expected varying data")
            return cls(mean, np.full(values.shape[1], common))
        if constant.size and kind == "varying":
            spread[constant] = 1.0
        elif constant.size:
            k = int(constant[0])
            raise ValueError(
                f"{argument}: column {names[k]!r} is constant ({values[0, k]:g} in all "
                f"{len(values)} rows) and cannot be standardised; drop it or do not standardise"
            )
        return cls(mean, spread)

    def apply(self, values: NDArray) -> NDArray:
        """Scale rows (…, d) from the user's units."""
        return (values - self.mean) / self.scale

    def invert(self, values: NDArray) -> NDArray:
        """Rows (…, d) back in the user's units."""
        return values * self.scale + self.mean

    def squares(self, values: Any) -> float:
        """Sum of the squares of the scaled numbers of all rows, read in chunks."""
        return sum(float(np.sum(self.apply(rows) ** 2)) for _, rows in mapped.chunks(values))


def read_csv(
    path: str | PathLike, targets: int | Sequence[str] = 1, drop: Sequence[str] = ()
) -> Table:
    """Read a CSV file with a header row.

    Parameters
    ----------
    path : path
        UTF-8; comma, semicolon or tab separated (recognised from the header row).
    targets : int or sequence of str
        Names of the target columns, or how many of the last columns they are.
    drop : sequence of str
        Columns to leave out.

    Returns
    -------
    Table
        One target column of strings becomes one-hot, classes in sorted order.

    Raises
    ------
    ValueError
        For a missing or empty file, rows of unequal length, unknown columns, and cells that are not
        finite numbers; each with row and column.
    """
    header, rows = _rows_of(Path(path))
    names = Path(path).name
    target_names = _target_names(targets, header, names)
    for column in drop:
        if column not in header:
            raise ValueError(f"drop: {names} has no column {column!r}; {_columns(header)}")
    overlap = sorted(set(drop) & set(target_names))
    if overlap:
        raise ValueError(f"drop: column {overlap[0]!r} is a target")
    input_names = tuple(c for c in header if c not in target_names and c not in drop)
    if not input_names:
        raise ValueError(f"{names}: no input column is left beside the targets")
    X = _numbers(names, header, rows, input_names, "inputs must be numbers: drop or encode it")
    labels = [row[header.index(target_names[0])] for row in rows]
    if len(target_names) == 1 and not _is_number(labels):
        if any(not label for label in labels):
            row = next(i for i, label in enumerate(labels) if not label)
            raise ValueError(f"{names}, row {row + 2}: the class {target_names[0]!r} is empty")
        classes = tuple(sorted(set(labels)))
        Y = (np.array(labels)[:, None] == np.array(classes)).astype(float)
        return Table(X, Y, input_names, tuple(f"{target_names[0]}={c}" for c in classes), classes)
    Y = _numbers(names, header, rows, target_names, "several targets must all be numbers")
    return Table(X, Y, input_names, target_names)


def read_npz(path: str | PathLike, mmap: bool = False) -> Table:
    """Read X, Y and, where present, X_test and Y_test from an .npz file.

    Parameters
    ----------
    path : path
    mmap : bool
        Map the arrays instead of reading them; the file has to be uncompressed.

    Raises
    ------
    ValueError
        For a missing, truncated or foreign file, one without X or Y, and a compressed one that is
        to be mapped.
    """
    path = Path(path)
    arrays = mapped.map_npz(path) if mmap else load_npz(path)
    for name in ("X", "Y"):
        if name not in arrays:
            held = ", ".join(sorted(arrays)) or "nothing"
            raise ValueError(f"{path.name}: expected arrays X and Y, it holds {held}")
        if arrays[name].ndim not in ((2,) if name == "X" else (1, 2)):
            raise ValueError(
                f"{path.name}: expected {name} with rows of samples, got shape {arrays[name].shape}"
            )
    if len(arrays["X"]) != len(arrays["Y"]):
        raise ValueError(
            f"{path.name}: expected as many rows in Y as in X, {len(arrays['X'])}, "
            f"got {len(arrays['Y'])}"
        )
    Y = arrays["Y"]
    classes = None
    if Y.dtype.kind in "US" and Y.ndim == 1:
        classes = tuple(str(c) for c in np.unique(Y))
        Y = (Y.astype(str)[:, None] == np.array(classes)).astype(float)
    elif Y.ndim == 1:
        Y = Y[:, None]
    return Table(arrays["X"], Y, classes=classes, X_test=arrays.get("X_test"),
                 Y_test=arrays.get("Y_test"))


def split_rows(table: Table, test_fraction: float, seed: int) -> Table:
    """Move a random `test_fraction` of the rows into the test set (the same rows for a seed).

    Raises
    ------
    ValueError
        If the fraction is not in [0, 1) or leaves fewer than two rows to train on.
    """
    if isinstance(test_fraction, (bool, str)) or not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction: expected a number in [0, 1), got {test_fraction!r}")
    n = len(table.X)
    n_test = round(test_fraction * n)
    if n_test == 0:
        return table
    if table.X_test is not None:
        raise ValueError("test_fraction: the file already holds X_test; set test_fraction = 0")
    if n - n_test < 2:
        raise ValueError(
            f"test_fraction: {test_fraction} of {n} rows leaves {n - n_test} to train on, "
            "expected at least 2"
        )
    order = np.random.default_rng([seed, 3]).permutation(n)
    train, test = np.sort(order[n_test:]), np.sort(order[:n_test])
    return replace(table, X=table.X[train], Y=table.Y[train], X_test=table.X[test],
                   Y_test=table.Y[test])


def teacher_data(
    dims: Sequence[int], samples: int, test_samples: int, seed: int, hidden: int = 100
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Inputs and targets of a random teacher, a composition of one-hidden-layer ReLU networks.

    Parameters
    ----------
    dims : sequence of int
        Dimensions between the networks, at least two; (30, 3, 30) has bottleneck rank 3.
    samples, test_samples : int
    seed : int
    hidden : int
        Hidden neurons of each of the composed networks.

    Returns
    -------
    X (samples, dims[0]), Y (samples, dims[-1]), X_test, Y_test : ndarray
    """
    dims = tuple(dims)
    if len(dims) < 2 or any(not isinstance(d, (int, np.integer)) or d < 1 for d in dims):
        raise ValueError(f"dims: expected at least two integers >= 1, got {dims!r}")
    for name, count, least in (("samples", samples, 2), ("test_samples", test_samples, 0)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {count!r}")
    rng = np.random.default_rng(seed)
    layers = [
        (
            rng.standard_normal((hidden, a)) / np.sqrt(a),
            0.5 * rng.standard_normal((hidden, 1)),
            rng.standard_normal((b, hidden)) / np.sqrt(hidden),
        )
        for a, b in itertools.pairwise(dims)
    ]

    def teacher(columns: NDArray) -> NDArray:
        for inner, shift, outer in layers:
            columns = outer @ np.maximum(inner @ columns + shift, 0)
        return columns

    X = rng.standard_normal((dims[0], samples))
    X_test = rng.standard_normal((dims[0], test_samples))
    return X.T, teacher(X).T, X_test.T, teacher(X_test).T


# -- reading cells ---------------------------------------------------------------------------------


def _rows_of(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.is_dir():
        raise ValueError(f"{path}: expected a CSV file, got a directory")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a UTF-8 text file, expected a CSV file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    first = text.partition("\n")[0]
    if not first.strip():
        raise ValueError(f"{path}: empty, expected a header row and data")
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter,
                            skipinitialspace=True)
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from None
    header = [name.strip() for name in rows[0]]
    if all(_float(name) is not None for name in header):
        raise ValueError(f"{path}: the first row is all numbers, expected a header of column names")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: column {twice[0]!r} appears twice in the header")
    body = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number}: expected {len(header)} cells as in the header, "
                f"got {len(row)}"
            )
        body.append([cell.strip() for cell in row])
    if len(body) < 2:
        raise ValueError(f"{path}: expected at least 2 rows of data, got {len(body)}")
    return header, body


def _target_names(targets: Any, header: list[str], name: str) -> tuple[str, ...]:
    if isinstance(targets, str):
        targets = [targets]
    if isinstance(targets, (int, np.integer)) and not isinstance(targets, bool):
        if not 1 <= targets < len(header):
            raise ValueError(
                f"targets: expected 1 to {len(header) - 1} of the {len(header)} columns of {name}, "
                f"got {targets}"
            )
        return tuple(header[-targets:])
    if (
        not isinstance(targets, Sequence) or not targets
        or not all(isinstance(t, str) for t in targets)
    ):
        raise ValueError(f"targets: expected column names or an integer, got {targets!r}")
    for target in targets:
        if target not in header:
            raise ValueError(f"targets: {name} has no column {target!r}; {_columns(header)}")
    return tuple(targets)


def _numbers(
    name: str, header: list[str], rows: list[list[str]], columns: Sequence[str], advice: str
) -> NDArray:
    places = [header.index(c) for c in columns]
    values = np.empty((len(rows), len(places)))
    for i, row in enumerate(rows):
        for k, place in enumerate(places):
            number = _float(row[place])
            if number is None or not np.isfinite(number):
                got = f"{row[place]!r}" if row[place] else "an empty cell"
                raise ValueError(
                    f"{name}, row {i + 2}, column {columns[k]!r}: expected a finite number, "
                    f"got {got} ({advice})" if number is None and row[place] else
                    f"{name}, row {i + 2}, column {columns[k]!r}: expected a finite number, "
                    f"got {got}"
                )
            values[i, k] = number
    return values


def _is_number(cells: list[str]) -> bool:
    """Whether a target column is numeric: any number in it makes it so (a typo is then found)."""
    return any(_float(cell) is not None for cell in cells)


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _columns(header: list[str]) -> str:
    shown = ", ".join(header[:8])
    return f"it has {shown}" + (f" and {len(header) - 8} more" if len(header) > 8 else "")


def table_arguments(
    read: Callable[..., Table], path: str | PathLike, options: dict[str, Any]
) -> dict[str, Any]:
    """Read a file and split it; what `TrainingProblem` takes then, by name.

    Parameters
    ----------
    read : callable
        `read_csv` or `read_npz`.
    path : path
    options : dict
        Of the reader, `test_fraction`, and everything `TrainingProblem` takes.

    Raises
    ------
    ValueError
        As the reader, and for a `test_fraction` of mapped data.
    """
    options = dict(options)
    if options.get("mmap") and options.get("test_fraction"):
        raise ValueError(
            f"test_fraction: expected 0 with mmap, got {options['test_fraction']!r}; splitting "
            "would copy the rows, so put X_test and Y_test in the file"
        )
    reading = {k: options.pop(k) for k in ("targets", "drop", "mmap") if k in options}
    table = read(path, **reading)
    table = split_rows(table, options.pop("test_fraction", 0.0), options.get("seed", 0))
    return {"standardize": True, **table.arguments(), **options}
