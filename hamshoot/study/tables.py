"""Tables as text: the comparison, and one solution."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: Field of the summary, label in the table, format.
QUANTITIES = (
    ("success", "solved", "flag"),
    ("status", "status", "text"),
    ("objective", "objective J", ".8g"),
    ("loss", "loss (train error)", ".5g"),
    ("test_error", "test error", ".5g"),
    ("train_accuracy", "train accuracy", ".1%"),
    ("test_accuracy", "test accuracy", ".1%"),
    ("parameter_norm", "parameter norm ∫‖W‖²", ".6g"),
    ("map_decay", "weight decay of learned maps", ".5g"),
    ("stationarity", "stationarity", ".1e"),
    ("second_order", "second order", "verdict"),
    ("kinks", "activations on the kink", "d"),
    ("idle_kinks", "of them of dead neurons", "d"),
    ("hamiltonian", "Hamiltonian H", ".5g"),
    ("hamiltonian_drift", "Hamiltonian drift", ".1e"),
    ("bottleneck_rank", "bottleneck rank −2H/L̃", ".4g"),
    ("stable_bottleneck_rank", "the same without costate", ".4g"),
    ("cost_of_identity", "min cost of identity", ".4g"),
    ("iterations", "iterations", "d"),
    ("seconds", "seconds", ".2f"),
    ("cpu_seconds", "CPU seconds, all told", ".2f"),
    ("runs", "runs that fitted", "d"),
)


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Quantities down, methods across; quantities that no method has are left out."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for row in rows:
        table.add_column(row.get("name", row.get("method", "")), justify="right")
    for key, label, form in QUANTITIES:
        values = [row.get(key) for row in rows]
        if any(value is not None for value in values):
            table.add_row(label, *(_cell(value, form) for value in values))
    return table


def cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """`comparison_table` as texts: the header, and the lines, each with its label first."""
    columns = comparison_table(rows).columns
    lines = zip(*([str(cell) for cell in column.cells] for column in columns), strict=True)
    return [str(column.header) for column in columns], [list(line) for line in lines]


def text_table(rows: Sequence[dict[str, Any]], width: int = 110) -> str:
    """`comparison_table` as plain text."""
    return _text(comparison_table(rows), width)


def _text(table: Table, width: int = 110) -> str:
    from rich.console import Console

    file = io.StringIO()
    # In a notebook rich would display the table and write nothing.
    Console(file=file, width=width, no_color=True, force_jupyter=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


#: Field of a try, heading, format.
TRIED = (("weight_decay", "λ", ".3g"), ("effective_depth", "L̃", ".3g"), ("width", "width", "d"),
         ("error", "held-out error", ".5g"), ("accuracy", "accuracy", ".1%"),
         ("objective", "objective J", ".6g"), ("status", "status", "text"),
         ("begun", "begun", "text"), ("seconds", "seconds", ".2f"))


def tries_table(tries: Sequence[dict[str, Any]]) -> str:
    """Tries down, quantities across, as text; the chosen one is marked."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = [one for one in TRIED if any(row.get(one[0]) is not None for row in tries)]
    for key, label, _ in shown:
        table.add_column(label, justify="left" if key in ("status", "begun") else "right")
    table.add_column("")
    for row in tries:
        table.add_row(*(_cell(row.get(key), form) for key, _, form in shown),
                      "← chosen" if row["chosen"] else "")
    return _text(table, 140)


#: Field of a point of a sweep, heading, format; what it was over comes before.
POINTS = (("objective", "objective J", ".8g"), ("loss", "loss", ".4g"),
          ("test_error", "test error", ".4g"), ("hamiltonian", "H", ".5g"),
          ("bottleneck_rank", "rank −2H/L̃", ".4g"), ("branch", "branch", "d"),
          ("status", "status", "text"), ("begun", "begun", "text"),
          ("predicted", "predicted", "text"), ("steps", "solves", "d"),
          ("seconds", "seconds", ".2f"))


def points_table(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Points of a sweep down, parameters and quantities across, as text."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    symbols = {"effective_depth": "L̃", "weight_decay": "λ", "epsilon": "ε"}
    shown = [(name, symbols.get(name, name), ".4g") for name in names]
    shown += [one for one in POINTS if any(row.get(one[0]) is not None for row in rows)]
    for key, label, _ in shown:
        left = key in ("status", "begun", "predicted")
        table.add_column(label, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(key), form) for key, _, form in shown))
    return _text(table, 170)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "–"
    if form == "flag":
        return "yes" if value else "NO"
    if form == "text":
        return str(value)
    if form == "verdict":  # without its numbers
        return str(value).split(":")[0].split(" of the ")[0]
    return format(value, form)
