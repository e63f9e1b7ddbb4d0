"""How many ends has the solver, what distinguishes them, and which ones does descent find?

The objective of a ReLU network is neither convex nor smooth, so what a solver finds is a stationary
point, and at best a local minimum. Here the same small network (12 layers of width 6, a teacher
6 → 2 → 6, L̃ = 7) is solved from ten path fits and ten identities with noise, for two teachers;
every answer that converged is stationary in Clarke's sense, and gets a second-order certificate
that says, in its own words, how far it is known to be a minimum. Each start counts, where the
solver by default takes the best of five and reheats it. Then Adam trains the network from the same
twenty starts for 60 000 epochs, at the best rate and schedule of a grid that is tried at every
start, and the solver goes on from where Adam ended, at its last ε alone so that it stays close: the
stationary point it runs into is taken for the one that Adam was on its way to. Adam's end is no
stationary point, and how far the solver moves from there is part of what was found.

Two stationary points count as one if their objectives agree to 1e-9. Ranks are the median over the
layers of −2H/L̃ without costate (the stable energies, γ₀ = 1e-3), and the least stable cost of
identity.

Run ``python demos/09_local_minima.py`` (four to ten minutes on one core): it draws
figures/09_local_minima.png and writes results/09_local_minima.json. ``--small`` takes seconds, and
writes to ``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import common
import numpy as np

import hamshoot as hs
from hamshoot.theory import energies

NAME = "09_local_minima"
GAMMA0 = 1e-3
SAME = 1e-9
#: Smallest ε of the solver's ladder; from Adam's end the whole of it.
EPSILON = 1e-3
#: Adam is also trained with this many times fewer epochs.
SHORTER = 10
CONTROL, DESCENT, AFTER = "optimal control", "Adam", "Adam, then solved"
METHODS = (CONTROL, DESCENT, AFTER)
STATIONARY = (CONTROL, AFTER)
SETTINGS = {
    "full": dict(teachers=(0, 1), seeds=tuple(range(10)), starts=("path", "identity"),
                 dims=(6, 2, 6), samples=30, width=6, effective_depth=7.0, layers=12,
                 rates=(0.01, 0.03, 0.1, 0.3), epochs=60_000),
    "small": dict(teachers=(0,), seeds=(0, 1, 2), starts=("path",), dims=(3, 1, 3), samples=8,
                  width=3, effective_depth=3.0, layers=6, rates=(0.03, 0.1), epochs=3000),
}


# -- what is measured ------------------------------------------------------------------------------


def from_start(teacher: int, seed: int, start: str, settings: dict[str, Any]) -> list[dict]:
    """The solver's network, Adam's, and the solver's after Adam, all from one start."""
    depth, layers = settings["effective_depth"], settings["layers"]
    problem = hs.teacher_problem(
        settings["dims"], samples=settings["samples"], width=settings["width"], seed=teacher,
        effective_depth=depth, weight_decay=1e-3 * depth)
    method = hs.DirectSingleShooting(layers=layers, starts=1, reheats=0, seed=seed, start=start)
    optimum = hs.solve(problem, method)
    short, adam = (
        hs.train(problem, layers, seed=seed, start=start, optimizer=hs.Adam(
            rates=settings["rates"], epochs=epochs, sgd_epochs=0))
        for epochs in (settings["epochs"] // SHORTER, settings["epochs"]))
    near = hs.DirectSingleShooting(layers=layers, epsilon=(EPSILON, EPSILON, 0.5))
    after = hs.solve(problem, near, initial_guess=adam)
    moved = np.linalg.norm(after.weights - adam.weights) / np.linalg.norm(adam.weights)
    rows = [{"method": name, "teacher": teacher, "seed": seed, "start": start,
             **described(solution)}
            for name, solution in zip(METHODS, (optimum, adam, after), strict=True)]
    rows[1] |= {"shorter_objective": short.objective, "shorter_test_error": short.test_error(),
                **{key: adam.extra[key] for key in ("rate", "schedule", "grid_seconds")}}
    rows[2]["moved"] = float(moved)
    return rows


def described(solution: hs.Solution) -> dict[str, Any]:
    """Objective, rank estimates and test error; the certificate of what has converged."""
    problem, A = solution.problem, solution.representations
    e = energies.path_energies(
        solution.p[:-1], A[:-1], solution.momenta[1:], effective_depth=problem.effective_depth,
        activation=solution.activation, bias=problem.bias, gamma0=GAMMA0,
        velocities=np.diff(A, axis=0) / solution.steps[:, None, None])
    hamiltonian = np.median(e.stable_kinetic + e.stable_potential)
    row = {
        "objective": solution.objective, "loss": solution.loss,
        "rank": float(-2 * hamiltonian / problem.effective_depth),
        "least_coi": float(e.stable_cost_of_identity.min()),
        "test_error": solution.test_error(), "stationarity": solution.stationarity,
        "status": solution.status.name, "seconds": solution.seconds,
    }
    if solution.success:
        certificate = hs.certify(solution)
        row |= {"holds": certificate.holds, "second_order": certificate.second_order,
                "min_eigenvalue": finite(certificate.min_eigenvalue), "kinks": certificate.kinks,
                "clarke_residual": finite(certificate.clarke_residual)}
    return row


def finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    jobs = [dict(teacher=teacher, seed=seed, start=start, settings=settings)
            for teacher in settings["teachers"] for seed in settings["seeds"]
            for start in settings["starts"]]
    rows = [row for found in each(from_start, jobs) for row in found]
    for teacher in settings["teachers"]:
        number([row for row in rows if row["teacher"] == teacher])
    return {"networks": rows}


def number(rows: list[dict[str, Any]]) -> None:
    """Give every converged network of a teacher the number of its stationary point, 0 the lowest.

    Here and not in the findings, as a record keeps seven digits.
    """
    minima = sorted((row for row in rows if converged(row)), key=lambda row: row["objective"])
    last, k = -np.inf, -1
    for row in minima:
        if row["objective"] - last > SAME * abs(row["objective"]):
            k += 1
        last, row["minimum"] = row["objective"], k


def converged(row: dict[str, Any]) -> bool:
    return row["method"] in STATIONARY and row["status"] == "CONVERGED"


# -- findings --------------------------------------------------------------------------------------


def of(record: dict[str, Any], teacher: int, *methods: str) -> list[dict[str, Any]]:
    """Networks of one teacher, stationary ones alone where the method aims at them."""
    return [row for row in record["networks"] if row["teacher"] == teacher
            and row["method"] in (methods or METHODS)
            and (row["method"] == DESCENT or "minimum" in row)]


def distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One network for each stationary point, the lowest first."""
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["minimum"], row)
    return [first[k] for k in sorted(first)]


def best(record: dict[str, Any], teacher: int) -> float:
    return min(row["objective"] for row in of(record, teacher, *STATIONARY))


def excess(record: dict[str, Any], method: str, teachers: Any = None) -> list[float]:
    """J over the lowest of the teacher, minus 1."""
    teachers = record["settings"]["teachers"] if teachers is None else teachers
    return [row["objective"] / best(record, t) - 1
            for t in teachers for row in of(record, t, method)]


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by method."""
    return {method: [row for row in record["networks"] if row["method"] == method]
            for method in METHODS}


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    settings = record["settings"]
    return [
        *(line for teacher in settings["teachers"] for line in of_teacher(record, teacher)),
        *basins(record), certificates(record),
        "How they ended: " + ". ".join(f"{name}, {common.said(how)}"
                                       for name, how in record["ended"].items()) + ".",
        failures(record),
    ]


def of_teacher(record: dict[str, Any], teacher: int) -> list[str]:
    """How many ends one teacher has, how far apart, and what goes with the objective."""
    rows = of(record, teacher, *STATIONARY)
    if not rows:
        return [f"Teacher {teacher}: none of its 0 solves converged."]
    minima = distinct(rows)
    J = [row["objective"] for row in minima]
    ranks, least = ([row[key] for row in minima] for key in ("rank", "least_coi"))
    lines = [
        f"Teacher {teacher}: {len(rows)} converged solves ended in {len(minima)} distinct "
        f"stationary points (objectives that differ by more than {SAME:g} of their size). J lies "
        f"between {min(J):.4g} and {max(J):.4g}, {max(J) / min(J) - 1:.0%} above the lowest; "
        f"−2H/L̃ without costate between {min(ranks):.2f} and {max(ranks):.2f}, the least cost of "
        f"identity between {min(least):.2f} and {max(least):.2f}."]
    words = [f"{name} {correlation(minima, key)}" for key, name in
             (("rank", "−2H/L̃ without costate"), ("least_coi", "the least cost of identity"),
              ("test_error", "the test error"), ("loss", "the training loss"))]
    best_test = min(minima, key=lambda row: row["test_error"])
    lines.append(
        f"Teacher {teacher}, Spearman's correlation of the objective over its {len(minima)} "
        f"stationary points: with {'; with '.join(words)}. The lowest one has "
        f"−2H/L̃ = {ranks[0]:.2f} without costate and test error "
        f"{minima[0]['test_error']:.3g}, the best test error is {best_test['test_error']:.3g} at "
        f"{best_test['objective'] / J[0] - 1:.1%} above the lowest J.")
    return lines


def correlation(rows: list[dict[str, Any]], key: str) -> str:
    """Spearman's ρ of the objective with another number, in words."""
    from scipy.stats import spearmanr

    if len({row[key] for row in rows}) < 3:
        return "not defined for fewer than 3 values"
    found = spearmanr([row["objective"] for row in rows], [row[key] for row in rows])
    return f"{found.statistic:+.2f} (p = {found.pvalue:.2g})"


def basins(record: dict[str, Any]) -> list[str]:
    """Which stationary points Adam was on its way to."""
    teachers = record["settings"]["teachers"]
    after = [row for t in teachers for row in of(record, t, AFTER)]
    control = [row for t in teachers for row in of(record, t, CONTROL)]
    hit, own = (sum(row["minimum"] == 0 for row in rows) for rows in (after, control))
    pairs = paired(record, CONTROL, AFTER)
    same = sum(a["minimum"] == b["minimum"] for a, b in pairs)
    lower = sum(b["minimum"] < a["minimum"] for a, b in pairs)
    direct = paired(record, CONTROL, DESCENT)
    beaten = sum(b["objective"] < a["objective"] for a, b in direct)
    shares = {m: excess(record, m) for m in METHODS}
    polished = paired(record, DESCENT, AFTER)
    words = [f"{np.median(shares[m]):.1%} ({m}, {min(shares[m]):.1%} to {max(shares[m]):.1%})"
             for m in METHODS if shares[m]]
    falls = [1 - b["objective"] / a["objective"] for a, b in polished]
    lines = [
        f"The lowest end of a teacher was reached {own} times in {len(control)} by optimal "
        f"control and {hit} times in {len(after)} from Adam's end. Above the lowest J of its "
        f"teacher, in median: {'; '.join(words)}.",
        f"From the same start, the end after Adam is that of optimal control in {same} of "
        f"{len(pairs)} pairs, a lower one in {lower}, a higher one in "
        f"{len(pairs) - same - lower}. Adam itself ends below optimal control in {beaten} of "
        f"{len(direct)}.",
    ]
    if falls:
        lines.append(
            f"Where Adam ends the stationarity is "
            f"{common.spread([a['stationarity'] for a, _ in polished], '.1e')}; from there J falls "
            f"by {common.spread(falls, '.1%')}, and the weights move by "
            f"{common.spread([b['moved'] for _, b in polished], '.0%')} of their norm.")
        lines += [epochs(record), test_errors(record)]
    starts = record["settings"]["starts"]
    if len(starts) > 1:
        words = [f"{method} {' and '.join(by_start(record, method))}" for method in METHODS]
        lines.append(f"By start, the median above the lowest J: {'; '.join(words)}.")
    return lines


def epochs(record: dict[str, Any]) -> str:
    """What ten times the epochs bring Adam, and the seconds of both methods."""
    adam = [row for t in record["settings"]["teachers"] for row in of(record, t, DESCENT)]
    before = np.median([row["shorter_objective"] / best(record, row["teacher"]) - 1
                        for row in adam])
    control = paired(record, CONTROL, DESCENT)
    beaten = sum(b["shorter_objective"] < a["objective"] for a, b in control)
    most = record["settings"]["epochs"]
    seconds = [common.spread([row["seconds"] for row in rows], ".2g")
               for rows in (adam, [a for a, _ in control])]
    return (f"With {most // SHORTER} epochs Adam would end {before:.1%} above the lowest J in "
            f"median and below optimal control in {beaten} of {len(control)}. Its {most} epochs "
            f"take {seconds[0]} s, a solve by optimal control {seconds[1]} s.")


def test_errors(record: dict[str, Any]) -> str:
    """Medians of each teacher, and who is lower from the same start."""
    medians = "; ".join(
        f"teacher {t}: " + ", ".join(
            f"{np.median([row['test_error'] for row in of(record, t, m)]):.3g} ({m})"
            for m in METHODS if of(record, t, m))
        for t in record["settings"]["teachers"])
    polished, solved = paired(record, DESCENT, AFTER), paired(record, CONTROL, DESCENT)
    better = sum(b["test_error"] < a["test_error"] for a, b in polished)
    ahead = sum(b["test_error"] < a["test_error"] for a, b in solved)
    return (f"Median test error, {medians}. Solving on from Adam's end lowers it in {better} of "
            f"{len(polished)}; Adam's own is below that of optimal control in {ahead} of "
            f"{len(solved)}.")


def by_start(record: dict[str, Any], method: str) -> list[str]:
    """Median excess of a method from each start."""
    teachers = record["settings"]["teachers"]
    found = {start: [row["objective"] / best(record, t) - 1 for t in teachers
                     for row in of(record, t, method) if row["start"] == start]
             for start in record["settings"]["starts"]}
    return [f"{np.median(values):.1%} from {start}" for start, values in found.items() if values]


def paired(record: dict[str, Any], first: str, second: str) -> list[tuple[dict, dict]]:
    """Networks of two methods from the same start, where both count."""
    pairs = []
    for teacher in record["settings"]["teachers"]:
        others = {(r["seed"], r["start"]): r for r in of(record, teacher, second)}
        pairs += [(row, others[key]) for row in of(record, teacher, first)
                  if (key := (row["seed"], row["start"])) in others]
    return pairs


def certificates(record: dict[str, Any]) -> str:
    """What the second-order tests say of the stationary points."""
    rows = [row for row in record["networks"] if "minimum" in row]
    said = common.verdicts(row["second_order"] for row in rows)
    eigenvalues = [row["min_eigenvalue"] for row in rows if row["min_eigenvalue"] is not None]
    holds = sum(row["holds"] for row in rows)
    return (f"Certificates of {len(rows)} converged solves: {said}; {holds} of {len(rows)} meet "
            "every bound. "
            + (f"The smallest eigenvalue is {common.spread(eigenvalues, '.1e')}, with "
               if eigenvalues else "They have ")
            + f"{common.spread([row['kinks'] for row in rows], '.0f')} activations on the kink.")


def failures(record: dict[str, Any]) -> str:
    """Solves that did not converge, by status."""
    solves = [row for row in record["networks"] if row["method"] in STATIONARY]
    failed = Counter((row["method"], row["status"]) for row in solves if "minimum" not in row)
    said = ", ".join(f"{status} {count} times ({method})"
                     for (method, status), count in failed.items())
    return (f"Of {len(solves)} solves {sum(failed.values())} did not converge"
            + (f": {said}." if said else ".")
            + f" A solve takes {common.spread([row['seconds'] for row in solves], '.2g')} s.")


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Objective against both rank estimates; sorted objectives; test error against objective."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(11.0, 8.6), layout="constrained")
    axes = fig.subplots(2, 2)
    above = "$J$ above the lowest of its teacher, %"

    def percent(row: dict[str, Any]) -> float:
        return 100 * (row["objective"] / best(record, row["teacher"]) - 1)

    for ax, key, title, label in (
        (axes[0, 0], "rank", "(a) rank from below", r"$-2H/\tilde{L}$ without costate, median"),
        (axes[0, 1], "least_coi", "(b) rank from above",
         r"$\min_p\|A_p\|^2_{(K+\gamma I)}$"),
    ):
        _points(ax, record, lambda row, key=key: row[key], percent)
        stretched(ax, "y")
        true = record["settings"]["dims"][1]
        ax.axvline(true, color="#666666", lw=1, ls=":")
        ax.annotate(f"teacher's rank {true}", (true, 1), xycoords=("data", "axes fraction"),
                    xytext=(4, -2), textcoords="offset points", fontsize=8, color="#444444",
                    rotation=90, va="top")
        common.dress(ax, title, label, above)
    _sorted(axes[1, 0], record)
    stretched(axes[1, 0], "y")
    axes[1, 0].xaxis.get_major_locator().set_params(integer=True)
    common.dress(axes[1, 0], "(c) ends from the same starts, sorted", "number of the start", above)
    _points(axes[1, 1], record, percent, lambda row: row["test_error"])
    stretched(axes[1, 1], "x")
    axes[1, 1].set_yscale("log")
    axes[1, 1].margins(y=0.1)
    common.plain_ticks(axes[1, 1])
    common.dress(axes[1, 1], "(d) does the lower objective generalise better?", above,
                 "test error")
    handles = {}
    for ax in (axes[0, 0], axes[1, 0]):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3,
               frameon=False, fontsize=9)
    return fig


def stretched(ax: Any, axis: str) -> None:
    """Percent, linear up to 10 and logarithmic above."""
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=10, linscale=1.0)
    high = getattr(ax, f"get_{axis}lim")()[1]
    ticks = [t for t in (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if t <= high]
    getattr(ax, f"set_{axis}ticks")(ticks, [f"{t:g}" for t in ticks])
    getattr(ax, f"set_{axis}ticks")([], minor=True)
    getattr(ax, f"set_{axis}lim")(-0.7, max(high, 12))


def _points(ax: Any, record: dict[str, Any], x: Any, y: Any) -> None:
    palette = hs.plot.colours(METHODS)
    for teacher, marker in zip(record["settings"]["teachers"], "os^vD", strict=False):
        for method in METHODS:
            rows = of(record, teacher, method)
            faces = {"facecolor": "none"} if method == DESCENT else {"alpha": 0.8}
            ax.scatter([x(row) for row in rows], [y(row) for row in rows], s=32, marker=marker,
                       edgecolor=palette[method], **({"facecolor": palette[method]} | faces),
                       linewidth=1.2, label=f"{method}, teacher {teacher}")


def _sorted(ax: Any, record: dict[str, Any]) -> None:
    palette = hs.plot.colours(METHODS)
    for teacher, style in zip(record["settings"]["teachers"], ("-", "--", ":"), strict=False):
        for method in METHODS:
            values = 100 * np.sort(excess(record, method, (teacher,)))
            ax.plot(np.arange(1, len(values) + 1), values, style, color=palette[method], lw=1.4,
                    marker="os^"[record["settings"]["teachers"].index(teacher)], ms=3.5)


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, SETTINGS, study, findings, draw, arguments,
               networks=networks)


if __name__ == "__main__":
    main()
