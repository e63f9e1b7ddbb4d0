"""How the columns of a table become inputs: as numbers, one-hot, gaps filled; kept for new rows.

What is fitted (the levels of a category, the number that stands in a gap) comes from the rows that
are trained on, and is saved with the problem and the network, so that a new table is read alike.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from hamshoot.problem.cells import is_missing, look, number, numbers
from hamshoot.problem.sheets import Sheet, check_form
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING = ("refuse", "mean", "median")
CATEGORIES = ("refuse", "one-hot")
#: Of a category: fewer levels than this are taken in any case, more where each stands for two rows.
FEW_LEVELS = 20


@dataclass(frozen=True)
class Column:
    """One input column of the user's table.

    Attributes
    ----------
    name : str
    levels : tuple of str, optional
        Of a category: one 0/1 input each.
    fill : float or str, optional
        What stands in a gap: a number, or a level.
    """

    name: str
    levels: tuple[str, ...] | None = None
    fill: float | str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that it becomes."""
        if self.levels is None:
            return (self.name,)
        return tuple(f"{self.name}={level}" for level in self.levels)


@dataclass(frozen=True)
class Preparation:
    """All input columns, in order, and how the table was read.

    Attributes
    ----------
    columns : tuple of Column
    missing : {"refuse", "mean", "median"}
        What is done about gaps: refused, or filled with that of the numbers of the column, in a
        category with the commonest level.
    decimal : {".", ","}
    separator : str, optional
    """

    columns: tuple[Column, ...]
    missing: str = "refuse"
    decimal: str = "."
    separator: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the columns of X."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def categories(self) -> bool:
        """Whether a column is a category."""
        return any(column.levels is not None for column in self.columns)

    def apply(self, sheet: Sheet) -> NDArray:
        """Inputs X (N, d_in) of new rows; columns by name, others left alone.

        Raises
        ------
        ValueError
            For columns that are not there, cells that are no numbers, gaps where none are filled,
            and levels that training has not seen; with row and column.
        """
        check_columns(sheet, [column.name for column in self.columns])
        parts = []
        for column in self.columns:
            if column.levels is None:
                values, gaps = _numbers_of(sheet, column.name, column.fill is None, _NEW_GAP)
                if column.fill is not None:
                    values = np.where(gaps, column.fill, values)
                parts.append(values[:, None])
            else:
                cells = [str(column.fill) if cell is None else cell for cell in
                         _words_of(sheet, column.name, column.fill is None, _NEW_GAP)]
                _check_known(sheet, column, cells)
                parts.append(_one_hot(cells, column.levels))
        return np.concatenate(parts, axis=1)

    def refitted(self, X: NDArray, gaps: NDArray, rows: NDArray) -> tuple[Preparation, NDArray]:
        """Levels and fills of some rows alone, and the inputs X of all rows with them.

        Parameters
        ----------
        X : ndarray, shape (N, d_in)
            As `fitted` returned it.
        gaps : ndarray of bool, shape (N, columns)
        rows : ndarray of int
            Those that are trained on. A level that none of them has is no input: 0 elsewhere.

        Raises
        ------
        ValueError
            If none of these rows has a cell of a column.
        """
        columns, parts = [], []
        for k, (column, values) in enumerate(zip(self.columns, self._parts(X), strict=True)):
            there = rows[~gaps[rows, k]]
            if not len(there):
                raise ValueError(f"column {brief(column.name)}: no row that is trained on has a "
                                 "value; leave the column out")
            if column.levels is None:
                fitted = column if self.missing == "refuse" else replace(
                    column, fill=_middle(values[there, 0], self.missing))
            else:
                seen = values[there].any(axis=0)
                levels = tuple(itertools.compress(column.levels, seen))
                values, fitted = values[:, seen], replace(column, levels=levels)
                if self.missing != "refuse":
                    fitted = replace(fitted, fill=levels[int(values[there].sum(axis=0).argmax())])
            if gaps[:, k].any():
                values = np.where(gaps[:, [k]], _filled(fitted), values)
            columns.append(fitted)
            parts.append(values)
        return replace(self, columns=tuple(columns)), np.concatenate(parts, axis=1)

    def _parts(self, X: NDArray) -> list[NDArray]:
        """The columns of X that belong to each column of the table."""
        ends = np.cumsum([len(column.names) for column in self.columns])
        return np.split(X, ends[:-1], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Any) -> Preparation:
        """Inverse of `to_dict`.

        Raises
        ------
        ValueError
            For an entry of another form.
        """
        wrong = ValueError(f"preparation: expected columns with names, got {brief(entry)}")
        if not isinstance(entry, Mapping) or set(entry) - {"columns", "missing", "decimal",
                                                           "separator"}:
            raise wrong
        columns = entry.get("columns")
        if not isinstance(columns, Sequence) or isinstance(columns, str) or not columns:
            raise wrong
        check_choices(entry.get("missing", "refuse"), "refuse")
        check_form(entry.get("separator"), entry.get("decimal", "."))
        return cls(**{**entry, "columns": tuple(_column(one, wrong) for one in columns)})


class Fitted(NamedTuple):
    """What `fitted` returns.

    Attributes
    ----------
    preparation : Preparation
    X : ndarray, shape (N, d_in)
    gaps : ndarray of bool, shape (N, columns)
        Which cells were missing.
    """

    preparation: Preparation
    X: NDArray
    gaps: NDArray


def fitted(
    sheet: Sheet, names: Sequence[str], missing: str = "refuse",
    categories: str | Sequence[str] = "refuse",
) -> Fitted:
    """Inputs of the columns of a table, and how they came about.

    Parameters
    ----------
    sheet : Sheet
    names : sequence of str
        The input columns.
    missing : {"refuse", "mean", "median"}
    categories : {"refuse", "one-hot"} or sequence of str
        Columns of words are refused, or become one-hot; or the columns named become one-hot, also
        those that hold numbers, and all others have to be numbers.

    Raises
    ------
    ValueError
        With row and column: for gaps and words that are to be refused, dates, numbers in a form
        that is not read, and a category of as many levels as texts have.
    """
    check_choices(missing, categories)
    if not isinstance(categories, str):
        check_columns(sheet, categories, "categories: ")
    refuse = missing == "refuse"
    columns, parts, masks = [], [], []
    for name in names:
        if _is_category(sheet, name, categories):
            cells = _words_of(sheet, name, refuse, _GAP)
            levels = _levels(sheet, name, cells)
            columns.append(Column(name, levels))
            parts.append(_one_hot(cells, levels))
            masks.append(np.array([cell is None for cell in cells], dtype=bool))
        else:
            values, gaps = _numbers_of(sheet, name, refuse, _GAP)
            columns.append(Column(name))
            parts.append(values[:, None])
            masks.append(gaps)
    preparation = Preparation(tuple(columns), missing, sheet.decimal, sheet.separator)
    mask = np.array(masks).T
    return Fitted(*preparation.refitted(np.concatenate(parts, axis=1), mask,
                                        np.arange(len(sheet))), mask)


def check_choices(missing: Any, categories: Any) -> None:
    """Raise ValueError unless they are among `MISSING`, and `CATEGORIES` or names of columns."""
    if not isinstance(missing, str) or missing not in MISSING:
        raise ValueError(f"missing: expected one of {', '.join(MISSING)}, got {brief(missing)}")
    if isinstance(categories, str):
        if categories not in CATEGORIES:
            raise ValueError("categories: expected 'refuse', 'one-hot' or a list of column names, "
                             f"got {brief(categories)}")
    elif not isinstance(categories, Sequence) or \
            not all(isinstance(name, str) for name in categories):
        raise ValueError("categories: expected 'refuse', 'one-hot' or a list of column names, "
                         f"got {brief(categories)}")


def check_columns(sheet: Sheet, names: Sequence[str], argument: str = "") -> None:
    """Raise ValueError unless the table has all these columns, naming those that it has not."""
    absent = [name for name in names if name not in sheet.columns]
    if not absent:
        return
    if len(absent) == 1:
        raise ValueError(f"{argument}{sheet.name} has no column {brief(absent[0])}; "
                         f"{sheet.listed()}")
    shown = ", ".join(brief(name) for name in absent[:5])
    more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
    raise ValueError(f"{argument}{sheet.name} has no columns {shown}{more}; {sheet.listed()}")


def target_numbers(sheet: Sheet, name: str, advice: str) -> NDArray:
    """Numbers of a target column, (N,); a gap is refused, since no target is filled in."""
    return _numbers_of(sheet, name, True, _TARGET_GAP, advice)[0]


def weight_numbers(sheet: Sheet, name: str) -> NDArray:
    """Weights of the samples, (N,): finite numbers >= 0, not all 0; else a ValueError names one."""
    values = _numbers_of(sheet, name, True, _WEIGHT_GAP, "weights of samples are numbers >= 0")[0]
    if np.any(values < 0):
        k = int(np.argmax(values < 0))
        raise ValueError(f"{sheet.name}, row {sheet.rows[k]}, column {brief(name)}: expected a "
                         f"weight >= 0, got {values[k]:g}")
    if not values.any():
        raise ValueError(f"{sheet.name}, column {brief(name)}: expected a weight above 0 in some "
                         "row, got 0 in all")
    return values


def target_words(sheet: Sheet, name: str) -> list[str]:
    """Labels of a target column; a gap is refused, and what is no label but a number or a date."""
    cells = _words_of(sheet, name, True, _TARGET_GAP)
    return [str(cell) for cell in cells]


def holds_numbers(sheet: Sheet, name: str) -> bool:
    """Whether a column is numeric: any number in it makes it so (a typo is then found)."""
    cells = sheet.columns[name]
    if isinstance(cells, np.ndarray):
        return True
    found = (number(cell, sheet.decimal) for cell in cells if not is_missing(cell))
    return any(value is not None for value in found)


def mistaken(sheet: Sheet, name: str) -> str | None:
    """The first cell of a column of numbers or dates in a form that is not read; else None.

    Most of its cells have to be such, so that a class may be called 5 % among others.
    """
    cells = [cell for cell in sheet.columns[name] if not is_missing(cell, words=True)]
    looks = [look(cell, sheet.decimal) for cell in cells]
    wrong = [cell for cell, seen in zip(cells, looks, strict=True)
             if seen is not None and seen.mistaken]
    return wrong[0] if 2 * len(wrong) > len(cells) else None


def refuse_cell(sheet: Sheet, name: str, cell: str, expected: str, advice: str = "") -> NoReturn:
    """Raise ValueError for a cell: its row and column, what it looks like, and what to do."""
    row = sheet.rows[list(sheet.columns[name]).index(cell)]
    seen = look(cell, sheet.decimal)
    got = brief(cell) if cell else "an empty cell"
    if seen is not None:
        advice = f"{seen.what}; {seen.advice}"
    raise ValueError(f"{sheet.name}, row {row}, column {brief(name)}: expected {expected}, got "
                     f"{got}{f' ({advice})' if advice else ''}")


# -- columns ---------------------------------------------------------------------------------------

_GAP = 'missing = "mean" or "median" fills gaps; or leave the row or the column out'
_NEW_GAP = ('the network was trained without gaps; fill the cell, or train with missing = "mean" '
            'or "median"')
_WEIGHT_GAP = "write 0 for a row that is not to count"
_TARGET_GAP = "no target is filled in; leave the row out"


def _numbers_of(
    sheet: Sheet, name: str, refuse: bool, gap: str,
    advice: str = 'inputs must be numbers: leave it out with drop, or encode it with categories = '
                  '"one-hot"',
) -> tuple[NDArray, NDArray]:
    """Numbers of a column, NaN in its gaps, and where these are; both (N,)."""
    cells = sheet.columns[name]
    quick = cells if isinstance(cells, np.ndarray) else numbers(cells, sheet.decimal)
    if quick is not None:
        return quick, np.zeros(len(quick), dtype=bool)
    values = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        value = number(cell, sheet.decimal)
        if value is not None and np.isfinite(value):
            values[i] = value
        elif is_missing(cell):
            if refuse:
                refuse_cell(sheet, name, cell, "a finite number", gap)
        else:
            refuse_cell(sheet, name, cell, "a finite number", advice if value is None else "")
    return values, np.isnan(values)


def _words_of(sheet: Sheet, name: str, refuse: bool, gap: str) -> list[str | None]:
    """Words of a column, None in its gaps."""
    wrong = mistaken(sheet, name)
    if wrong is not None and not holds_numbers(sheet, name):
        refuse_cell(sheet, name, wrong, "a number or a word")
    cells: list[str | None] = []
    for cell in sheet.columns[name]:
        if not is_missing(cell, words=True):
            cells.append(str(cell))
        elif refuse:
            refuse_cell(sheet, name, cell, "a word", gap)
        else:
            cells.append(None)
    return cells


def _is_category(sheet: Sheet, name: str, categories: str | Sequence[str]) -> bool:
    if not isinstance(categories, str):
        return name in categories
    cells = sheet.columns[name]
    return (categories == "one-hot" and not isinstance(cells, np.ndarray)
            and not holds_numbers(sheet, name) and not all(map(is_missing, cells)))


def _levels(sheet: Sheet, name: str, cells: Sequence[str | None]) -> tuple[str, ...]:
    counts = Counter(cell for cell in cells if cell is not None)
    if len(counts) > max(FEW_LEVELS, len(cells) // 2):
        raise ValueError(
            f"{sheet.name}, column {brief(name)}: expected a category, got {len(counts)} different "
            f"words in {len(cells)} rows, as of names or texts; leave it out with drop")
    return tuple(sorted(counts))


def _one_hot(cells: Sequence[str | None], levels: Sequence[str]) -> NDArray:
    place = {level: k for k, level in enumerate(levels)}
    values = np.zeros((len(cells), len(levels)))
    for i, cell in enumerate(cells):
        if cell in place:
            values[i, place[cell]] = 1.0
    return values


def _check_known(sheet: Sheet, column: Column, cells: Sequence[str]) -> None:
    levels = column.levels or ()
    unknown = set(cells) - set(levels)
    for cell in cells if unknown else ():
        if cell in unknown:
            shown = ", ".join(brief(level) for level in levels[:8])
            more = f" and {len(levels) - 8} more" if len(levels) > 8 else ""
            refuse_cell(sheet, column.name, cell, f"one of {shown}{more}, as in training")


def _middle(values: NDArray, missing: str) -> float:
    size = np.abs(values).max() or 1.0  # of the largest doubles the sum is none
    return float(size * (np.mean if missing == "mean" else np.median)(values / size))


def _filled(column: Column) -> NDArray:
    """What a column has in a gap, (1,) or (levels,)."""
    if column.levels is None:
        return np.array([column.fill])
    return np.array([float(level == column.fill) for level in column.levels])


def _column(entry: Any, wrong: ValueError) -> Column:
    if not isinstance(entry, Mapping) or set(entry) - {"name", "levels", "fill"} or \
            not isinstance(entry.get("name"), str):
        raise wrong
    levels, fill = entry.get("levels"), entry.get("fill")
    if levels is None:
        number_ = isinstance(fill, (int, float)) and not isinstance(fill, bool)
        good = fill is None or (number_ and np.isfinite(float(fill)))
        return Column(entry["name"], None, fill) if good else _raise(wrong)
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels or \
            not all(isinstance(level, str) for level in levels) or \
            (fill is not None and fill not in levels):
        raise wrong
    return Column(entry["name"], tuple(levels), fill)


def _raise(error: ValueError) -> NoReturn:
    raise error
