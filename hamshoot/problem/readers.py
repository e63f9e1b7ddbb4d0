"""Data for training problems: CSV and npz files, the teacher, the test split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.problem import memory_map as mapped
from hamshoot.problem.cells import number
from hamshoot.problem.frames import read_large
from hamshoot.problem.parquet_rows import PARQUET
from hamshoot.problem.preparation import (
    FEW_LEVELS,
    Preparation,
    check_choices,
    check_columns,
    fitted,
    holds_numbers,
    target_numbers,
    target_words,
    weight_numbers,
)
from hamshoot.problem.scaling import Scaling as Scaling
from hamshoot.problem.sheets import Sheet, check_form, decoded, read_sheet, sheet_of
from hamshoot.problem.stored_files import is_url, source_of
from hamshoot.support.checks import brief, check_regular
from hamshoot.support.files import load_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Numbers in the largest array of a teacher's data: 8 GB.
MOST_NUMBERS = 10**9


@dataclass(frozen=True, eq=False)
class Table:
    """Rows read from a file: X (N, d_in), Y (N, d_out), their names, and labels if Y is one-hot.

    Of a CSV file also how its columns became inputs, which of them (N, columns) had gaps, and the
    weights of the samples (N,), where a column has them.
    """

    X: NDArray
    Y: NDArray
    input_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    X_test: NDArray | None = None
    Y_test: NDArray | None = None
    preparation: Preparation | None = None
    gaps: NDArray | None = None
    sample_weights: NDArray | None = None

    def arguments(self) -> dict[str, Any]:
        """What `TrainingProblem` takes, by name."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "gaps"}


def read_csv(
    path: str | PathLike, targets: int | Sequence[str] = 1, drop: Sequence[str] = (), *,
    separator: str | None = None, decimal: str = ".", missing: str = "refuse",
    categories: str | Sequence[str] = "refuse", classes: bool = False, weights: str | None = None,
) -> Table:
    """Read a CSV file with a header row.

    Parameters
    ----------
    path : path
        UTF-8, or UTF-16 with a byte order mark. Large files are read by pandas or polars where one
        is installed, see `hamshoot.problem.frames`. A URL of fsspec too.
    targets : int or sequence of str
        Names of the target columns, or how many of the last columns they are.
    drop : sequence of str
        Columns to leave out.
    separator : str, optional
        Of cells; comma, semicolon, tab and | are recognised.
    decimal : {".", ","}
    missing : {"refuse", "mean", "median"}
        Gaps in the inputs are refused, or filled with the mean or median of their column, in
        categories with the commonest level. Gaps in targets are refused.
    categories : {"refuse", "one-hot"} or sequence of str
        Input columns of words are refused, or become one-hot, one 0/1 input a level; or those that
        are named become one-hot, whatever they hold.
    classes : bool
        Whether one target column of numbers is a class.
    weights : str, optional
        Column of weights of the samples, numbers >= 0; it is no input.

    Returns
    -------
    Table
        One target column of words becomes one-hot, classes in sorted order.

    Raises
    ------
    ValueError
        For a missing or empty file, rows of unequal length, unknown columns, and cells that are not
        what they should be, dates among them and numbers in a form that is not read; each with row
        and column. Rows are numbered as in the file, its header and blank rows included.
    """
    check_reading(missing, categories, classes)
    check_form(separator, decimal)
    choices: dict[str, Any] = dict(targets=targets, drop=drop, missing=missing,
                                   categories=categories, classes=classes, weights=weights)
    if is_url(path):
        source = source_of(path)
        text = decoded(source.bytes_of(source.path), source.url)
        return table_of(sheet_of(text, source.url, separator, decimal), **choices)
    path = Path(path)
    check_regular(path, "a CSV file")
    if path.suffix.lower() in PARQUET:
        raise ValueError(f"{path}: expected a CSV file; TrainingProblem.from_parquet reads Parquet")
    if isinstance(categories, str) and not classes:
        large = read_large(path, separator, decimal)
        if large is not None:
            try:
                return table_of(large, **choices)
            except ValueError:
                pass  # the reader below says it with the row
    return table_of(read_sheet(path, separator, decimal), **choices)


def check_reading(missing: Any, categories: Any, classes: Any, lazy: Any = None) -> None:
    """Raise ValueError for options of a table that are none of theirs."""
    for name, value in (("classes", classes), ("lazy", False if lazy is None else lazy)):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: expected true or false, got {brief(value)}")
    check_choices(missing, categories)


def columns_of(sheet: Sheet, targets: Any, drop: Any, weights: Any) -> tuple[Any, list[str]]:
    """Names of the targets and of the inputs of a sheet.

    Raises
    ------
    ValueError
        For columns that there are not, or that are two things at once, and tables without an input
        or of fewer than two rows.
    """
    if len(sheet.columns) == 1:
        raise ValueError(
            f"{sheet.name}: expected columns separated by a comma, a semicolon, a tab or |, got "
            f"one column, {brief(sheet.header[0])}; name another separator by separator")
    if isinstance(drop, str) or not all(isinstance(column, str) for column in drop):
        raise ValueError(f"drop: expected a list of column names, got {brief(drop)}")
    if weights is not None:
        if not isinstance(weights, str):
            raise ValueError(f"weights: expected the name of a column, got {brief(weights)}")
        check_columns(sheet, [weights], "weights: ")
    target_names = _target_names(targets, sheet, weights)
    check_columns(sheet, drop, "drop: ")
    for name, others in (("drop", drop), ("weights", () if weights is None else (weights,))):
        overlap = sorted(set(others) & set(target_names))
        if overlap:
            raise ValueError(f"{name}: column {brief(overlap[0])} is a target")
    left_out = {*target_names, *drop, weights}
    input_names = [column for column in sheet.columns if column not in left_out]
    if not input_names:
        raise ValueError(f"{sheet.name}: no input column is left beside the targets")
    if len(sheet) < 2:
        raise ValueError(f"{sheet.name}: expected at least 2 rows of data, got {len(sheet)}")
    if "" in input_names:
        raise ValueError(
            f"{sheet.name}: column {sheet.header.index('') + 1} has no name, as row numbers of "
            'pandas; name it, or leave it out with drop = [""]')
    return target_names, input_names


def table_of(sheet: Sheet, *, targets: Any, drop: Any, missing: str,
             categories: str | Sequence[str], classes: bool, weights: str | None = None) -> Table:
    """The inputs, targets and weights of a sheet, as `read_csv` takes them."""
    target_names, input_names = columns_of(sheet, targets, drop, weights)
    preparation, X, gaps = fitted(sheet, input_names, missing, categories)
    table = Table(X, X, preparation.names, preparation=preparation, gaps=gaps,
                  sample_weights=None if weights is None else weight_numbers(sheet, weights))
    if classes and len(target_names) > 1:
        raise ValueError(f"classes: expected one target column, got {len(target_names)}")
    if classes or (len(target_names) == 1 and not holds_numbers(sheet, target_names[0])):
        return _with_classes(table, sheet, target_names[0])
    advice = "several targets must all be numbers" if len(target_names) > 1 else \
        "other cells of this target are numbers"
    Y = [target_numbers(sheet, name, advice) for name in target_names]
    return replace(table, Y=np.stack(Y, axis=1), target_names=target_names)


def _with_classes(table: Table, sheet: Sheet, target: str) -> Table:
    """The table with one target column of labels, one-hot."""
    labels = target_words(sheet, target)
    values = {label: number(label, sheet.decimal) for label in set(labels)}
    numeric = all(value is not None for value in values.values())
    classes = tuple(sorted(values, key=lambda label: (values[label] if numeric else 0, label)))
    if len(classes) > max(FEW_LEVELS, len(labels) // 2):
        raise ValueError(
            f"{sheet.name}, column {brief(target)}: expected numbers or classes, got "
            f"{len(classes)} different words in {len(labels)} rows, as of names or texts")
    Y = (np.array(labels)[:, None] == np.array(classes)).astype(float)
    return replace(table, Y=Y, classes=classes,
                   target_names=tuple(f"{target}={c}" for c in classes))


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
    check_regular(path, "an .npz file")
    arrays = mapped.map_npz(path) if mmap else load_npz(path)
    for name in ("X", "Y"):
        if name not in arrays:
            held = ", ".join(sorted(arrays)[:8]) or "nothing"
            raise ValueError(
                f"{path.name}: expected arrays X and Y, it holds {brief(held)[1:-1]}")
    for name in ("X", "Y", "X_test", "Y_test"):
        if name in arrays:
            _check_rows(path.name, name, arrays[name])
    for name in ("", "_test"):
        X, Y = arrays.get(f"X{name}"), arrays.get(f"Y{name}")
        if X is not None and Y is not None and len(X) != len(Y):
            raise ValueError(f"{path.name}: expected as many rows in Y{name} as in X{name}, "
                             f"{len(X)}, got {len(Y)}")
    Y, Y_test = arrays["Y"], arrays.get("Y_test")
    classes = None
    if Y.dtype.kind in "US":
        classes = tuple(str(c) for c in np.unique(Y.astype(str)))
        Y = _labels_one_hot(path.name, "Y", Y, classes)
        if Y_test is not None and Y_test.ndim == 1:
            Y_test = _labels_one_hot(path.name, "Y_test", Y_test, classes)
    elif Y.ndim == 1:
        Y = Y[:, None]
    return Table(arrays["X"], Y, classes=classes, X_test=arrays.get("X_test"), Y_test=Y_test)


def _check_rows(name: str, array: str, values: NDArray) -> None:
    """Raise ValueError unless an array holds rows of numbers, or one label a row in Y."""
    targets = array.startswith("Y")
    if values.ndim not in ((1, 2) if targets else (2,)):
        raise ValueError(
            f"{name}: expected {array} with rows of samples, got shape {brief(values.shape)}")
    labels = targets and values.ndim == 1 and values.dtype.kind in "US"
    if values.dtype.kind not in "fiub" and not labels:
        more = ", or a label a row" if targets else ""
        raise ValueError(
            f"{name}: expected real numbers in {array}{more}, got {brief(str(values.dtype))}")


def _labels_one_hot(name: str, array: str, labels: NDArray, classes: tuple[str, ...]) -> NDArray:
    """Labels (N,) as 0 and 1, (N, classes)."""
    words = labels.astype(str)
    unknown = words[~np.isin(words, classes)]
    if len(unknown):
        raise ValueError(f"{name}: expected labels of Y in {array}, got {brief(str(unknown[0]))}")
    return (words[:, None] == np.array(classes)).astype(float)


def split_rows(table: Table, test_fraction: float, seed: int) -> Table:
    """Move a random `test_fraction` of the rows into the test set (the same rows for a seed).

    Levels of categories, and what stands in gaps, are those of the rows that stay; a level that
    none of these has is left out. Weights of the test rows have no part in what follows.

    Raises
    ------
    ValueError
        If the fraction is not in [0, 1) or leaves fewer than two rows to train on.
    """
    numeric = isinstance(test_fraction, (int, float, np.number))
    if isinstance(test_fraction, bool) or not numeric or not 0 <= test_fraction < 1:
        raise ValueError(
            f"test_fraction: expected a number in [0, 1), got {brief(test_fraction)}")
    n = len(table.X)
    n_test = round(test_fraction * n)
    if n_test == 0:
        return table
    if mapped.is_mapped(table.X):
        raise ValueError(
            f"test_fraction: expected 0 where rows stay in their file, got {test_fraction!r}; "
            "splitting would copy them, so give the problem X_test and Y_test")
    if table.X_test is not None:
        raise ValueError("test_fraction: the file already holds X_test; set test_fraction = 0")
    if n - n_test < 2:
        raise ValueError(
            f"test_fraction: {test_fraction} of {n} rows leaves {n - n_test} to train on, "
            "expected at least 2"
        )
    order = np.random.default_rng([seed, 3]).permutation(n)
    train, test = np.sort(order[n_test:]), np.sort(order[:n_test])
    if table.preparation is not None and table.gaps is not None:
        preparation, X = table.preparation.refitted(table.X, table.gaps, train)
        table = replace(table, X=X, preparation=preparation, input_names=preparation.names)
    weights = None if table.sample_weights is None else table.sample_weights[train]
    return replace(table, X=table.X[train], Y=table.Y[train], X_test=table.X[test],
                   Y_test=table.Y[test], sample_weights=weights)


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
    if not isinstance(dims, Iterable):
        raise ValueError(f"dims: expected at least two integers >= 1, as (6, 2, 6), got "
                         f"{brief(dims)}")
    dims = tuple(dims)
    if len(dims) < 2 or any(
            not isinstance(d, (int, np.integer)) or isinstance(d, bool) or d < 1 for d in dims):
        raise ValueError(f"dims: expected at least two integers >= 1, got {brief(dims)}")
    for name, count, least in (("samples", samples, 2), ("test_samples", test_samples, 0)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {brief(count)}")
    most = max(int(samples), int(test_samples), hidden) * max(*map(int, dims), hidden)
    if most > MOST_NUMBERS:
        raise ValueError(f"samples, dims: expected arrays of at most {MOST_NUMBERS:.0e} numbers, "
                         f"got {brief(most)} in the largest")
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


# -- arguments -------------------------------------------------------------------------------------


def _target_names(targets: Any, sheet: Sheet, weights: str | None) -> tuple[str, ...]:
    """Names of the targets; counted are the last columns besides the one of weights."""
    header = [column for column in sheet.header if column != weights]
    if isinstance(targets, str):
        targets = [targets]
    if isinstance(targets, (int, np.integer)) and not isinstance(targets, bool):
        if not 1 <= targets < len(header):
            raise ValueError(
                f"targets: expected 1 to {len(header) - 1} of the {len(header)} columns of "
                f"{sheet.name}, got {brief(targets)}"
            )
        return tuple(header[-targets:])
    if (
        not isinstance(targets, Sequence) or not targets
        or not all(isinstance(t, str) for t in targets)
    ):
        raise ValueError(f"targets: expected column names or an integer, got {brief(targets)}")
    check_columns(sheet, targets, "targets: ")
    if len(set(targets)) < len(targets):
        raise ValueError(f"targets: expected each column once, got {brief(targets)}")
    return tuple(targets)


#: Options of the readers; everything else is one of `TrainingProblem`, or of `split_rows`.
READING = ("targets", "drop", "separator", "decimal", "missing", "categories", "mmap", "weights",
           "lazy", "storage_options")


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
    reading = {k: options.pop(k) for k in READING if k in options}
    if isinstance(options.get("classes"), bool):  # otherwise they are labels
        reading["classes"] = options.pop("classes")
    table = read(path, **reading)
    if table.sample_weights is not None and options.get("sample_weights") is not None:
        raise ValueError("sample_weights: expected none beside a column of weights")
    table = split_rows(table, options.pop("test_fraction", 0.0), options.get("seed", 0))
    return {"standardize": True, **table.arguments(), **options}
