"""What is said of `hs.tune` against a grid is what the benchmark recorded."""

import json
import runpy
from pathlib import Path
from statistics import median

import hamshoot as hs

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"
ROWS = json.loads((BENCHMARKS / "tune.json").read_text(encoding="utf-8"))["rows"]
tune = runpy.run_path(str(BENCHMARKS / "tune.py"), run_name="tune")


def lower(name, on):
    return sum(row["tune"][on] < row[name][on] for row in ROWS)


def test_the_docstring_says_what_was_measured():
    said = " ".join(hs.tune.__doc__.split())
    same, whole = tune["NAMES"][1:]
    seconds = [median(row[name]["seconds"] for row in ROWS) for name in ("tune", whole)]
    worse = median(row["tune"]["new"] / row[whole]["new"] for row in ROWS)
    assert f"on {len(ROWS)} noisy tables" in said
    assert f"the lower held-out error in {lower(same, 'held_out')}" in said
    assert f"the lower error on new rows in {lower(same, 'new')}" in said
    assert f"in {seconds[1]:.2f} s for {seconds[0]:.2f}" in said
    assert f"in {len(ROWS) - lower(whole, 'new')}, by {100 * (worse - 1):.0f} % in" in said


def test_the_grid_had_the_seconds_of_tune_and_no_more():
    for row in ROWS:
        assert row["grid, same seconds"]["seconds"] < 1.5 * row["tune"]["seconds"] + 0.2
        assert row["grid, to its end"]["complete"]


def test_the_report_has_every_table(capsys):
    text = tune["report"](ROWS)
    assert text.startswith(f"{len(ROWS)} tables")
    assert all(name in text for name in tune["NAMES"])
