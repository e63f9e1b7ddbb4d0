"""The network of optimal control beside the trained one: five teachers, and who ends lower.

Each seed makes a teacher 6 → 2 → 6, its thirty samples and the starts. `hs.compare` then finds a
20-layer Leaky ResNet by optimal control, with its search, and by Adam: 6000 epochs from a path fit,
and again 60 000, each with the best rate and schedule of a grid; as many starts and rates as fit in
the solver's own seconds; and by optimal control once more from where Adam ended. Objectives of ReLU
networks have many local minima, so either side may win a seed: the table and the sentences below it
say who did, whether the solver came to rest, and what the certificate says of where it did.

Run ``python demos/01_optimal_network.py`` (three to five minutes): it draws
figures/01_optimal_network.png and writes results/01_optimal_network.json. ``--small`` takes one
tiny problem and seconds, and writes to ``--out DIRECTORY``, or to a temporary one; ``--draw`` makes
figure and sentences anew from the results that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import endings, labelled, places, said, verdicts, where_and_when

import hamshoot as hs
from hamshoot.study.compare import CONTINUED, CONTROL, DESCENT, EQUAL, LONGER, SAME_SECONDS

NAME = "01_optimal_network"
FULL = dict(seeds=(0, 1, 2, 3, 4), layers=20, dims=(6, 2, 6), samples=30, width=6,
            effective_depth=7.0, weight_decay=7e-3)
SMALL = dict(seeds=(0,), layers=6, dims=(3, 1, 3), samples=8, width=3,
             effective_depth=3.0, weight_decay=3e-3)
SMALL_ADAM = dict(epochs=300, sgd_epochs=100)
MARKERS = {CONTROL: "o", DESCENT: "s", LONGER: "D", SAME_SECONDS: "v", CONTINUED: "^"}
HEADER = (f"{'seed':>4}  {'J: control':>10}  {'Adam':>8}  {'Adam ×10':>8}  {'same s':>8}  "
          f"{'from Adam':>9}   "
          f"{'stationarity':^15}   {'test error':^11}   {'rank bracket':^13}   {'seconds':^11}")


def compared(seed: int, settings: dict[str, Any], optimizer: hs.Adam) -> dict[str, Any]:
    """Numbers of one seed: the rows of the comparison by name, and the wall time."""
    arguments = {k: v for k, v in settings.items() if k not in ("seeds", "layers")}
    problem = hs.teacher_problem(seed=seed, **arguments)
    clock = time.perf_counter()
    comparison = hs.compare(problem, settings["layers"], optimizer=optimizer, seed=seed,
                            longer=True)
    rows = {row.name: row.numbers for row in comparison.rows}
    for row in comparison.rows:
        if row.solution.status is hs.Status.CONVERGED:
            rows[row.name]["second_order"] = hs.certify(row.solution).second_order
    return {"seed": seed, "rows": rows, "finding": comparison.finding(),
            "wall_seconds": time.perf_counter() - clock}


def trained(rows: dict[str, Any]) -> dict[str, Any]:
    """Of the runs of Adam, the one that ended lowest."""
    return min((rows[DESCENT], rows[LONGER], rows[SAME_SECONDS]), key=lambda row: row["objective"])


def print_row(result: dict[str, Any]) -> None:
    """One line; stationarity, test error and seconds are optimal control / the best Adam."""
    rows, (a, b) = result["rows"], (result["rows"][CONTROL], trained(result["rows"]))
    stationarity = f"{a['stationarity']:.0e} / {b['stationarity']:.0e}"
    errors = f"{a['test_error']:.2f} / {b['test_error']:.2f}"
    bracket = f"{a['bottleneck_rank']:.2f} .. {a['cost_of_identity']:.2f}"
    seconds = f"{a['seconds']:.1f} / {b['seconds']:.1f}"
    print(f"{result['seed']:>4}  {a['objective']:>10.5f}  {rows[DESCENT]['objective']:>8.5f}  "
          f"{rows[LONGER]['objective']:>8.5f}  {rows[SAME_SECONDS]['objective']:>8.5f}  "
          f"{rows[CONTINUED]['objective']:>9.5f}   "
          f"{stationarity:^15}   {errors:^11}   {bracket:^13}   {seconds:^11}", flush=True)


def ended(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How the networks of each name ended, over the seeds."""
    return {name: endings(r["rows"][name] for r in results) for name in MARKERS}


def gaps(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Relative differences of objectives, one a seed; negative where optimal control is lower."""
    def of(name: str, other: str | None) -> list[float]:
        pairs = [(r["rows"][name]["objective"],
                  (r["rows"][other] if other else trained(r["rows"]))["objective"])
                 for r in results]
        return [(a - b) / b for a, b in pairs]

    return {"control_over_adam": of(CONTROL, DESCENT), "control_over_longer": of(CONTROL, LONGER),
            "control_over_same_seconds": of(CONTROL, SAME_SECONDS),
            "control_over_better_adam": of(CONTROL, None),
            "continued_over_better_adam": of(CONTINUED, None)}


def findings(results: list[dict[str, Any]]) -> list[str]:
    """Sentences with medians and ranges, whichever way it went."""
    differences = gaps(results)
    ways = {
        "control_over_same_seconds": "Optimal control's objective differs from that of Adam in "
                                     "the same seconds by",
        "control_over_adam": "From that of Adam's usual run it differs by",
        "control_over_better_adam": "From that of the best of Adam's runs it differs by",
        "continued_over_better_adam": "Started from a trained network, optimal control differs "
                                      "from the best of Adam's runs by",
    }
    lines = [f"{text} {_spread([100 * g for g in differences[key]], '+.1f', ' %')}; "
             f"{_score(results, differences[key])}." for key, text in ways.items()]
    ahead = [r["seed"] for r, g in zip(results, differences["control_over_better_adam"],
                                       strict=True) if g > EQUAL]
    if ahead:
        lines.append(f"Adam had found a lower basin than the solver's search did at "
                     f"{_seeds(ahead)}.")
    winners = [min(r["rows"], key=lambda name, r=r: r["rows"][name]["objective"]) for r in results]
    lines.append("The lowest objective of a seed is "
                 + ", ".join(f"{winners.count(name)} times that of {name}" for name in MARKERS
                             if name in winners) + ".")
    lines.append("How they ended: " + ". ".join(
        f"{name}, {said(how)}" for name, how in ended(results).items()) + ".")
    certified = [row["second_order"] for r in results for row in r["rows"].values()
                 if row.get("second_order")]
    if certified:
        lines.append(f"Certificates of what converged: {verdicts(certified)}.")
    a, b = [r["rows"][CONTROL] for r in results], [trained(r["rows"]) for r in results]
    lowest = [min(r["rows"], key=lambda name, r=r: r["rows"][name]["test_error"]) for r in results]
    by_control = sum(name in (CONTROL, CONTINUED) for name in lowest)
    lines += [
        f"Stationarity: {_spread([x['stationarity'] for x in a], '.1e')} by optimal control, "
        f"{_spread([x['stationarity'] for x in b], '.1e')} by the best Adam.",
        f"Test errors: {_spread([x['test_error'] for x in a], '.3g')} by optimal control, "
        f"{_spread([x['test_error'] for x in b], '.3g')} by the best Adam; the lowest of a seed "
        f"is optimal control's (from either start) {by_control} times of {len(results)}.",
        f"Drift of the Hamiltonian over the layers, which Euler's steps have at any optimum: "
        f"{_spread([x['hamiltonian_drift'] for x in a], '.1f')} of its median by optimal control, "
        f"{_spread([x['hamiltonian_drift'] for x in b], '.1f')} by the best Adam.",
        *(_ranks(name, rows) for name, rows in (("optimal control", a), ("the best Adam", b))),
        f"Seconds: {_spread([x['seconds'] for x in a], '.1f')} by optimal control, "
        f"{_spread([r['rows'][DESCENT]['seconds'] for r in results], '.1f')} by Adam, "
        f"{_spread([r['rows'][LONGER]['seconds'] for r in results], '.1f')} with ten times the "
        "epochs (without the grid of rates and schedules).",
    ]
    unsolved = [f"seed {r['seed']}, {name}: {row['status']}" for r in results
                for name, row in r["rows"].items() if not row["success"]]
    if unsolved:
        lines.append("Not solved: " + "; ".join(unsolved) + ".")
    return lines


def _ranks(name: str, rows: list[dict[str, Any]]) -> str:
    """Both estimates from below, as far as they were recorded, and the one from above."""
    below = {"with costate": "bottleneck_rank", "without costate": "stable_bottleneck_rank"}
    words = [f"{_spread([row[key] for row in rows], '.2f')} {what}"
             for what, key in below.items() if all(key in row for row in rows)]
    return (f"Bottleneck rank by {name}: −2H/L̃ {', '.join(words)}; least stable cost of identity "
            f"{_spread([row['cost_of_identity'] for row in rows], '.2f')}.")


def _spread(values: list[float], form: str, unit: str = "") -> str:
    """Median and range; the value alone where there is one."""
    middle = f"{np.median(values):{form}}{unit}"
    if len(values) == 1:
        return middle
    return f"{middle} (median; {min(values):{form}} to {max(values):{form}})"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _score(results: list[dict[str, Any]], differences: list[float]) -> str:
    lower = sum(g < -EQUAL for g in differences)
    higher = [r["seed"] for r, g in zip(results, differences, strict=True) if g > EQUAL]
    where = f" ({_seeds(higher)})" if higher else ""
    return f"lower at {lower} of {len(results)} seeds, higher at {len(higher)}{where}"


def draw(results: list[dict[str, Any]]) -> Any:
    """Objectives and test errors, one group of dots a seed, in the colours of `hs.plot`."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(10.0, 4.2), layout="constrained")
    axes = fig.subplots(1, 2)
    labels = {"objective": "objective $J$", "test_error": "test error (mean squared, scaled)"}
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        _dots(ax, results, key)
        ax.set_xlabel("seed (of teacher, data and start)")
        ax.set_ylabel(label)
        ax.set_xticks(range(len(results)), [str(r["seed"]) for r in results])
        ax.set_xlim(-0.5, len(results) - 0.5)
        ax.set_ylim(0, 1.08 * max(ax.dataLim.y1, 1e-12))
        ax.grid(axis="y", color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
               frameon=False)
    return fig


def _dots(ax: Any, results: list[dict[str, Any]], key: str) -> None:
    palette, how = hs.plot.colours(MARKERS), ended(results)
    shifts = dict(zip(MARKERS, np.linspace(-0.24, 0.24, len(MARKERS)), strict=True))
    for k, result in enumerate(results):
        values = [result["rows"][name][key] for name in MARKERS]
        ax.plot([k + shifts[name] for name in MARKERS], values, color="#999999", lw=0.9, zorder=1)
        for name, value in zip(MARKERS, values, strict=True):
            ax.plot(k + shifts[name], value, MARKERS[name], color=palette[name], ms=7, zorder=2,
                    label=None if k else labelled(name, how[name]))


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="one tiny problem, seconds")
    parser.add_argument("--out", type=Path, help="directory of figure and results")
    parser.add_argument("--draw", action="store_true", help="draw from the results that are there")
    given = parser.parse_args(arguments)
    out_figure, out_results = places(given.out, given.small)
    written = out_results / f"{NAME}.json"
    record = json.loads(written.read_text(encoding="utf-8")) if given.draw else studied(
        SMALL if given.small else FULL, hs.Adam(**(SMALL_ADAM if given.small else {})), arguments)
    results = record["seeds"]
    record |= {"findings": findings(results), "gaps": gaps(results), "ended": ended(results)}
    print("\n".join(record["findings"]))
    figure = hs.plot.save_figure(draw(results), out_figure / f"{NAME}.png")
    record["seeds"] = record.pop("seeds")  # the long part last
    written.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{figure}\n{written}")


def studied(settings: dict[str, Any], optimizer: hs.Adam, arguments: list[str]) -> dict[str, Any]:
    """The comparisons of all seeds, printed as they come."""
    print(HEADER)
    results = []
    for seed in settings["seeds"]:
        results.append(compared(seed, settings, optimizer))
        print_row(results[-1])
    print("Pairs are optimal control / the best of the runs of Adam.\n")
    return {**where_and_when(NAME, arguments), "settings": settings, "optimizer": repr(optimizer),
            "seeds": results}


if __name__ == "__main__":
    main()
