"""Predictions for new rows of a table, by a saved network or solution, in the user's units.

Columns are matched by name and read as those of training were (`hamshoot.problem.preparation`);
others are left alone. Where the table has the targets too, the error is told.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.problem.parquet_rows import PARQUET
from hamshoot.problem.preparation import (
    Column,
    Preparation,
    check_columns,
    target_numbers,
    target_words,
)
from hamshoot.problem.sheets import SEPARATORS, Sheet, decoded, read_sheet, sheet_of
from hamshoot.problem.stored_tables import new_rows
from hamshoot.solution.solution import Solution
from hamshoot.support.checks import brief
from hamshoot.support.files import load_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Predictions:
    """A table of predictions.

    Attributes
    ----------
    columns : dict of str to (list of str or ndarray)
        By name: columns that were to be kept, then a prediction for each target, or one of labels.
    targets : tuple of str
        Which of them are predicted.
    measured : dict of str to float
        Where the table had the targets: root mean squared error of each in its own units, or the
        accuracy of the classes.
    separator, decimal : str
        As the table was written.
    """

    columns: dict[str, Any]
    targets: tuple[str, ...]
    measured: dict[str, float] = field(default_factory=dict)
    separator: str = ","
    decimal: str = "."

    def __len__(self) -> int:
        return len(self.columns[self.targets[0]])

    def write(self, file: Any) -> None:
        """Write the table as CSV, numbers with all digits that tell them from their neighbours."""
        writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
        writer.writerow(self.columns)
        written = [[self._cell(value) for value in column] for column in self.columns.values()]
        writer.writerows(zip(*written, strict=True))

    def _cell(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        return repr(float(value)).replace(".", self.decimal)


def load_network(path: Path, layers: int | None = None) -> tuple[LeakyResNet, Solution | None]:
    """A saved network, or that of a saved solution, which comes along.

    Parameters
    ----------
    path : Path
        An .npz file, or the .safetensors file of a network.
    layers : int, optional
        Of the network built from a solution; by default its own, and 20 for a continuous path.

    Raises
    ------
    ValueError
        For a file of another kind, and `layers` for a network, which has its own.
    """
    elsewhere = path.suffix == ".safetensors"
    if elsewhere or "lift" in load_npz(path):  # a solution has it under its problem
        network = LeakyResNet.from_safetensors(path) if elsewhere else LeakyResNet.load(path)
        if layers is not None and layers != network.layers:
            raise ValueError(f"layers: {path.name} is a network of {network.layers} layers, got "
                             f"{layers}; a solution can be asked for others")
        return network, None
    solution = Solution.load(path)
    return solution.to_network(layers), solution


def read_new(
    source: Path | bytes, preparation: Preparation | None, separator: str | None,
    decimal: str | None, keep: Sequence[str] = (),
) -> Sheet:
    """New rows: of a CSV file or its content, of Parquet, or the X of an .npz file, without names.

    Parameters
    ----------
    source : Path or bytes
    preparation : Preparation, optional
        Its decimal comma, and a separator that is not recognised, are used where none is given.
    separator, decimal : str, optional
    keep : sequence of str
        Columns that come along as they are written.
    """
    if isinstance(source, Path) and source.suffix == ".npz":
        X = load_npz(source).get("X")
        if X is None or X.ndim != 2 or X.dtype.kind not in "fiub":
            raise ValueError(f"{source.name}: expected an array X with rows of numbers")
        columns: dict[str, Any] = {str(k): column for k, column in enumerate(X.T.astype(float))}
        return Sheet(source.name, columns, range(len(X)))
    if isinstance(source, Path) and source.suffix.lower() in PARQUET:
        return new_rows(source, keep)
    if preparation is not None:
        decimal = decimal or preparation.decimal
        if preparation.separator not in SEPARATORS:
            separator = separator or preparation.separator
    if isinstance(source, Path):
        return read_sheet(source, separator, decimal or ".")
    name = "standard input"
    return sheet_of(decoded(source, name), name, separator, decimal or ".")


def predict(network: LeakyResNet, sheet: Sheet, keep: Sequence[str] = ()) -> Predictions:
    """Predictions for the rows of a table.

    Parameters
    ----------
    network : LeakyResNet
        With the names of its inputs; without them the columns are taken in order.
    sheet : Sheet
    keep : sequence of str
        Columns of the table that come before the predictions.

    Raises
    ------
    ValueError
        For a table without rows or without a column that is needed (all are named), and cells that
        are not what they were in training, with row and column.

    Notes
    -----
    Cost O(L w² K) for K rows.
    """
    if not len(sheet):
        raise ValueError(f"{sheet.name}: expected at least 1 row of data, got 0")
    check_columns(sheet, keep, "keep: ")
    X = _inputs(network, sheet)
    columns: dict[str, Any] = {name: sheet.columns[name] for name in keep}
    if network.classes is not None:
        name = _class_name(network)
        predicted: dict[str, Any] = {name: [str(label) for label in network.predict_class(X)]}
        measured = _accuracy(sheet, name, predicted[name])
    else:
        names = network.target_names or [f"y{k + 1}" for k in range(len(network.readout))]
        predicted = dict(zip(names, network.predict(X).T, strict=True))
        measured = _errors(sheet, predicted)
    for name in keep:
        if name in predicted:
            raise ValueError(f"keep: column {brief(name)} is one that is predicted")
    return Predictions({**columns, **predicted}, tuple(predicted), measured, sheet.separator,
                       sheet.decimal)


# -- parts -----------------------------------------------------------------------------------------


def _inputs(network: LeakyResNet, sheet: Sheet) -> NDArray:
    """X (K, d_in), by name as in training; in order where neither side has names."""
    d_in = network.lift.shape[1]
    named = not sheet.name.endswith(".npz")
    if named and network.preparation is not None:
        return network.preparation.apply(sheet)
    if named and network.input_names is not None:
        return Preparation(tuple(Column(name) for name in network.input_names)).apply(sheet)
    if len(sheet.columns) != d_in:
        why = "the network knows no names of columns" if named else "an array has no names"
        raise ValueError(f"{sheet.name}: expected {d_in} columns in the order of training ({why}), "
                         f"got {len(sheet.columns)}")
    return Preparation(tuple(Column(name) for name in sheet.columns)).apply(sheet)


def _class_name(network: LeakyResNet) -> str:
    """Name of the column of labels, which the one-hot targets have before their "="."""
    classes, names = network.classes or (), network.target_names or ()
    found = {name.removesuffix(f"={label}") for name, label in zip(names, classes, strict=False)}
    return found.pop() if len(found) == 1 else "class"


def _errors(sheet: Sheet, predicted: dict[str, NDArray]) -> dict[str, float]:
    """Root mean squared errors, where the table holds all targets; a gap or a word in them ends it.

    In the units of the targets.
    """
    if not all(name in sheet.columns for name in predicted):
        return {}
    try:
        truth = {name: target_numbers(sheet, name, "") for name in predicted}
    except ValueError:
        return {}
    return {name: float(np.sqrt(np.mean((truth[name] - values) ** 2)))
            for name, values in predicted.items()}


def _accuracy(sheet: Sheet, name: str, labels: list[str]) -> dict[str, float]:
    """Share of labels that are met, where the table holds them."""
    if name not in sheet.columns:
        return {}
    cells = sheet.columns[name]
    try:
        truth = list(map(str, cells)) if isinstance(cells, np.ndarray) else \
            target_words(sheet, name)
    except ValueError:
        return {}
    return {name: float(np.mean([a == b for a, b in zip(truth, labels, strict=True)]))}
