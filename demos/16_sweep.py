"""Optima over λ and L̃ as one call: branches, a fold, the price of depth, and what searches cost.

*A fold.* Geodesics of a smooth ReLU over the weight decay λ, by `hamshoot.sweep`. As λ grows the
path that does the task ends, and what is least is the collapsed one; the branch that ends is
followed by pseudo-arclength, through the fold at which a minimum meets a saddle, back, and through
a second fold to the collapsed minima.

*The price of depth.* On a geodesic dJ*/dL̃ = −λH/L̃ = (λ/2)·(−2H/L̃), by the envelope theorem, with
λ and everything else held: the bottleneck rank is what a little more depth costs. The sweep over L̃
has J* and H; the derivative of J* is taken from J* alone, by a spline through it in ln L̃, and
compared.

*A map.* ReLU networks over L̃ and λ, by a sweep and by a search at every point, with the same
seed and effort. Who is lower where, and what it costs in CPU seconds: a search has the one basin it
finds, a sweep passes on those of the few points that it searches, and settles between neighbours;
nothing but more searches says whether there are lower ones still.

Run ``python demos/16_sweep.py`` (a minute or two of CPU): it draws figures/16_sweep.png and writes
results/16_sweep.json. ``--small`` takes seconds, and writes to ``--out DIRECTORY``, or to a
temporary one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np
from scipy.interpolate import CubicSpline

import hamshoot as hs

NAME = "16_sweep"
#: Relative differences of J that are called the same.
SAME = 1e-6
FULL = dict(
    seed=1, dims=[3, 2, 3], samples=6, width=3, epsilon=0.1, effective_depth=3.0,
    weight_decay=3e-3, decays=[1e-3, 1.2, 12], depths=[1.5, 8.0, 15],
    networks=dict(dims=[4, 2, 4], samples=12, width=4, layers=12, depths=[2.0, 6.0, 4],
                  decays=[1e-3, 1e-1, 4], effort="quick"))
SMALL = dict(
    seed=1, dims=[2, 1, 2], samples=3, width=2, epsilon=0.2, effective_depth=2.0,
    weight_decay=1e-2, decays=[0.05, 1.5, 4], depths=[1.5, 3.0, 5],
    networks=dict(dims=[2, 1, 2], samples=5, width=2, layers=6, depths=[2.0, 3.0, 2],
                  decays=[1e-2, 1e-1, 2], effort="quick"))


def values(span: list[float]) -> list[float]:
    """So many values between two, evenly in the logarithm."""
    return [float(f"{value:.6g}") for value in np.geomspace(span[0], span[1], int(span[2]))]


def smooth(own: dict[str, Any]) -> hs.TrainingProblem:
    """The problem of the geodesics."""
    return hs.teacher_problem(
        tuple(own["dims"]), own["samples"], effective_depth=own["effective_depth"],
        width=own["width"], weight_decay=own["weight_decay"], test_samples=0, seed=own["seed"],
        activation="smooth_relu", epsilon=own["epsilon"])


def geodesics(over: str, search: int, own: dict[str, Any]) -> dict[str, Any]:
    """A sweep of geodesics: a row a point, where branches change, and curves through folds."""
    span = own["decays" if over == "weight_decay" else "depths"]
    began = time.process_time()
    found = hs.sweep(smooth(own), {over: values(span)}, "indirect", search=search, workers=1,
                     seed=own["seed"])
    record = found.to_dict()
    return {"points": [shortened(row) for row in record["points"]], "curves": record["curves"],
            "crossings": [str(one) for one in found.crossings],
            "cpu_seconds": time.process_time() - began}


def shortened(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row is looked at here."""
    names = ("effective_depth", "weight_decay", "objective", "hamiltonian", "bottleneck_rank",
             "branch", "begun", "steps", "stationarity")
    return {name: row[name] for name in names if name in row} | {"status": row["status"].upper()}


def networks(own: dict[str, Any]) -> dict[str, Any]:
    """A sweep of ReLU networks over L̃ and λ, and a search at each of its points."""
    part = own["networks"]
    depths, decays = values(part["depths"]), values(part["decays"])
    problem = hs.teacher_problem(
        tuple(part["dims"]), part["samples"], effective_depth=depths[0], width=part["width"],
        weight_decay=decays[0], test_samples=0, seed=own["seed"])
    options = dict(layers=part["layers"], effort=part["effort"], workers=1, seed=own["seed"])
    began = time.process_time()
    found = hs.sweep(problem, {"effective_depth": depths, "weight_decay": decays},
                     "single_shooting", search=3, **options)
    swept, began = time.process_time() - began, time.process_time()
    alone = [hs.solve(problem.replace(**point.values), "single_shooting", **options)
             for point in found]
    searched = time.process_time() - began
    rows = [shortened(point.row()) | {"searched": one.objective,
                                      "searched_status": one.status.name}
            for point, one in zip(found, alone, strict=True)]
    return {"rows": rows, "cpu_seconds": swept, "searched_cpu_seconds": searched,
            "branches": len({point.branch for point in found}),
            "crossings": len(found.crossings)}


def study(settings: dict[str, Any], each: Callable) -> dict[str, Any]:
    """All three."""
    # Over λ a single search, so that its branch is followed to where it ends.
    over = each(geodesics, [{"over": name, "search": search, "own": settings} for name, search in
                            (("weight_decay", 1), ("effective_depth", 3))])
    return {"decays": over[0], "depths": price(over[1], settings["weight_decay"]),
            "map": each(networks, [{"own": settings}])[0]}


def price(record: dict[str, Any], decay: float) -> dict[str, Any]:
    """The derivative of J* by L̃ of each branch, from J* alone and from H."""
    for branch in sorted({row["branch"] for row in record["points"]}):
        rows = [row for row in record["points"] if row["branch"] == branch]
        if len(rows) < 4:
            continue
        x = np.log([row["effective_depth"] for row in rows])
        slopes = CubicSpline(x, [row["objective"] for row in rows])(x, 1)
        for row, slope in zip(rows, slopes, strict=True):
            row["slope"] = float(slope / row["effective_depth"])
            row["price"] = float(-decay * row["hamiltonian"] / row["effective_depth"])
    return record


# -- findings --------------------------------------------------------------------------------------


def how(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Networks and paths, for how they ended."""
    return {"geodesics": record["decays"]["points"] + record["depths"]["points"],
            "networks": record["map"]["rows"]}


def findings(record: dict[str, Any]) -> list[str]:
    """In sentences."""
    decays, depths, grid = (record[name] for name in ("decays", "depths", "map"))
    folds = [(curve["points"][k][0], curve["points"][k][1]) for curve in decays["curves"]
             for k in curve["folds"]]
    points = decays["points"]
    lines = [f"Over λ from {points[0]['weight_decay']:g} to {points[-1]['weight_decay']:g} "
             f"{len(points)} geodesics lie on {len({row['branch'] for row in points})} branches; "
             f"{sum(row['status'] == 'COLLAPSED' for row in points)} are the collapsed one."]
    if folds:
        told = common.listed(sorted({float(f"{value:.4g}") for value, _ in folds}))
        lines.append(f"Folds: branches were followed to λ = {told}, where a minimum and a saddle "
                     "meet.")
    else:
        lines.append("Folds: none was met.")
    lines += [f"Where branches change: {text}." for text in decays["crossings"][:3]]
    checked = [row for row in depths["points"] if "slope" in row]
    inner = checked[1:-1]
    if inner:
        gaps = [abs(row["slope"] / row["price"] - 1) for row in inner]
        lines.append(f"The price of depth: dJ/dL̃ from J alone and −λH/L̃ differ by "
                     f"{np.median(gaps):.1e} in the median of {len(gaps)} values of L̃, by "
                     f"{max(gaps):.1e} at most, by a spline through {len(checked)} values.")
    first, last = depths["points"][0], depths["points"][-1]
    lines.append(f"From L̃ = {first['effective_depth']:g} to {last['effective_depth']:g} J goes "
                 f"from {first['objective']:.4g} to {last['objective']:.4g}, and −2H/L̃ (with "
                 f"costate) from {first['bottleneck_rank']:.3g} to {last['bottleneck_rank']:.3g}.")
    rows = grid["rows"]
    low = sum(row["objective"] < row["searched"] * (1 - SAME) for row in rows)
    high = sum(row["objective"] > row["searched"] * (1 + SAME) for row in rows)
    gains = [1 - row["objective"] / row["searched"] for row in rows]
    lines += [f"Of {len(rows)} ReLU networks over L̃ and λ the sweep's is lower than that of a "
              f"search at {low}, higher at {high}, the same at {len(rows) - low - high}; lower by "
              f"{100 * np.median(gains):.2f} % in the median and {100 * max(gains):.2f} % at most, "
              f"higher by {100 * max(0.0, -min(gains)):.2f} % at worst.",
              f"CPU: {grid['cpu_seconds']:.0f} s for the sweep, "
              f"{grid['searched_cpu_seconds']:.0f} s for the {len(rows)} searches; the sweep's "
              f"networks lie on {grid['branches']} branches, with {grid['crossings']} changes "
              "between neighbours."]
    ended = record["ended"]
    lines.append("How they ended: " + "; ".join(
        f"{name}: {common.said(ended[name])}" for name in ended) + ".")
    return lines


def draw(record: dict[str, Any]) -> Any:
    """J, H and rank over λ with the folds; the price of depth; the map."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12.0, 7.2), layout="constrained")
    grid = fig.subplots(2, 3)
    for ax, k, name, label in ((grid[0, 0], 1, "objective", "J"),
                               (grid[0, 1], 2, "hamiltonian", "H"),
                               (grid[0, 2], 3, "bottleneck_rank", "−2H/L̃")):
        branch_panel(ax, record["decays"], k, name)
        common.dress(ax, f"{label} of geodesics over λ", "weight decay λ", label)
    grid[0, 0].legend(fontsize=8, frameon=False)
    price_panel(grid[1, 0], record["depths"]["points"])
    map_panel(fig, grid[1, 1], record["map"]["rows"], "branch")
    map_panel(fig, grid[1, 2], record["map"]["rows"], "gain")
    return fig


def branch_panel(ax: Any, part: dict[str, Any], number: int, name: str) -> None:
    """One quantity over λ: points by branch, and the curves that were followed."""
    low, high = (part["points"][k]["weight_decay"] for k in (0, -1))
    for curve in part["curves"]:
        points = np.array([[p[0], p[number]] for p in curve["points"]])
        stable = np.array([bool(p[4]) for p in curve["points"]])
        inside = (points[:, 0] > 0.8 * low) & (points[:, 0] < 1.25 * high)
        folds = np.zeros(len(points), dtype=bool)
        folds[curve["folds"]] = True
        for kept, style, label in ((stable | folds, "-", "followed: minima"),
                                   (~stable | folds, "--", "followed: saddles")):
            ax.plot(points[:, 0], np.where(kept & inside, points[:, 1], np.nan), style,
                    color=hs.plot.GREY, lw=1.2, label=label if curve is part["curves"][0] else None)
        ax.plot(*points[folds & inside].T, "^", color=hs.plot.GREY, ms=7,
                label="folds" if curve is part["curves"][0] else None)
    for branch in sorted({row["branch"] for row in part["points"]}):
        rows = [row for row in part["points"] if row["branch"] == branch]
        ax.plot([row["weight_decay"] for row in rows], [row[name] for row in rows], "o-", ms=4,
                lw=1.4, color=hs.plot.PALETTE[branch % 8], label=f"least, branch {branch + 1}")
    ax.set_xscale("log")


def price_panel(ax: Any, rows: list[dict[str, Any]]) -> None:
    """Both derivatives over L̃."""
    rows = [row for row in rows if "slope" in row]
    x = [row["effective_depth"] for row in rows]
    ax.plot(x, [row["price"] for row in rows], "-", color=hs.plot.PALETTE[0], lw=1.6,
            label="−λH/L̃")
    ax.plot(x, [row["slope"] for row in rows], "o", color=hs.plot.PALETTE[1], ms=4,
            label="dJ/dL̃, from J alone")
    ax.axhline(0, color=hs.plot.GREY, lw=0.7)
    ax.legend(fontsize=8, frameon=False)
    common.dress(ax, "The price of depth", "effective depth L̃", "dJ/dL̃")


def map_panel(fig: Any, ax: Any, rows: list[dict[str, Any]], kind: str) -> None:
    """Branches, or by how much the sweep is lower than searches, over λ and L̃."""
    from matplotlib.colors import ListedColormap

    depths, decays = (sorted({row[name] for row in rows})
                      for name in ("effective_depth", "weight_decay"))
    shown = np.array([row["branch"] if kind == "branch" else
                      100 * (1 - row["objective"] / row["searched"]) for row in rows])
    shown = shown.reshape(len(depths), len(decays))
    if kind == "branch":
        count = int(shown.max()) + 1
        image = ax.imshow(shown, origin="lower", aspect="auto", cmap=ListedColormap(
            [hs.plot.PALETTE[k % 8] for k in range(count)]), vmin=-0.5, vmax=count - 0.5)
        title = "ReLU networks: branches"
    else:
        most = max(float(np.abs(shown).max()), 1e-9)
        image = ax.imshow(shown, origin="lower", aspect="auto", cmap="RdBu", vmin=-most, vmax=most)
        fig.colorbar(image, ax=ax, label="J lower than a search's, %")
        title = "Sweep against a search a point"
    ax.set_xticks(range(len(decays)), [f"{value:.2g}" for value in decays])
    ax.set_yticks(range(len(depths)), [f"{value:.2g}" for value in depths])
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel("weight decay λ")
    ax.set_ylabel("effective depth L̃")


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    common.run(NAME, __doc__ or "", {"full": FULL, "small": SMALL}, study, findings, draw,
               networks=how, arguments=arguments)


if __name__ == "__main__":
    main()
