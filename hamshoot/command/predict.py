"""`hamshoot predict`: a table of predictions for new rows."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hamshoot.solution.solution import Solution
from hamshoot.study.predict import Predictions, load_network, read_new
from hamshoot.study.predict import predict as predict_rows
from hamshoot.support.checks import brief, plain
from hamshoot.support.files import write_whole


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-o", "--output", type=click.Path(path_type=Path, allow_dash=True),
              default=Path("predictions.csv"), show_default=True,
              help="File for the predictions; - is standard output.")
@click.option("--layers", type=int, help="Layers of the network built from a solution; default "
              "its own, 20 of a continuous path.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="Column of the table that comes "
              "along, as a name or number of the rows; may be repeated.")
@click.option("--separator", help="Of the table's cells; default as its header has it.")
@click.option("--decimal", help="Of the table's numbers, '.' or ','; default as in training.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def predict(
    result: Path, table: Path, output: Path, layers: int | None, keep: Sequence[str],
    separator: str | None, decimal: str | None, force: bool, as_json: bool,
) -> int:
    """Predict for the rows of a CSV TABLE (- is standard input) by a saved RESULT.

    Columns are found by their names, in any order, and others are left alone; predictions are in
    the units of the training table, classes by their labels. Where the table has the targets too,
    the error of the predictions is told.
    """
    to_screen = str(output) == "-"
    _check_output(output, force, to_screen and as_json)
    network, solution = load_network(result, layers)
    source = sys.stdin.buffer.read() if str(table) == "-" else table
    sheet = read_new(source, network.preparation, separator, decimal, keep)
    predictions = predict_rows(network, sheet, keep)
    if to_screen:
        text = io.StringIO()
        predictions.write(text)
        click.echo(text.getvalue(), nl=False)
    else:
        write_whole(output, predictions.write, mode="w")
    note = _note(solution)
    if as_json:
        click.echo(json.dumps({
            "file": str(output), "rows": len(predictions), "targets": list(predictions.targets),
            "accuracy" if network.classes else "root_mean_squared_errors": predictions.measured,
            "note": note}, indent=2, ensure_ascii=False))
        return 0
    for line in (note, *_told(predictions, network.classes is not None)):
        if line:
            click.echo(line, err=to_screen)
    if not to_screen:
        click.echo(f"Wrote {len(predictions)} predictions of {_listed(predictions.targets)} to "
                   f"{output}")
    return 0


def _check_output(output: Path, force: bool, two_in_one: bool) -> None:
    """Raise ValueError where the file cannot be, before anything is computed."""
    if two_in_one:
        raise ValueError("--json: expected a file for the predictions with -o, since both would go "
                         "to standard output")
    if str(output) == "-":
        return
    if output.is_dir():
        raise ValueError(f"{output}: expected a file, got a directory")
    if output.exists() and not force:
        raise ValueError(f"{output}: exists; --force overwrites it, or choose another with -o")
    if not output.parent.is_dir():
        raise ValueError(f"{output.parent}: no such directory")


def _note(solution: Solution | None) -> str | None:
    """What is to be said of the network before its predictions are believed."""
    if solution is None:
        return None
    if not solution.success:
        return f"The solve did not converge ({solution.status.name.lower()}): this is its best " \
               "iterate."
    return None


def _told(predictions: Predictions, classes: bool) -> list[str]:
    """How far the predictions are from the targets that the table holds."""
    if classes:
        return [f"The table holds {brief(name)}: {share:.1%} of its labels are met."
                for name, share in predictions.measured.items()]
    return [f"The table holds {brief(name)}: the root mean squared error is {plain(error)}, "
            "in its own units." for name, error in predictions.measured.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(brief(name) for name in names[:5]) + more
