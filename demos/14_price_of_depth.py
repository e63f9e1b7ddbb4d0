"""The price of depth: how fast the optimal objective rises with L̃ is the bottleneck rank.

The least J of a Leaky ResNet is a function of its effective depth, J*(L̃) at fixed λ. By the
envelope theorem, on a geodesic of constant Hamiltonian H,

    dJ*/dL̃ = −λH/L̃ = (λ/2)(−2H/L̃):

half of λ for every dimension of the bottleneck, and for every unit of depth. Where −2H/L̃ is
negative a network gains by more depth; J* is least at the depth where H = 0, from which the network
is in its bottleneck and pays. Teachers of several ranks, of several seeds, are solved by
continuation in L̃ (`hs.IndirectShooting`, smooth ReLU, λ fixed), each depth twice more at L̃ ± h: the
slope of J* by differences of solved problems stands beside the rank, of which the differences know
nothing.

Run ``python demos/14_price_of_depth.py`` (four minutes on one core): it draws
figures/14_price_of_depth.png and writes results/14_price_of_depth.json. ``--small`` takes seconds,
and writes to ``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from common import continued, dress, listed, run, said, spread

import hamshoot as hs

NAME = "14_price_of_depth"
SETTINGS = {
    "full": dict(ranks=[1, 2, 3], seeds=[0, 1], size=5, samples=12, weight_decay=3e-3,
                 depths=[1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8]),
    "small": dict(ranks=[1], seeds=[0], size=3, samples=6, weight_decay=3e-3, depths=[1, 2, 3]),
}
#: Half the distance in L̃ of the problems that are subtracted.
STEP = 1e-3
EPSILON = 0.1
GEODESICS = "geodesics"


def problem_of(depth: float, rank: int, seed: int, settings: dict[str, Any]) -> hs.TrainingProblem:
    """A teacher through `rank` dimensions, at one effective depth."""
    size = settings["size"]
    return hs.teacher_problem(
        (size, rank, size), settings["samples"], width=size, effective_depth=depth, seed=seed,
        weight_decay=settings["weight_decay"], activation="smooth_relu", epsilon=EPSILON,
        test_samples=0)


def along(rank: int, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Geodesics of one teacher over L̃: J, the rank, and the slope of J by differences."""
    method, rows = hs.IndirectShooting(tol=1e-11, seed=0), []
    paths, failed = continued(lambda depth: problem_of(depth, rank, seed, settings),
                              settings["depths"], tol=1e-11)
    for path in paths:
        depth = path.problem.effective_depth
        sides = [method.solve(problem_of(depth + side * STEP, rank, seed, settings),
                              initial_guess=path) for side in (1, -1)]
        slope = (sides[0].objective - sides[1].objective) / (2 * STEP)
        price = 2 * slope / path.problem.weight_decay
        rows.append({
            "rank": rank, "seed": seed, "effective_depth": depth, "objective": path.objective,
            "bottleneck_rank": path.bottleneck_rank, "price": price,
            "apart": abs(price - path.bottleneck_rank),
            "slopes_solved": all(side.success for side in sides),
            "status": path.status.name, "stationarity": path.stationarity,
            "definite": bool(path.extra["definite"]),
            "descents": int(path.extra.get("descents_taken", 0)),
        })
    return rows + [{"rank": rank, "seed": seed, "failed": depth} for depth in failed]


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    """All teachers."""
    jobs = [dict(rank=rank, seed=seed, settings=settings)
            for rank in settings["ranks"] for seed in settings["seeds"]]
    found = [row for rows in each(along, jobs) for row in rows]
    return {"rows": [row for row in found if "failed" not in row],
            "failed": [row for row in found if "failed" in row]}


# -- what was found --------------------------------------------------------------------------------


def teachers(record: dict[str, Any]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Rows by rank and seed, in the order of L̃."""
    kinds: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        kinds.setdefault((row["rank"], row["seed"]), []).append(row)
    return kinds


def turning(rows: list[dict[str, Any]]) -> float | None:
    """L̃ where the rank of a teacher's geodesics passes 0, between two that were solved."""
    for one, other in pairwise(rows):
        low, high = one["bottleneck_rank"], other["bottleneck_rank"]
        if low < 0 <= high:
            share = -low / (high - low)
            return one["effective_depth"] + share * (
                other["effective_depth"] - one["effective_depth"])
    return None


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, from the record alone."""
    rows, kinds, settings = record["rows"], teachers(record), record["settings"]
    solved = [row for row in rows if row["slopes_solved"]]
    depths = sorted({row["effective_depth"] for row in rows})
    lines = [
        f"{len(rows)} geodesics of {len(kinds)} teachers of rank {listed(settings['ranks'])}, "
        f"L̃ from {depths[0]:g} to {depths[-1]:g} at λ = {settings['weight_decay']:g}: "
        f"{said(record['ended'][GEODESICS])}.",
        f"The slope of J by differences of problems solved at L̃ ± {STEP:g}, times 2/λ, and "
        f"−2H/L̃ (with costate) differ by {spread([row['apart'] for row in solved], '.1e')}, at "
        "ranks from "
        f"{min(r['bottleneck_rank'] for r in solved):.3g} to "
        f"{max(r['bottleneck_rank'] for r in solved):.3g} ({len(solved)} of {len(rows)} slopes "
        "come from two problems that were solved).",
    ]
    for (rank, seed), own in kinds.items():
        least = min(own, key=lambda row: row["objective"])
        turn, last = turning(own), own[-1]
        where = f"H changes its sign at L̃ = {turn:.2g}" if turn is not None else \
            "H does not change its sign"
        lines.append(
            f"Teacher of rank {rank}, seed {seed}: {where}, of the depths solved J is least at "
            f"L̃ = {least['effective_depth']:g} ({least['objective']:.6f}); at "
            f"L̃ = {last['effective_depth']:g} it is {last['objective']:.6f} and rises by "
            f"{last['price']:.3f} times λ/2 per unit of depth, by differences; −2H/L̃ (with "
            f"costate) is {last['bottleneck_rank']:.3f} there.")
    deepest = [own[-1] for own in kinds.values()]
    below = sum(row["bottleneck_rank"] <= row["rank"] for row in deepest)
    lines.append(
        f"At the largest L̃ the price is at most the rank of the teacher for {below} of "
        f"{len(deepest)} teachers; −2H/L̃ (with costate) exceeds it by at most "
        f"{max(row['bottleneck_rank'] - row['rank'] for row in deepest):.3f}.")
    moved = sum(row["descents"] > 0 for row in rows)
    doubtful = sum(not row["definite"] for row in rows)
    lines.append(
        f"{moved} geodesics were reached by a new descent, perhaps on another branch; the solver "
        f"failed at {len(record['failed'])} depths, and at {doubtful} geodesics the second "
        "variation is not positive on the mesh.")
    return lines


def draw(record: dict[str, Any]) -> Any:
    """J over L̃ with its tangents; the rank, and the slope of J by differences upon it."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(10.4, 4.3), layout="constrained")
    left, right = fig.subplots(1, 2)
    colours = dict(zip(record["settings"]["ranks"], hs.plot.PALETTE, strict=False))
    styles = dict(zip(record["settings"]["seeds"], ("-", "--", ":"), strict=False))
    decay = record["settings"]["weight_decay"]
    for (rank, seed), rows in teachers(record).items():
        depth, J, own, price = (np.array([row[name] for row in rows]) for name in (
            "effective_depth", "objective", "bottleneck_rank", "price"))
        name = f"teacher of rank {rank}" if seed == record["settings"]["seeds"][0] else None
        line = dict(color=colours[rank], ls=styles[seed], lw=1.4)
        left.plot(depth, J, **line, label=name)
        for at, value, slope in zip(depth, J, decay / 2 * own, strict=True):
            reach = np.array([-0.22, 0.22])
            left.plot(at + reach, value + slope * reach, color=colours[rank], lw=3.2, alpha=0.45,
                      solid_capstyle="round")
        right.plot(depth, own, **line, label=name)
        right.plot(depth, price, "o", mfc="none", mec=colours[rank], ms=5.5, mew=1.0)
    right.axhline(0, color=hs.plot.GREY, lw=0.8)
    for rank, colour in colours.items():
        right.axhline(rank, color=colour, lw=0.7, ls=(0, (1, 3)))
    low = min(0.0, *(row["bottleneck_rank"] for row in record["rows"]))
    right.set_yscale("symlog", linthresh=4, linscale=2.5)
    right.set_ylim(1.5 * low - 0.3, max(record["settings"]["ranks"]) + 1.5)
    ticks = [tick for tick in (-300, -100, -30, -10, -3, 0, 1, 2, 3, 4) if tick >= 1.5 * low - 0.3]
    right.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    right.set_yticks([], minor=True)
    dress(left, r"(a) $J^*$, thick: slope $-\lambda H/\tilde{L}$ of the geodesic", r"$\tilde{L}$",
          r"$J^*$")
    dress(right, r"(b) circles: $(2/\lambda)\,dJ^*/d\tilde{L}$ by differences", r"$\tilde{L}$",
          r"lines: $-2H/\tilde{L}$")
    left.legend(frameon=False, fontsize=9)
    return fig


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """All geodesics."""
    return {GEODESICS: record["rows"]}


def main(arguments: list[str] | None = None) -> None:
    run(NAME, __doc__ or "", SETTINGS, study, findings, draw, arguments, networks=networks)


if __name__ == "__main__":
    main()
