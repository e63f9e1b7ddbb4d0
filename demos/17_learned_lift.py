"""Learned lift and readout: does J fall, and what becomes of the bottleneck?

The lift P and the readout Q of a Leaky ResNet are fixed embeddings as a rule. With a weight decay
of their own, (μ/2)‖P‖² and (μ/2)‖Q‖² in J, they are unknowns beside the weights, and stationary
where μP = λB_0X and μQ = −(∂C/∂z)A_1ᵀ. Teachers through two dimensions, at several effective
depths, and the diabetes table of scikit-learn are solved four times by single shooting (ReLU): maps
fixed, lift learned, readout learned, both; every J counts the weight decay of both maps, learned or
not, so that the four are J of one problem. Beside J stand −2H/L̃ without costate, the least stable
cost of identity over depth, and how many singular values of A_p are above a tenth of the largest
where they are fewest.

Run ``python demos/17_learned_lift.py`` (seven minutes on one core): it draws
figures/17_learned_lift.png and writes results/17_learned_lift.json. ``--small`` takes seconds, and
writes to ``--out DIRECTORY``, or to a temporary one. The table needs scikit-learn (the extra
``sklearn``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import dress, run, said, verdicts

import hamshoot as hs

NAME = "17_learned_lift"
SETTINGS = {
    "full": dict(dims=[6, 2, 6], width=8, samples=30, layers=16, seeds=[0, 1, 2, 3, 4],
                 depths=[2, 4, 7], decay_share=1e-3, map_decay=0.01,
                 table=dict(rows=120, width=10, layers=10, effective_depth=3.0, weight_decay=0.03)),
    "small": dict(dims=[3, 1, 3], width=3, samples=8, layers=5, seeds=[0], depths=[2, 3],
                  decay_share=2e-3, map_decay=0.01,
                  table=dict(rows=20, width=3, layers=4, effective_depth=2.0, weight_decay=0.05)),
}
VARIANTS = {"fixed": (), "lift": ("lift_decay",), "readout": ("readout_decay",),
            "both": ("lift_decay", "readout_decay")}
NAMES = {"fixed": "both fixed", "lift": "lift learned", "readout": "readout learned",
         "both": "both learned"}
GAMMA0, SHARE = 1e-3, 0.1
TABLE = "diabetes"


# -- the study -------------------------------------------------------------------------------------


def teacher(depth: float, seed: int, settings: dict[str, Any]) -> hs.TrainingProblem:
    """A teacher through a narrow middle."""
    return hs.teacher_problem(
        settings["dims"], settings["samples"], width=settings["width"], effective_depth=depth,
        weight_decay=settings["decay_share"] * depth, test_samples=500, seed=seed)


def table(seed: int, settings: dict[str, Any]) -> hs.TrainingProblem:
    """Rows of the diabetes table drawn by the seed, the others to test on."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True, scaled=False)
    own = settings["table"]
    order = np.random.default_rng(seed).permutation(len(X))
    fit, other = order[: own["rows"]], order[own["rows"]:]
    return hs.TrainingProblem(
        X[fit], y[fit], X_test=X[other], Y_test=y[other], standardize=True, width=own["width"],
        effective_depth=own["effective_depth"], weight_decay=own["weight_decay"], seed=seed)


def solved(kind: str, variant: str, depth: float, seed: int, settings: dict[str, Any]
           ) -> dict[str, Any]:
    """One network, and what is looked at."""
    data = table(seed, settings) if kind == TABLE else teacher(depth, seed, settings)
    mu = settings["map_decay"]
    problem = data.replace(**dict.fromkeys(VARIANTS[variant], mu))
    layers = settings["table"]["layers"] if kind == TABLE else settings["layers"]
    found = hs.solve(problem, "single_shooting", layers=layers, effort="quick", seed=seed)
    maps = {name: float(np.sum(getattr(found.problem, name) ** 2)) for name in ("lift", "readout")}
    states, _ = found.spectra()
    counts = np.sum(states > SHARE * states[:, :1], axis=1)
    energies = found.energies(GAMMA0)
    return {
        "kind": kind, "variant": variant, "effective_depth": depth, "seed": seed,
        "objective": found.loss + problem.weight_decay / (2 * problem.effective_depth)
        * found.parameter_norm + mu / 2 * sum(maps.values()),
        "loss": found.loss, "parameter_norm": found.parameter_norm, **maps,
        "stable_rank": found.stable_bottleneck_rank,
        "cost_of_identity": float(np.min(energies.stable_cost_of_identity)),
        "directions": int(counts.min()), "test_error": found.test_error(),
        "singular": states[:, : min(8, states.shape[1])].tolist(), "p": found.p.tolist(),
        "second_order": found.extra.get("second_order"),
        "status": found.status.name, "stationarity": found.stationarity,
    }


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    """All teachers and tables, four times each."""
    kinds = [("teacher", depth) for depth in settings["depths"]]
    kinds.append((TABLE, settings["table"]["effective_depth"]))
    jobs = [dict(kind=kind, variant=variant, depth=depth, seed=seed, settings=settings)
            for kind, depth in kinds for seed in settings["seeds"] for variant in VARIANTS]
    return {"rows": each(solved, jobs)}


# -- what was found --------------------------------------------------------------------------------


def of(record: dict[str, Any], kind: str, variant: str, depth: float | None = None
       ) -> list[dict[str, Any]]:
    """Rows of one kind and variant, by seed."""
    return [row for row in record["rows"] if row["kind"] == kind and row["variant"] == variant
            and depth in (None, row["effective_depth"])]


def falls(record: dict[str, Any], kind: str, variant: str, depth: float | None = None
          ) -> np.ndarray:
    """How much J is below that of fixed maps, as a share of it, problem by problem."""
    pairs = zip(of(record, kind, variant, depth), of(record, kind, "fixed", depth), strict=True)
    return np.array([1 - one["objective"] / other["objective"] for one, other in pairs])


def median(record: dict[str, Any], name: str, kind: str, variant: str,
           depth: float | None = None) -> float:
    """Of a number over seeds."""
    return float(np.median([row[name] for row in of(record, kind, variant, depth)]))


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, from the record alone."""
    settings = record["settings"]
    depths, mu = settings["depths"], settings["map_decay"]
    lines = [f"{NAMES[variant]}: {said(ended)}." for variant, ended in record["ended"].items()]
    for kind, where in (("teacher", "the teachers"), (TABLE, "the diabetes table")):
        shares = []
        for variant in ("lift", "readout", "both"):
            fall = falls(record, kind, variant)
            shares.append(f"{NAMES[variant]} {100 * np.median(fall):.1f} % (lower in "
                          f"{int(np.sum(fall > 0))} of {len(fall)})")
        lines.append(f"Below J of fixed maps on {where}, weight decay μ = {mu:g} of both maps "
                     f"counted, in the median: {'; '.join(shares)}.")
    for depth in depths:
        parts = [f"{NAMES[v]} {median(record, 'stable_rank', 'teacher', v, depth):.2f}, "
                 f"{median(record, 'cost_of_identity', 'teacher', v, depth):.2f} and "
                 f"{median(record, 'directions', 'teacher', v, depth):g}" for v in VARIANTS]
        lines.append(f"Bottleneck at L̃ = {depth:g} (teacher's rank {min(settings['dims'])}): "
                     "−2H/L̃ without costate, least cost of identity, and directions of A_p where "
                     f"fewest, medians: {'; '.join(parts)}.")
    norms = [f"‖P‖² {median(record, 'lift', 'teacher', v):.2f}, "
             f"‖Q‖² {median(record, 'readout', 'teacher', v):.2f} with {NAMES[v]}"
             for v in ("fixed", "both")]
    lines.append(f"The maps of the teachers in the median: {'; '.join(norms)}.")
    for kind, where in (("teacher", "the teachers"), (TABLE, "the diabetes table")):
        errors = ", ".join(f"{NAMES[v]} {median(record, 'test_error', kind, v):.4g}"
                           for v in VARIANTS)
        lines.append(f"Test error on {where}, medians: {errors}.")
    told = [row["second_order"] for row in record["rows"] if row["second_order"]]
    lines.append(f"Second-order tests, of weights and learned maps together: {verdicts(told)}.")
    return lines


COLOURS = dict(zip(VARIANTS, (hs.plot.GREY, *hs.plot.PALETTE), strict=False))
MARKS = dict(zip(VARIANTS, "osD^", strict=True))


def draw(record: dict[str, Any]) -> Any:
    """J against fixed maps; the bottleneck over L̃; singular values of A_p over depth."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12.6, 4.2), layout="constrained")
    left, middle, right = fig.subplots(1, 3)
    _draw_falls(record, left)
    depths = record["settings"]["depths"]
    for k, variant in enumerate(VARIANTS):
        at = np.arange(len(depths)) + 0.04 * (k - 1.5)
        style = dict(color=COLOURS[variant], marker=MARKS[variant], ms=5, lw=1.3)
        cost = [median(record, "cost_of_identity", "teacher", variant, d) for d in depths]
        rank = np.array([median(record, "stable_rank", "teacher", variant, d) for d in depths])
        rank[rank < 0] = np.nan  # no dimension
        middle.plot(at, cost, **style, label=NAMES[variant])
        middle.plot(at, rank, **style, ls="--", mfc="white")
    middle.axhline(min(record["settings"]["dims"]), color=hs.plot.GREY, lw=0.8, ls=(0, (1, 3)))
    middle.set_xticks(range(len(depths)), [f"{d:g}" for d in depths])
    middle.legend(fontsize=8, frameon=False)
    dress(middle, "Bottleneck: least cost of identity (full),\n−2H/L̃ without costate (dashed)",
          "effective depth L̃", "dimension, median over seeds")
    for variant in ("fixed", "both"):
        row = of(record, "teacher", variant, depths[-1])[0]
        values = np.array(row["singular"])
        lines = right.plot(row["p"], values, color=COLOURS[variant], lw=1.3,
                           ls="-" if variant == "both" else "--")
        lines[0].set_label(NAMES[variant])
    right.set_yscale("log")
    floor = max(1e-3, float(np.min([v for row in record["rows"] for v in row["singular"][0]
                                    if v > 1e-9])) / 30)
    right.set_ylim(bottom=floor)
    right.legend(fontsize=8, frameon=False)
    dress(right, f"Singular values of A_p, L̃ = {depths[-1]:g}, first seed", "depth p",
          "singular value")
    return fig


def _draw_falls(record: dict[str, Any], ax: Any) -> None:
    """J of learned maps below that of fixed ones, a mark a problem, a line at the median."""
    depths = record["settings"]["depths"]
    groups = [("teacher", d, f"L̃ = {d:g}") for d in depths] + [(TABLE, None, "diabetes")]
    for g, (kind, depth, _) in enumerate(groups):
        for k, variant in enumerate(("lift", "readout", "both")):
            values = 100 * falls(record, kind, variant, depth)
            x = g + 0.22 * (k - 1)
            ax.plot(np.full(len(values), x), values, MARKS[variant], color=COLOURS[variant],
                    ms=4.5, alpha=0.6, label=NAMES[variant] if g == 0 else None)
            ax.plot([x - 0.09, x + 0.09], 2 * [np.median(values)], color=COLOURS[variant], lw=2)
    ax.axhline(0, color=hs.plot.GREY, lw=0.8)
    ax.set_xticks(range(len(groups)), [name for *_, name in groups])
    ax.legend(fontsize=8, frameon=False)
    dress(ax, "J below that of fixed maps", "", "per cent")


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by variant, for how they ended."""
    return {variant: [row for row in record["rows"] if row["variant"] == variant]
            for variant in VARIANTS}


def main(arguments: list[str] | None = None) -> None:
    run(NAME, __doc__ or "", SETTINGS, study, findings, draw, arguments, networks=networks)


if __name__ == "__main__":
    main()
