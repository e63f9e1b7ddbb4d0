"""Separation of timescales: where along its depth does a Leaky ResNet move, and where does it stay?

The paper: as L̃ grows, representations jump to a bottleneck, drift along it at leisure and jump to
the outputs, and nearly all of the depth is spent at the minimal cost of identity. It saw jumps at
the two ends, and never one in the middle. Here are exact geodesics of a smooth ReLU:

* a teacher of inner dimensions 8 → 4 → 2 → 8, continued over L̃: relative speed ‖∂_pA‖/‖A‖ and
  stable cost of identity along p, the share of depth within 5 % of the least, and the widths of the
  jumps at both ends, by themselves and times L̃;
* a search for jumps in the middle, in that teacher and in problems that ask for one: one input x,
  two neurons, and a target that folds x twice, y = f(f(x)) with f(x) = 2|x| − 1. Each fold needs
  both neurons, so that the path has to pass through dimension 2 twice and can rest at 1 between.
  One path is continued from small L̃, the others start from guesses that put the second fold at
  some p within. A jump in the middle is a local maximum of the relative speed at p in [1/4, 3/4]
  that exceeds 3 times the median over p;
* the same search in the paper's teacher 30 → 6 → 3 → 30, which is too wide for geodesics: networks
  of 60 layers by single shooting, their speeds from layer to layer. Their iterations do not suffice
  to converge, so that what they show is that of networks on their way.

Run ``python demos/07_timescales.py`` (eight to fifteen minutes): it draws
figures/07_timescales.png and writes results/07_timescales.json. ``--small`` takes a small teacher
and seconds, and writes to ``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

from typing import Any

import common
import numpy as np

import hamshoot as hs
from hamshoot.theory import energies

NAME = "07_timescales"
DECAY = 1e-3  # λ/L̃ of the teacher, as in the paper
FOLD_DECAY = 3e-4  # of the folds, whose targets ask for more
GAMMA0 = 1e-3  # of the stable cost of identity
NEAR = 1.05  # times the least cost of identity counts as being at it
JUMP = 3.0  # times the median speed
LAYERED = "single shooting"
FULL = dict(seed=0, dims=(8, 4, 2, 8), width=8, samples=40, depths=(1, 2, 3, 5, 7, 10),
            fold_depths=(10, 12, 14), lead=(3, 5, 7), fold_samples=9,
            starts=("identity", "0.5", "0.7"), points=401,
            wide=dict(dims=(30, 6, 3, 30), width=40, samples=300, layers=60, iterations=3000,
                      depths=(3, 7, 15), seeds=(0, 1, 2)))
SMALL = dict(seed=0, dims=(3, 2, 1, 3), width=3, samples=5, depths=(1, 2), fold_depths=(3,),
             lead=(), fold_samples=3, starts=("identity",), points=101,
             wide=dict(dims=(4, 3, 2, 4), width=5, samples=12, layers=12, iterations=100,
                       depths=(2, 4), seeds=(0,)))


# -- problems --------------------------------------------------------------------------------------


def teacher(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Geodesics of the teacher over L̃."""
    def problem_of(depth: float) -> hs.TrainingProblem:
        return hs.teacher_problem(
            settings["dims"], samples=settings["samples"], width=settings["width"],
            seed=settings["seed"], effective_depth=depth, weight_decay=DECAY * depth,
            activation="smooth_relu", test_samples=0)

    paths, failed = common.continued(problem_of, settings["depths"])
    return [*(described(path, settings["points"]) for path in paths),
            *({"effective_depth": depth} for depth in failed)]


def folds(start: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Geodesics of the twice folded input over L̃, from the identity or with the second fold at p.

    The identity is the start at the least L̃, from where the path is continued.
    """
    x = np.linspace(-1, 1, settings["fold_samples"])[:, None]
    y = fold(fold(x))

    def problem_of(depth: float) -> hs.TrainingProblem:
        # Inputs x + 1 are not negative, so that ReLU keeps them.
        return hs.TrainingProblem(x + 1, y, width=2, activation="smooth_relu",
                                  effective_depth=depth, weight_decay=FOLD_DECAY * depth)

    depths = list(settings["fold_depths"])
    if start == "identity":
        paths, failed = common.continued(problem_of, [*settings["lead"], *depths], start=start)
    else:
        first = hs.IndirectShooting().solve(
            problem_of(depths[0]), initial_guess=folding_weights(depths[0], float(start)))
        paths, failed = common.continued(problem_of, depths, first=first)
    return [*(described(path, settings["points"]) for path in paths),
            *({"effective_depth": depth} for depth in failed)]


def fold(x: np.ndarray) -> np.ndarray:
    return 2 * np.abs(x) - 1


def folding_weights(depth: float, second: float) -> np.ndarray:
    """Weights (L, 2, 3) of an Euler network, L = L̃ + 1, that folds at p = 0 and p = second.

    With steps of about 1/L̃ a layer forgets its input and is one of a fully connected network:
    A_ℓ = W_ℓ σ̂(A_{ℓ−1})/L̃. The first neuron holds x + 1; a fold takes two layers,
    (x + 1) ↦ (x, −x) ↦ 2σ(x) + 2σ(−x) = f(x) + 1.
    """
    layers = int(depth) + 1
    W = np.zeros((layers, 2, 3))
    W[:, 0, 0] = 1
    for k in (0, round(second * layers)):
        W[k] = [[1, 0, -1], [-1, 0, 1]]
        W[k + 1] = [[2, 2, 0], [0, 0, 0]]
    W[-1, 0, 2] = -1  # back from f(f(x)) + 1
    return depth * W


def layered(effective_depth: float, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A layered network of the wide teacher, by single shooting."""
    problem = hs.teacher_problem(
        settings["dims"], samples=settings["samples"], width=settings["width"], seed=seed,
        effective_depth=effective_depth, weight_decay=DECAY * effective_depth)
    network = hs.solve(problem, hs.DirectSingleShooting(
        layers=settings["layers"], seed=seed, optimizer="kronecker",
        max_iter=settings["iterations"]))
    A, steps = network.representations, network.steps
    p = network.p[:-1] + steps / 2
    between = (A[:-1] + A[1:]) / 2
    speed = np.linalg.norm(np.diff(A, axis=0), axis=(1, 2)) / steps / np.linalg.norm(
        between, axis=(1, 2))
    coi = network.energies(GAMMA0).stable_cost_of_identity
    return {
        "effective_depth": effective_depth, "seed": seed, "objective": network.objective,
        "loss": network.loss, "stable_rank": network.stable_bottleneck_rank,
        "stationarity": network.stationarity, "status": network.status.name,
        **measured(p, speed, coi), "p": [float(f"{v:.4g}") for v in p],
    }


# -- what is measured ------------------------------------------------------------------------------


def described(path: hs.Solution, points: int) -> dict[str, Any]:
    """Speed and cost of identity along p, and what is read off them."""
    p = np.linspace(0, 1, points)
    moved, size = common.speeds(path, p)
    speed, problem, at = moved / size, path.problem, path.at(p)
    node = dict(activation=path.activation, bias=problem.bias)
    coi = np.array([
        energies.cost_of_identity(A, gamma=energies.stability_shift(A, GAMMA0, **node), **node)
        for A in at.representations])
    middle = np.linalg.svd(path.at(0.5).representations, compute_uv=False)
    return {
        "effective_depth": problem.effective_depth, "objective": path.objective,
        "loss": path.loss, "bottleneck_rank": path.bottleneck_rank,
        "status": path.status.name, "stationarity": path.stationarity,
        "drift": path.hamiltonian_drift, "descents": path.extra.get("descents_taken", 0),
        "seconds": path.seconds, "middle": [float(s) for s in middle], **measured(p, speed, coi),
    }


def measured(p: np.ndarray, speed: np.ndarray, coi: np.ndarray) -> dict[str, Any]:
    """What is read off speed and cost of identity along p."""
    return {
        "median_speed": float(np.median(speed)), "least_coi": float(coi.min()),
        "near": float(np.mean(coi <= NEAR * coi.min())), "widths": widths(p, speed),
        "peaks": peaks(p, speed), "speed": [float(f"{v:.4g}") for v in speed],
        "coi": [float(f"{v:.4g}") for v in coi],
    }


def widths(p: np.ndarray, speed: np.ndarray) -> list[float]:
    """Depth from either end to where the speed first is half way from that end to its least."""
    found = []
    for q, v in ((p, speed), (1 - p[::-1], speed[::-1])):
        half = (v[0] + v.min()) / 2
        k = int(np.argmax(v < half))
        found.append(float(np.interp(-half, [-v[k - 1], -v[k]], [q[k - 1], q[k]])) if k else 1.0)
    return found


def peaks(p: np.ndarray, speed: np.ndarray) -> list[list[float]]:
    """Positions and heights, over the median, of local maxima at p in [1/4, 3/4]."""
    inner = np.flatnonzero((p >= 0.25) & (p <= 0.75))
    return [[float(p[k]), float(speed[k] / np.median(speed))] for k in inner
            if speed[k] > speed[k - 1] and speed[k] >= speed[k + 1]]


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    keys = ("fold_depths", "lead", "fold_samples", "points")
    given = {key: settings[key] for key in keys}
    found = each(folds, [{"start": start, "settings": given} for start in settings["starts"]])
    keys = ("dims", "width", "samples", "seed", "depths", "points")
    given = {key: settings[key] for key in keys}
    wide = settings["wide"]
    networks = each(layered, [
        {"effective_depth": depth, "seed": seed, "settings": wide}
        for depth in wide["depths"] for seed in wide["seeds"]])
    return {"teacher": each(teacher, [{"settings": given}])[0], "wide": networks,
            "folds": dict(zip(settings["starts"], found, strict=True))}


# -- findings --------------------------------------------------------------------------------------


def solved(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "objective" in row]


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The layered networks, and the geodesics whose status was recorded."""
    paths = [record["teacher"], *record["folds"].values()]
    return {LAYERED: record["wide"],
            "exact geodesic": [row for rows in paths for row in rows if "status" in row]}


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    settings = record["settings"]
    rows = solved(record["teacher"])
    first, last = rows[0], rows[-1]
    dims = " → ".join(map(str, settings["dims"]))
    lines = [
        f"Teacher {dims}, w = {settings['width']}, N = {settings['samples']}: {len(rows)} "
        f"geodesics, L̃ from {first['effective_depth']:g} to {last['effective_depth']:g}; the "
        f"Hamiltonian drifts by at most {max(row['drift'] for row in rows):.0e}.",
        *(timescales(row) for row in (first, last)),
        ends(first, last), stay(first, last),
        *middle(record), *wide(record),
    ]
    every = {"teacher": record["teacher"], **record["folds"]}
    for name, found in every.items():
        failed = [row["effective_depth"] for row in found if "objective" not in row]
        if failed:
            lines.append(f"No geodesic was found at L̃ = {common.listed(failed)} ({name}).")
    return lines


def contrast(row: dict[str, Any]) -> float:
    """Mean speed at the ends over the median."""
    return float((row["speed"][0] + row["speed"][-1]) / 2 / row["median_speed"])


def timescales(row: dict[str, Any]) -> str:
    depth, (left, right) = row["effective_depth"], row["widths"]
    return (f"At L̃ = {depth:g} the relative speed is {row['speed'][0]:.2f} at p = 0, "
            f"{row['median_speed']:.2f} in the median and {row['speed'][-1]:.2f} at p = 1; the "
            f"jumps are {left:.3f} and {right:.3f} wide at half height, times L̃ {left * depth:.2f} "
            f"and {right * depth:.2f}; −2H/L̃ = {row['bottleneck_rank']:.2f} with costate, least "
            f"stable cost of identity {row['least_coi']:.2f}.")


def ends(first: dict[str, Any], last: dict[str, Any]) -> str:
    ratios = contrast(first), contrast(last)
    agree = ratios[1] > 3 and ratios[1] > 1.5 * ratios[0]
    return (f"Jumps at both ends at large L̃: {'agree' if agree else 'does not agree'}. Ends over "
            f"median {ratios[0]:.2f} at L̃ = {first['effective_depth']:g}, {ratios[1]:.2f} at "
            f"L̃ = {last['effective_depth']:g}.")


def stay(first: dict[str, Any], last: dict[str, Any]) -> str:
    agree = last["near"] > 0.5
    return (f"Most of the depth at the least cost of identity: "
            f"{'agree' if agree else 'does not agree'} up to L̃ = {last['effective_depth']:g}. The "
            f"share within {NEAR - 1:.0%} of it is "
            f"{first['near']:.0%} at L̃ = {first['effective_depth']:g} and {last['near']:.0%} at "
            f"L̃ = {last['effective_depth']:g}.")


def wide(record: dict[str, Any]) -> list[str]:
    """The paper's teacher, in layers."""
    settings, rows = record["settings"]["wide"], record["wide"]
    jumps = [row for row in rows if highest(row)[1] > JUMP]
    top = max(highest(row)[1] for row in rows)
    words = []
    for depth in settings["depths"]:
        those = [row for row in rows if row["effective_depth"] == depth]
        words.append(
            f"ends over median {common.spread([contrast(row) for row in those], '.2f')}, share of "
            f"depth within {NEAR - 1:.0%} of the least cost of identity "
            f"{common.spread([row['near'] for row in those], '.0%')}, −2H/L̃ without costate "
            f"{common.spread([row['stable_rank'] for row in those], '.2f')} at L̃ = {depth:g} "
            f"({common.said(common.endings(those))})")
    dims = " → ".join(map(str, settings["dims"]))
    return [f"The paper's teacher {dims}, w = {settings['width']}, N = {settings['samples']}, "
            f"{len(rows)} networks of {settings['layers']} layers by single shooting: jumps in "
            f"the middle {f'in {len(jumps)}' if jumps else 'in none'}, the highest maximum within "
            f"[1/4, 3/4] is {top:.2f} times the median. After at most {settings['iterations']} "
            f"iterations {common.said(common.endings(rows))}.",
            f"Teacher {dims}: {'; '.join(words)}."]


def label(start: str) -> str:
    """How a path of the double fold was begun."""
    return "continued from small L̃" if start == "identity" else \
        f"with its second fold put at p = {start}"


def highest(row: dict[str, Any]) -> list[float]:
    """Of the maxima of speed in the inner half: position and height; height 0 for none."""
    return max(row["peaks"], key=lambda peak: peak[1], default=[0.5, 0.0])


def distinct(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Geodesics by name; of those with the same L̃ and J to six digits the first alone."""
    seen: set[tuple[float, str]] = set()
    groups: dict[str, list[dict[str, Any]]] = {}
    every = {"the teacher": record["teacher"],
             **{f"the double fold {label(start)}": rows
                for start, rows in record["folds"].items()}}
    for name, rows in every.items():
        for row in solved(rows):
            key = row["effective_depth"], f"{row['objective']:.6g}"
            if key not in seen:
                seen.add(key)
                groups.setdefault(name, []).append(row)
    return groups


def middle(record: dict[str, Any]) -> list[str]:
    """The search for jumps in the middle."""
    groups = distinct(record)
    total = [row for rows in groups.values() for row in rows]
    again = sum(len(solved(rows)) for rows in (record["teacher"], *record["folds"].values()))
    again -= len(total)
    jumps = [row for row in total if highest(row)[1] > JUMP]
    lines = [f"Jumps in the middle (a local maximum of the speed at p in [1/4, 3/4] above {JUMP:g} "
             f"times the median): {f'{len(jumps)} found' if jumps else 'none was found'} in "
             f"{len(total)} geodesics"
             + (f" ({again} more are the same ones, found again from another start)." if again
                else ".")]
    for name, rows in groups.items():
        words = [(f"p = {highest(row)[0]:.3f}, {highest(row)[1]:.2f} times the median"
                  if row["peaks"] else "none") + f" (L̃ = {row['effective_depth']:g})"
                 for row in rows]
        lines.append(f"Highest maxima within [1/4, 3/4] in {name}: {', '.join(words)}.")
    for name, rows in groups.items():
        positions = [highest(row)[0] for row in rows if highest(row)[1] > JUMP]
        if len(positions) > 1:
            steps = np.diff(np.abs(np.array(positions) - 0.5))
            lines.append(
                f"The jump in {name} {'moves towards an end' if np.all(steps > 0) else 'stays'} as "
                f"L̃ grows, from p = {positions[0]:.3f} to {positions[-1]:.3f}.")
        if positions:
            lines.append(between_rests(name, rows[-1]))
    compared = _folds_compared(record["folds"]) if len(record["folds"]) > 1 else None
    return [*lines, *filter(None, [compared])]


def fastest(row: dict[str, Any]) -> float:
    """Where the speed is largest away from both ends: p in [1/10, 9/10]."""
    p, speed = places(row), np.array(row["speed"])
    return float(p[np.argmax(np.where((p >= 0.1) & (p <= 0.9), speed, 0))])


def between_rests(name: str, row: dict[str, Any]) -> str:
    """Cost of identity on both sides of its highest point within."""
    coi = np.array(row["coi"])
    p = np.linspace(0, 1, len(coi))
    top = int(np.argmax(np.where((p >= 0.05) & (p <= 0.95), coi, 0)))
    before, after = int(np.argmin(coi[:top])), top + int(np.argmin(coi[top:]))
    return (f"Cost of identity in {name}, L̃ = {row['effective_depth']:g}: {coi[before]:.2f} at "
            f"p = {p[before]:.3f}, {coi[top]:.3g} at p = {p[top]:.3f}, {coi[after]:.2f} at "
            f"p = {p[after]:.3f}.")


def _folds_compared(found: dict[str, list[dict[str, Any]]]) -> str:
    by_depth = {start: {row["effective_depth"]: row for row in solved(rows)}
                for start, rows in found.items()}
    shared = set.intersection(*(set(rows) for rows in by_depth.values()))
    if not shared:
        return "The starts of the double fold have no depth in common at which all were solved."
    depth = max(shared)
    words = [f"J = {rows[depth]['objective']:.5f} (loss {rows[depth]['loss']:.1e}, fastest within "
             f"[1/10, 9/10] at p = {fastest(rows[depth]):.2f}) {label(start)}"
             for start, rows in by_depth.items()]
    return f"At L̃ = {depth:g} the double fold has {', '.join(words)}."


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Speed, cost of identity and widths of the teacher above; the double folds below."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(17.0, 7.8), layout="constrained")
    axes = fig.subplots(2, 4)
    rows = solved(record["teacher"])
    shown = [rows[k] for k in sorted({0, len(rows) // 3, 2 * len(rows) // 3, len(rows) - 1})]
    speeds(axes[0, 0], shown, "(a) speed, teacher")
    costs(axes[0, 1], shown, "(b) cost of identity, teacher")
    _over_depth(axes[0, 2], rows)
    for ax, letter, start in zip(axes[1], "de", record["folds"], strict=False):
        begun = label(start).replace("L̃", "$\\tilde{L}$").replace("p =", "$p$ =")
        speeds(ax, folded(record, start), f"({letter}) double fold {begun}", jump=True)
    start = list(record["folds"])[min(1, len(record["folds"]) - 1)]
    costs(axes[1, 2], folded(record, start), f"(f) cost of identity, as in ({letter})")
    for ax in axes[1, len(record["folds"]):2]:
        ax.set_visible(False)
    wide = [row for row in record["wide"] if row["seed"] == record["wide"][0]["seed"]]
    dims = " → ".join(map(str, record["settings"]["wide"]["dims"]))
    in_layers = common.labelled("in layers", record["ended"][LAYERED])
    speeds(axes[0, 3], wide, f"(g) speed, {dims}\n{in_layers}")
    costs(axes[1, 3], wide, f"(h) cost of identity, {dims}\n{in_layers}")
    return fig


def folded(record: dict[str, Any], start: str) -> list[dict[str, Any]]:
    """Rows of the double fold at the depths that are drawn."""
    return [row for row in solved(record["folds"][start])
            if row["effective_depth"] in record["settings"]["fold_depths"]]


def speeds(ax: Any, rows: list[dict[str, Any]], title: str, jump: bool = False) -> None:
    for k, row in enumerate(rows):
        ax.plot(places(row), row["speed"], color=hs.plot.PALETTE[k], lw=1.6,
                label=f"$\\tilde{{L}} = {row['effective_depth']:g}$")
        position, height = highest(row)
        if jump and height > JUMP:
            ax.plot(position, height * row["median_speed"], "v", ms=8, color=hs.plot.PALETTE[k],
                    mec="black", zorder=4)
    if jump:
        ax.axvspan(0.25, 0.75, color="#eeeeee", lw=0, zorder=0)
        ax.axhline(JUMP * rows[-1]["median_speed"], color=hs.plot.GREY, lw=0.9, ls="--",
                   label=f"{JUMP:g} medians, $\\tilde{{L}} = {rows[-1]['effective_depth']:g}$")
    ax.set_yscale("log")
    common.plain_ticks(ax)
    ax.set_xlim(0, 1)
    common.dress(ax, title, "$p$", r"$\|\partial_p A_p\|\,/\,\|A_p\|$")
    below(ax)


def places(row: dict[str, Any]) -> Any:
    """Depths of speed and cost of identity."""
    return row["p"] if "p" in row else np.linspace(0, 1, len(row["speed"]))


def costs(ax: Any, rows: list[dict[str, Any]], title: str) -> None:
    for k, row in enumerate(rows):
        ax.plot(places(row), row["coi"], color=hs.plot.PALETTE[k], lw=1.6,
                label=f"$\\tilde{{L}} = {row['effective_depth']:g}$")
    ax.set_yscale("log")
    common.plain_ticks(ax)
    ax.set_xlim(0, 1)
    common.dress(ax, title, "$p$", r"$\|A_p\|^2_{K+\gamma I}$")
    below(ax)


def _over_depth(ax: Any, rows: list[dict[str, Any]]) -> None:
    depths = [row["effective_depth"] for row in rows]
    for k, (label, values) in enumerate({
            r"$\tilde{L} \times$ width of the jump at $p = 0$":
                [row["widths"][0] * row["effective_depth"] for row in rows],
            r"$\tilde{L} \times$ width of the jump at $p = 1$":
                [row["widths"][1] * row["effective_depth"] for row in rows],
            "share of depth near the least cost": [row["near"] for row in rows],
            "speed, ends over median": [contrast(row) for row in rows]}.items()):
        ax.plot(depths, values, "os^v"[k] + "-", color=hs.plot.PALETTE[k], lw=1.4, ms=5,
                label=label)
    ax.set_ylim(0, None)
    common.dress(ax, "(c) timescales, teacher", r"$\tilde{L}$", "as in the legend")
    below(ax)


def below(ax: Any) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=9)


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, {"small": SMALL, "full": FULL}, study, findings, draw, arguments,
               networks=networks)


if __name__ == "__main__":
    main()
