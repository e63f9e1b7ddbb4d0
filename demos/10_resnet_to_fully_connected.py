"""From ResNet to fully connected: what becomes of one small path as the effective depth L̃ grows?

At L̃ near 0 a Leaky ResNet is a ResNet: it moves representations from inputs to outputs at leisure,
all along its depth. At large L̃ it is a fully connected network: what it does not hold up decays, so
it jumps to few dimensions, stays, and jumps to the outputs. Here are exact geodesics of width 2, so
that the whole path is a picture, continued from L̃ = 0.05 to 20. Two kinds are known in closed form
and drawn over the numerical ones:

* one sample from a_0 to a_1, both positive, ReLU without bias: log‖a‖ is linear in p and the
  direction runs along the great circle at constant speed, whatever L̃;
* a linear network without bias, several samples: W_p = exp(pS) W_0 exp(−pS), S = W_0 − W_0ᵀ, and
  A_p = exp(−L̃p) exp(pS) exp(pW_0ᵀ) A_0.

The third is what the paper is about, several samples and a smooth ReLU with bias; no formula is
known for it. An animation shows its path as L̃ grows.

Run ``python demos/10_resnet_to_fully_connected.py`` (one to four minutes): it draws
figures/10_resnet_to_fully_connected.png and .gif and writes
results/10_resnet_to_fully_connected.json. ``--small`` takes fewer depths and seconds, and writes to
``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np

import hamshoot as hs
from hamshoot.theory import closed_forms

NAME = "10_resnet_to_fully_connected"
DECAY = 1e-3  # λ/L̃, as in the paper
FULL = dict(seed=0, first=0.05, last=20.0, frames=40, analytic=10, samples=6, points=81)
SMALL = dict(seed=0, first=0.5, last=2.0, frames=3, analytic=2, samples=3, points=41)
SHOWN = 4  # depths drawn in the plane
START, END = (1.5, 0.3), (0.4, 1.1)  # of the one sample
TURN, SHRINK = 1.2, 0.3  # of the targets of the linear network


def depths_of(settings: dict[str, Any], count: str) -> list[float]:
    """Effective depths in equal ratios, three digits."""
    ladder = np.geomspace(settings["first"], settings["last"], settings[count])
    return [float(f"{depth:.3g}") for depth in ladder]


# -- the three problems ----------------------------------------------------------------------------


def one_sample(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One sample between two positive ends, ReLU; beside its closed form."""
    def problem_of(depth: float) -> hs.TrainingProblem:
        return hs.TrainingProblem(
            np.array([START]), endpoint=np.array([END]).T, width=2, bias=False, activation="relu",
            effective_depth=depth, weight_decay=DECAY * depth)

    paths, failed = common.continued(problem_of, depths_of(settings, "analytic"))
    p = np.linspace(0, 1, settings["points"])
    rows = []
    for path in paths:
        depth = path.problem.effective_depth
        known = closed_forms.one_sample_path(p, START, END, depth)
        cost = path.parameter_norm / (2 * depth)
        apart = np.abs(at_positions(path, p) - at_positions(paths[0], p)).max()
        rows.append({**compared(path, p, known), "cost": cost, "known_cost": known.cost,
                     "of_cost": abs(cost / known.cost - 1),
                     "from_first": float(apart)})
    thinned(rows, len(rows) - 1)
    return [*rows, *({"effective_depth": depth} for depth in failed)]


def linear(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Several samples, a linear network that turns and flattens them; beside its closed form."""
    X = np.random.default_rng(settings["seed"]).standard_normal((settings["samples"], 2))
    turn = np.array([[np.cos(TURN), np.sin(TURN)], [-np.sin(TURN), np.cos(TURN)]])

    def problem_of(depth: float) -> hs.TrainingProblem:
        return hs.TrainingProblem(X, X @ turn * [1, SHRINK], width=2, bias=False,
                                  activation="linear", effective_depth=depth,
                                  weight_decay=DECAY * depth)

    paths, failed = common.continued(problem_of, depths_of(settings, "analytic"))
    p = np.linspace(0, 1, settings["points"])
    rows = [
        compared(path, p, closed_forms.linear_path(
            p, path.problem.initial_state, path.weights[0], path.problem.effective_depth))
        for path in paths
    ]
    thinned(rows, len(rows) // 2)
    return [*rows, *({"effective_depth": depth} for depth in failed)]


def compared(path: hs.Solution, p: np.ndarray, known: Any) -> dict[str, Any]:
    """Largest differences between a numerical path and a known one, and both paths."""
    at = path.at(p)
    return {
        **described(path, p),
        "of_representations": float(np.abs(at.representations - known.representations).max()),
        "of_weights": float(np.abs(at.weights - known.weights).max()
                            / max(1.0, np.abs(known.weights).max())),
        "known": rounded(known.representations),
    }


def thinned(rows: list[dict[str, Any]], kept: int) -> None:
    """Leave arrays only in the row that is drawn."""
    for k, row in enumerate(rows):
        if k != kept:
            for name in ("path", "known", "speed"):
                del row[name]


def nonlinear(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Several samples, smooth ReLU with bias, through a teacher of inner dimension 1."""
    def problem_of(depth: float) -> hs.TrainingProblem:
        return hs.teacher_problem(
            (2, 1, 2), samples=settings["samples"], width=2, seed=settings["seed"],
            activation="smooth_relu", effective_depth=depth, weight_decay=DECAY * depth,
            test_samples=0)

    paths, failed = common.continued(problem_of, depths_of(settings, "frames"))
    p = np.linspace(0, 1, settings["points"])
    return [*(described(path, p) for path in paths),
            *({"effective_depth": depth} for depth in failed)]


def described(path: hs.Solution, p: np.ndarray) -> dict[str, Any]:
    """What is printed and drawn of one path."""
    moved, size = common.speeds(path, p)
    speed = moved / size
    steps = np.diff(p) * (speed[1:] + speed[:-1]) / 2
    middle = np.linalg.svd(path.at(0.5).representations, compute_uv=False)
    return {
        "effective_depth": path.problem.effective_depth,
        "status": path.status.name, "stationarity": path.stationarity,
        "objective": path.objective, "bottleneck_rank": path.bottleneck_rank,
        "drift": path.hamiltonian_drift, "defect": path.residuals["defect"],
        "descents": path.extra.get("descents_taken", 0), "seconds": path.seconds,
        "speed_at_half": float(np.interp(0.5, p, speed)),
        "speed_at_ends": [float(speed[0]), float(speed[-1])],
        "length": float(steps.sum()),
        "length_in_ends": float(steps[(p[1:] <= 0.1 + 1e-9) | (p[:-1] >= 0.9 - 1e-9)].sum()
                                / steps.sum()),
        "middle": [float(s) for s in middle],
        "speed": [float(f"{v:.4g}") for v in speed],
        "path": rounded(at_positions(path, p)),
    }


def at_positions(path: hs.Solution, p: np.ndarray) -> np.ndarray:
    return path.at(p).representations


def rounded(A: np.ndarray) -> list[Any]:
    """Three decimals are enough to draw with."""
    return np.round(A, 3).tolist()


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    job = [{"settings": settings}]
    return {function.__name__: each(function, job)[0]
            for function in (one_sample, linear, nonlinear)}


# -- findings --------------------------------------------------------------------------------------


def solved(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of depths at which a geodesic was found."""
    return [row for row in rows if "objective" in row]


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The geodesics whose status was recorded."""
    return {"exact geodesic": [row for row in (
        *record["one_sample"], *record["linear"], *record["nonlinear"]) if "status" in row]}


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    one, many = solved(record["one_sample"]), solved(record["linear"])
    rows = solved(record["nonlinear"])
    first, last = rows[0], rows[-1]
    lines = [
        f"One sample, ReLU, L̃ from {one[0]['effective_depth']:g} to {one[-1]['effective_depth']:g} "
        f"({len(one)} depths): numerical and analytic path differ by at most "
        f"{largest(one, 'of_representations'):.1e} in A_p, {largest(one, 'of_weights'):.1e} in W_p "
        f"(relative to its largest entry) and {largest(one, 'of_cost'):.1e} (relative) in the cost "
        "∫‖W‖²/(2L̃).",
        f"One sample between two positive ends knows no bottleneck: its numerical paths at all "
        f"L̃ are one, to {largest(one, 'from_first'):.1e}.",
        f"Linear network, {record['settings']['samples']} samples, L̃ from "
        f"{many[0]['effective_depth']:g} to {many[-1]['effective_depth']:g} ({len(many)} depths): "
        f"from W_0 alone the formula gives the numerical path to "
        f"{largest(many, 'of_representations'):.1e} in A_p and {largest(many, 'of_weights'):.1e} "
        "in W_p.",
        f"Smooth ReLU, {record['settings']['samples']} samples, {len(rows)} geodesics: the "
        f"Hamiltonian drifts by at most {largest(rows, 'drift'):.1e}; {descents(rows)}",
        *(shape(row) for row in (first, last)),
        verdict(first, last),
    ]
    missing = {name: [row["effective_depth"] for row in record[name] if "objective" not in row]
               for name in ("one_sample", "linear", "nonlinear")}
    lines += [f"No geodesic was found at L̃ = {common.listed(depths)} ({name})."
              for name, depths in missing.items() if depths]
    return lines


def largest(rows: list[dict[str, Any]], key: str) -> float:
    return max(row[key] for row in rows)


def descents(rows: list[dict[str, Any]]) -> str:
    taken = [row["effective_depth"] for row in rows if row["descents"]]
    if not taken:
        return "no step of the continuation needed a new descent."
    return (f"on the way to L̃ = {common.listed(taken)} Newton could not follow, and the path went "
            "on from a minimum that descent found, perhaps of another branch.")


def shape(row: dict[str, Any]) -> str:
    slow, ends = row["speed_at_half"], np.mean(row["speed_at_ends"])
    return (f"At L̃ = {row['effective_depth']:g} the relative speed ‖∂_pA‖/‖A‖ is "
            f"{row['speed_at_ends'][0]:.2f} at p = 0, {slow:.2g} at p = 1/2 and "
            f"{row['speed_at_ends'][1]:.2f} at p = 1 (ends over middle: {ends / slow:.2g}); "
            f"{row['length_in_ends']:.0%} of the path's length lies in the outer fifth of depth, "
            f"and half way the second singular value of A_p is "
            f"{row['middle'][1] / row['middle'][0]:.1%} of the first.")


def verdict(first: dict[str, Any], last: dict[str, Any]) -> str:
    ratios = [np.mean(row["speed_at_ends"]) / row["speed_at_half"] for row in (first, last)]
    jumps = ratios[1] > 3 and ratios[1] > 3 * ratios[0]
    return (f"The paper's jumps at both ends with a slow middle at large L̃: "
            f"{'agree' if jumps else 'does not agree'} (ends over middle {ratios[0]:.2g} at "
            f"L̃ = {first['effective_depth']:g}, {ratios[1]:.3g} at "
            f"L̃ = {last['effective_depth']:g}); −2H/L̃ = {last['bottleneck_rank']:.3f} there, "
            "with costate, against the teacher's 1.")


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Analytic over numerical paths, their differences, speeds; below, four paths in the plane."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(14.0, 7.8), layout="constrained")
    top, bottom = fig.subplots(2, SHOWN)
    rows = solved(record["nonlinear"])
    shown = chosen(rows)
    palette = dict(zip(range(SHOWN), hs.plot.PALETTE, strict=False))
    _over(top[0], record["one_sample"], "(a) one sample, ReLU")
    _over(top[1], record["linear"], "(b) linear network")
    many = solved(record["linear"])
    _differences(top[2], solved(record["one_sample"]), many)
    _speeds(top[3], shown, palette)
    for k, (ax, row) in enumerate(zip(bottom, shown, strict=True)):
        plane(ax, row, view(shown))
        common.dress(ax, f"({'efgh'[k]}) smooth ReLU, $\\tilde{{L}} = "
                     f"{row['effective_depth']:.2g}$", "first neuron of $A_p$",
                     "second neuron" if k == 0 else "")
        ax.title.set_color(palette[k])
    _key(fig)
    return fig


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first, the last, and some between."""
    between = [int(np.argmin([abs(np.log(row["effective_depth"] / depth)) for row in rows]))
               for depth in (1, 4)]
    return [rows[0], *(rows[k] for k in between), rows[-1]]


def view(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Corners that hold every path, with a margin."""
    points = np.concatenate([np.array(row["path"]).transpose(0, 2, 1).reshape(-1, 2)
                             for row in rows])
    low, high = points.min(axis=0), points.max(axis=0)
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def plane(ax: Any, row: dict[str, Any], corners: tuple[np.ndarray, np.ndarray]) -> None:
    """Paths of all samples; dots at equal steps of p, so that they crowd where it is slow."""
    A = np.array(row["path"])
    for i in range(A.shape[2]):
        colour = hs.plot.PALETTE[i % 6]
        ax.plot(*A[:, :, i].T, color=colour, lw=1.0)
        ax.plot(*A[:: max(1, len(A) // 40), :, i].T, ".", ms=4, color=colour)
        ax.plot(*A[0, :, i], "o", ms=7, mfc="white", mec=colour, zorder=4)
        ax.plot(*A[-1, :, i], "s", ms=6, color=colour, zorder=4)
    low, high = corners
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])


def _over(ax: Any, rows: list[dict[str, Any]], title: str) -> None:
    row = next(row for row in rows if "known" in row)
    A, known = np.array(row["path"]), np.array(row["known"])
    for i in range(A.shape[2]):
        colour = hs.plot.PALETTE[i % 6]
        ax.plot(*A[:, :, i].T, color=colour, lw=4.5, alpha=0.45)
        ax.plot(*known[:, :, i].T, color="black", lw=1.0, ls="--")
        ax.plot(*A[0, :, i], "o", ms=7, mfc="white", mec=colour, zorder=4)
        ax.plot(*A[-1, :, i], "s", ms=6, color=colour, zorder=4)
    common.dress(ax, f"{title}, $\\tilde{{L}} = {row['effective_depth']:.2g}$",
                 "first neuron of $A_p$", "second neuron")


def _differences(ax: Any, one: list[dict[str, Any]], many: list[dict[str, Any]]) -> None:
    styles = [(one, "of_representations", 0, "o-", "one sample, $A_p$"),
              (one, "of_weights", 0, "o:", "one sample, $W_p$"),
              (many, "of_representations", 1, "s-", "linear, $A_p$"),
              (many, "of_weights", 1, "s:", "linear, $W_p$")]
    for rows, key, colour, style, label in styles:
        ax.plot([row["effective_depth"] for row in rows],
                [max(row[key], 1e-17) for row in rows], style, ms=4, lw=1.2,
                color=hs.plot.PALETTE[colour], label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    common.dress(ax, "(c) numerical minus analytic", r"$\tilde{L}$", "largest difference")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=9)


def _speeds(ax: Any, rows: list[dict[str, Any]], palette: dict[int, str]) -> None:
    for k, row in enumerate(rows):
        ax.plot(np.linspace(0, 1, len(row["speed"])), row["speed"], color=palette[k], lw=1.6,
                label=f"$\\tilde{{L}} = {row['effective_depth']:.2g}$")
    ax.set_yscale("log")
    ax.set_xlim(0, 1)
    common.dress(ax, "(d) speed, smooth ReLU", "$p$", r"$\|\partial_p A_p\|\,/\,\|A_p\|$")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=9)


def _key(fig: Any) -> None:
    from matplotlib.lines import Line2D

    grey = hs.plot.GREY
    handles = [
        Line2D([], [], ls="", marker="o", ms=7, mfc="white", mec=grey, label="$A_0$"),
        Line2D([], [], ls="", marker="s", ms=6, color=grey, label="$A_1$"),
        Line2D([], [], color=grey, lw=4.5, alpha=0.45, label="numerical (a, b)"),
        Line2D([], [], color="black", lw=1, ls="--", label="analytic (a, b)"),
        Line2D([], [], color=grey, lw=1, marker=".", ms=4, label="equal steps of $p$ (e to h)"),
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def animate(record: dict[str, Any], name: Path) -> None:
    """GIF of the path in the plane and its speed, L̃ growing."""
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = solved(record["nonlinear"])
    corners = view(rows)
    fig = Figure(figsize=(8.0, 4.0), layout="constrained")
    FigureCanvasAgg(fig)
    left, right = fig.subplots(1, 2)
    speed = np.array([row["speed"] for row in rows])
    p = np.linspace(0, 1, speed.shape[1])

    def frame(k: int) -> list[Any]:
        row = rows[k]
        left.clear()
        right.clear()
        plane(left, row, corners)
        common.dress(left, f"$\\tilde{{L}} = {row['effective_depth']:.2f}$: samples, dots at equal "
                     "steps of $p$", "first neuron of $A_p$", "second neuron")
        right.plot(p, row["speed"], color=hs.plot.PALETTE[0], lw=1.8)
        right.set_yscale("log")
        right.set_xlim(0, 1)
        right.set_ylim(0.7 * speed.min(), 1.4 * speed.max())
        common.dress(right, f"$-2H/\\tilde{{L}} = {row['bottleneck_rank']:.2f}$", "$p$",
                     r"$\|\partial_p A_p\|\,/\,\|A_p\|$")
        return []

    hold = [len(rows) - 1] * min(6, len(rows) // 4)  # the last one stays a while
    film = FuncAnimation(fig, frame, frames=[*range(len(rows)), *hold], init_func=lambda: [])
    film.save(str(name), writer=PillowWriter(fps=6), dpi=90)


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, {"small": SMALL, "full": FULL}, study, findings, draw, arguments,
               animate, networks)


if __name__ == "__main__":
    main()
