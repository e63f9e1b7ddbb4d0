"""Optimal control against gradient descent: who ends lower, and does the lower one generalise?

The same 20-layer network of width 30 on teachers 20 → 4 → 20, from exactly the same starting
weights (a path fit), in the same process and on one thread, compiled beforehand: once by Adam for
about five seconds, once by direct single shooting under a limit of just the seconds that Adam took.
Adam gets its best: for every problem rate and schedule (constant, constant and then decay, cosine)
come from a grid, tried with the very schedule of the run, and the seconds of the grid are not
charged. It also gets a run of four times the epochs at that rate, the schedule chosen anew, and
both get an eighth, where Adam has its whole grid again. The solver in turn goes without the coarse
levels that it begins with where no weights are given. Gradient descent is full batch.

Does a lower objective generalise better? First from the networks above: of every two networks of
one problem, how often the one with the lower J has the lower test error. Then with noise on the
targets, half their deviation, and few samples: both contestants over weight decays from 0.3 to 60
times the usual 0.001 L̃, compared at the same λ, and each at its own best λ, which is chosen on
1000 samples without noise and judged on 1000 others.

Test errors are shares of the mean square of the test targets, so that 1 is a network that says the
training mean. The Hamiltonian H is that of the stable energies along the layers, γ₀ = 1e-3. Its
drift is max − min of −2H/L̃, in dimensions and not in shares of a median that passes near 0; ranks
are the median of that −2H/L̃, which needs no costate, and the least stable cost of identity; the
norm is ∫‖W_p‖² dp. Stationarity is that of the ReLU network itself, where the solver aims at the
network smoothed with ε = 1e-3. A network whose seconds end before it has converged is one on its
way, and is not called optimal.

Run ``python demos/08_control_against_descent.py`` (forty minutes to an hour on one core; it goes
on where it was interrupted): figures/08_control_against_descent.png and
results/08_control_against_descent.json. ``--small`` takes seconds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import common
import numpy as np

import hamshoot as hs
from hamshoot.methods.common.starts import starting_weights
from hamshoot.network.follow_path import equidistant_steps

NAME = "08_control_against_descent"
GAMMA0 = 1e-3
RATES = (0.01, 0.03, 0.1, 0.3)
CONTROL, DESCENT, LONGER = "optimal control", "Adam", "Adam, four times as long"
#: Shares of the seconds: a short run of both, the contest, and one that Adam alone gets.
SHORT, WHOLE, LONG = 0.125, 1, 4
#: Epochs after which the time of an epoch is known.
CALIBRATION = 300
VALIDATION = 1000
#: Objectives closer than this, relatively, count as equal; so do test errors.
EQUAL = 1e-3
SETTINGS = {
    "full": dict(depths=[1.0, 3.0, 5.0, 7.0, 10.0], seeds=[0, 1], dims=[20, 4, 20],
                 samples=200, width=30, layers=20, seconds=5.0,
                 decay=dict(effective_depth=5.0, factors=[0.3, 1.0, 3.0, 10.0, 30.0, 60.0],
                            samples=100, noise=0.5, seconds=2.5)),
    "small": dict(depths=[1.0, 3.0], seeds=[0, 1], dims=[4, 1, 4], samples=20, width=4, layers=6,
                  seconds=0.15, decay=dict(effective_depth=3.0, factors=[1.0, 10.0], samples=12,
                                          noise=0.5, seconds=0.05)),
}


# -- the contest -----------------------------------------------------------------------------------


@cache
def compiled() -> None:
    """Have both contestants compiled in this process, on a problem of seconds."""
    problem = hs.teacher_problem((3, 1, 3), samples=10, effective_depth=1.0, width=3)
    hs.solve(problem, hs.DirectSingleShooting(layers=4, optimizer="kronecker", time_limit=20))
    hs.train(problem, 4, optimizer=hs.Adam(rate=0.03, schedule="constant", epochs=50,
                                           sgd_epochs=0))


def by_control(problem, start: np.ndarray, seconds: float) -> hs.Solution:
    return hs.solve(problem, hs.DirectSingleShooting(
        layers=len(start), optimizer="kronecker", time_limit=seconds), initial_guess=start)


def by_descent(problem, start: np.ndarray, epochs: int, rate: float | None = None,
               schedule: str | None = None) -> hs.Solution:
    """Adam at a rate and with a schedule, each the best of the grid where it is not given."""
    return hs.train(problem, len(start), initial_guess=start, optimizer=hs.Adam(
        rate=rate, rates=RATES, schedule=schedule, epochs=max(1, epochs), sgd_epochs=0))


def epochs_in(problem, start: np.ndarray, seconds: float) -> int:
    """How many epochs of Adam take so many seconds, by a run of some."""
    run = by_descent(problem, start, CALIBRATION, RATES[1], "constant")
    return max(10, round(seconds * run.nit / run.seconds))


def teacher(effective_depth: float, seed: int, settings: dict[str, Any]) -> hs.TrainingProblem:
    """The teacher's data without noise; lift and readout random orthonormal."""
    return hs.teacher_problem(
        settings["dims"], samples=settings["samples"], width=settings["width"], seed=seed,
        effective_depth=effective_depth, lift="orthonormal", readout="orthonormal")


def contest(effective_depth: float, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Both contestants from one start, each for several times."""
    compiled()
    problem = teacher(effective_depth, seed, settings)
    start = starting_weights(problem, equidistant_steps(settings["layers"]), "path", seed)
    epochs = epochs_in(problem, start, settings["seconds"])
    trained = by_descent(problem, start, epochs)
    rate, seconds = trained.extra["rate"], trained.seconds
    found = [
        (CONTROL, SHORT, by_control(problem, start, SHORT * seconds)),
        (CONTROL, WHOLE, by_control(problem, start, WHOLE * seconds)),
        (DESCENT, SHORT, by_descent(problem, start, round(SHORT * epochs))),
        (DESCENT, WHOLE, trained),
        (DESCENT, LONG, by_descent(problem, start, LONG * epochs, rate)),
    ]
    rows = [{"method": method, "share": share, "effective_depth": effective_depth, "seed": seed,
             **described(solution), **tried(solution)} for method, share, solution in found]
    trace = found[1][2].extra["trace"]
    for row in rows[3:]:
        row["matched"] = reached(trace, row["objective"])
    return rows


def tried(solution: hs.Solution) -> dict[str, Any]:
    """What Adam's grid chose, and its seconds; nothing of optimal control."""
    return {key: solution.extra[key] for key in ("rate", "schedule", "grid_seconds")
            if key in solution.extra}


def reached(trace: Iterable[tuple[float, float]], objective: float) -> float | None:
    """Seconds after which the solver's network is at or below an objective."""
    return next((float(t) for t, J in trace if objective >= J), None)


def described(solution: hs.Solution) -> dict[str, Any]:
    """What is compared of a network."""
    problem, e = solution.problem, solution.energies(GAMMA0)
    ranks = -2 * (e.stable_kinetic + e.stable_potential) / problem.effective_depth
    return {
        "objective": solution.objective, "loss": solution.loss,
        "test_error": solution.test_error() / mean_square(problem),
        "norm": solution.parameter_norm, "drift": float(np.ptp(ranks)),
        "rank": float(np.median(ranks)),
        "least_coi": float(e.stable_cost_of_identity.min()),
        "stationarity": solution.stationarity, "seconds": solution.seconds, "nit": solution.nit,
        "status": solution.status.name,
    }


def mean_square(problem: hs.TrainingProblem) -> float:
    """Of the test targets, as the network sees them: the test error of one that says 0."""
    return float(np.mean(np.sum(problem.target_scaling.apply(problem.Y_test) ** 2, axis=1)))


# -- weight decay ----------------------------------------------------------------------------------


def noisy(
    seed: int, factor: float, settings: dict[str, Any]
) -> tuple[hs.TrainingProblem, np.ndarray, np.ndarray]:
    """A teacher's data with noise on the training targets; inputs and targets to choose λ on."""
    from hamshoot.problem.readers import teacher_data

    decay = settings["decay"]
    X, Y, X_test, Y_test = teacher_data(settings["dims"], decay["samples"], 2 * VALIDATION, seed)
    noise = decay["noise"] * Y.std() * np.random.default_rng([seed, 8]).standard_normal(Y.shape)
    problem = hs.TrainingProblem(
        X, Y + noise, X_test=X_test[VALIDATION:], Y_test=Y_test[VALIDATION:], seed=seed,
        effective_depth=decay["effective_depth"], width=settings["width"], standardize="common",
        lift="orthonormal", readout="orthonormal",
        weight_decay=1e-3 * factor * decay["effective_depth"])
    return problem, X_test[:VALIDATION], Y_test[:VALIDATION]


def decayed(factor: float, seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Both contestants at one weight decay."""
    compiled()
    problem, *chosen_on = noisy(seed, factor, settings)
    start = starting_weights(problem, equidistant_steps(settings["layers"]), "path", seed)
    epochs = epochs_in(problem, start, settings["decay"]["seconds"])
    trained = by_descent(problem, start, epochs)
    found = {CONTROL: by_control(problem, start, trained.seconds), DESCENT: trained}
    return [{"method": method, "factor": factor, "seed": seed,
             **{key: value for key, value in described(solution).items()
                if key != "drift"},
             "validation_error": solution.to_network().error(*chosen_on) / mean_square(problem),
             "rate": solution.extra.get("rate"), "schedule": solution.extra.get("schedule")}
            for method, solution in found.items()]


def study(settings: dict[str, Any], each: Callable) -> dict[str, Any]:
    """The contest over L̃, then over λ."""
    jobs = [dict(effective_depth=depth, seed=seed, settings=settings)
            for depth in settings["depths"] for seed in settings["seeds"]]
    rows = each(contest, jobs)
    jobs = [dict(factor=factor, seed=seed, settings=settings)
            for factor in settings["decay"]["factors"] for seed in settings["seeds"]]
    return {"networks": [row for found in rows for row in found],
            "decays": [row for found in each(decayed, jobs) for row in found]}


# -- findings --------------------------------------------------------------------------------------


def of(record: dict[str, Any], method: str, depth: float | None = None) -> list[dict[str, Any]]:
    """Networks of a contestant, at one L̃ or all, in the order of the problems."""
    name, share = (DESCENT, LONG) if method == LONGER else (method, WHOLE)
    return [row for row in record["networks"] if (row["method"], row["share"]) == (name, share)
            and depth in (None, row["effective_depth"])]


def over_decay(record: dict[str, Any], method: str, factor: float | None = None) -> list[dict]:
    return [row for row in record["decays"] if row["method"] == method
            and factor in (None, row["factor"])]


def below(a: float, b: float) -> bool:
    """Lower by more than what counts as equal."""
    return a < b * (1 - EQUAL) if b > 0 else a < b


def wins(first: list[dict], second: list[dict], key: str) -> tuple[int, int]:
    """How often the first is lower, and the second."""
    pairs = [(a[key], b[key]) for a, b in zip(first, second, strict=True)]
    return sum(below(a, b) for a, b in pairs), sum(below(b, a) for a, b in pairs)


def medians(record: dict[str, Any], method: str, key: str) -> str:
    """Over seeds, at every L̃, to three digits."""
    return ", ".join(f"{float(f'{np.median([r[key] for r in of(record, method, depth)]):.3g}'):g}"
                     for depth in record["settings"]["depths"])


def ordered(pairs: Iterable[tuple[dict, dict]]) -> list[tuple[float, float]]:
    """Of pairs that differ in J: log of the higher J over the lower, of their test errors too."""
    found = []
    for a, b in pairs:
        low, high = (a, b) if a["objective"] < b["objective"] else (b, a)
        if below(low["objective"], high["objective"]):
            found.append((np.log(high["objective"] / low["objective"]),
                          np.log(high["test_error"] / low["test_error"])))
    return found


def problems(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Networks by problem."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        key = row.get("effective_depth"), row.get("factor"), row["seed"]
        found.setdefault(key, []).append(row)
    return list(found.values())


def pairs_of(rows: list[dict[str, Any]], methods: tuple[str, str]) -> list[tuple[dict, dict]]:
    """Every two networks of one problem, of these two methods."""
    return [pair for group in problems(rows) for pair in itertools.combinations(group, 2)
            if sorted(row["method"] for row in pair) == sorted(methods)]


def tally(pairs: Iterable[tuple[dict, dict]]) -> tuple[int, int]:
    """In how many pairs the lower J has the lower test error, and of how many."""
    found = ordered(pairs)
    return sum(test > 0 for _, test in found), len(found)


def verdict(count: int, total: int) -> str:
    """Yes or no where it is more than two standard errors of a fair coin from even."""
    if abs(2 * count - total) <= 2 * np.sqrt(total):
        return "undecided"
    return "yes" if 2 * count > total else "no"


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    return [objectives(record), tests(record), how_ended(record), longer(record), seconds(record),
            *measures(record), generalisation(record), *regularised(record), answer(record)]


def where_descent_wins(first: list[dict], second: list[dict], key: str) -> str:
    lost = Counter(b["effective_depth"] for a, b in zip(first, second, strict=True)
                   if below(b[key], a[key]))
    if not lost:
        return "Adam wins nowhere"
    at = ", ".join(f"{lost[d]} at L̃ = {d:g}" for d in sorted(lost))
    return f"Adam wins {sum(lost.values())}: {at}"


def over_depths(record: dict[str, Any]) -> str:
    return f"L̃ = {common.listed(record['settings']['depths'])}"


def objectives(record: dict[str, Any]) -> str:
    control, descent = of(record, CONTROL), of(record, DESCENT)
    ratio = [b["objective"] / a["objective"] for a, b in zip(control, descent, strict=True)]
    return (f"Objective after the same seconds: optimal control ends lower in "
            f"{wins(control, descent, 'objective')[0]} of {len(control)} problems, "
            f"{where_descent_wins(control, descent, 'objective')}. The J of Adam is "
            f"{common.spread(ratio)} times that of optimal control. Medians at "
            f"{over_depths(record)}: {medians(record, CONTROL, 'objective')} (optimal control) "
            f"and {medians(record, DESCENT, 'objective')} (Adam).")


def tests(record: dict[str, Any]) -> str:
    control, descent = of(record, CONTROL), of(record, DESCENT)
    return (f"Test error after the same seconds, in shares of the targets' mean square: optimal "
            f"control is lower in {wins(control, descent, 'test_error')[0]} of {len(control)}, "
            f"{where_descent_wins(control, descent, 'test_error')}. Medians: "
            f"{medians(record, CONTROL, 'test_error')} (optimal control) and "
            f"{medians(record, DESCENT, 'test_error')} (Adam).")


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by the name of the contestant, those with noise apart."""
    return {**{name: of(record, name) for name in (CONTROL, DESCENT, LONGER)},
            **{f"{name}, noise": over_decay(record, name) for name in (CONTROL, DESCENT)}}


def how_ended(record: dict[str, Any]) -> str:
    words = [f"{name}, {common.said(how)}" for name, how in record["ended"].items()]
    return f"How they ended: {'. '.join(words)}."


def longer(record: dict[str, Any]) -> str:
    control, more = of(record, CONTROL), of(record, LONGER)
    ratio = [b["objective"] / a["objective"] for a, b in zip(control, more, strict=True)]
    low, test = (wins(control, more, key) for key in ("objective", "test_error"))
    return (f"With {LONG} times the epochs, at the same rate, Adam ends at a J "
            f"{common.spread(ratio)} times that of optimal control, below it in {low[1]} of "
            f"{len(control)}, and at a lower test error in {test[1]}; medians of its test error: "
            f"{medians(record, LONGER, 'test_error')}.")


def seconds(record: dict[str, Any]) -> str:
    control, descent, more = (of(record, m) for m in (CONTROL, DESCENT, LONGER))
    words = []
    for rows, what in ((descent, "Adam ends at"), (more, "the longer Adam ends at")):
        times = [row["matched"] for row in rows if row["matched"] is not None]
        share = [row["seconds"] / row["matched"] for row in rows if row["matched"] is not None]
        words.append(f"what {what} in {len(times)} of {len(rows)}" + (
            f", after {common.spread(times, '.2g')} s, {np.median(share):.2g} times faster"
            if times else ""))
    grid = [row["grid_seconds"] for row in descent]
    rates = Counter(row["rate"] for row in descent)
    return (f"Seconds: {common.spread([r['seconds'] for r in control], '.2g')} for optimal "
            f"control and {common.spread([r['seconds'] for r in descent], '.2g')} for Adam, "
            f"beside {np.median(grid):.2g} for its whole grid, which chose "
            + ", ".join(f"{rate:g} {count} times" for rate, count in sorted(rates.items()))
            + f". Optimal control reaches {'; '.join(words)}.")


def measures(record: dict[str, Any]) -> list[str]:
    """Norm, drift, ranks and stationarity."""
    control, descent = of(record, CONTROL), of(record, DESCENT)
    total, (true, lines) = len(control), (min(record["settings"]["dims"]), [])
    for key, name in (("norm", "Parameter norm ∫‖W‖² dp"),
                      ("drift", "Drift of −2H/L̃ without costate along the layers"),
                      ("stationarity", "Stationarity")):
        first, second = wins(control, descent, key)
        lines.append(f"{name}: lower for optimal control in {first} of {total}, for Adam in "
                     f"{second}; medians {medians(record, CONTROL, key)} (optimal control) "
                     f"and {medians(record, DESCENT, key)} (Adam).")
    words = [f"{medians(record, m, 'rank')} and {medians(record, m, 'least_coi')} "
             f"({m})" for m in (CONTROL, DESCENT)]
    gap = [[abs(r["rank"] - true) for r in rows] for rows in (control, descent)]
    nearer = sum(a < b for a, b in zip(*gap, strict=True))
    return [" ".join(lines),
            f"Rank, the teacher's is {true}: medians of −2H/L̃ without costate and of the least "
            f"stable cost of identity are {'; '.join(words)}; −2H/L̃ of optimal control is the "
            f"nearer one in {nearer} of {total}."]


def generalisation(record: dict[str, Any]) -> str:
    """Every two networks of one problem."""
    from scipy.stats import spearmanr

    kinds = (((CONTROL, DESCENT), "one of each method"), ((DESCENT, DESCENT), "both of Adam"),
             ((CONTROL, CONTROL), "both of optimal control"))
    words, whole = [], []
    for methods, name in kinds:
        pairs = pairs_of(record["networks"], methods)
        whole += pairs
        words.append("{} of {} pairs".format(*tally(pairs)) + f" with {name}")
    of_groups = [
        spearmanr([r["objective"] for r in group], [r["test_error"] for r in group]).statistic
        for group in problems(record["networks"])
        if len({r["objective"] for r in group}) > 1 < len({r["test_error"] for r in group})]
    found = ordered(whole)
    rho = spearmanr(*np.array(found).T) if len(found) > 2 else None
    return (
        "Of two networks of one problem, trained for an eighth of the seconds, for all of them or "
        f"for {LONG} times as many, the one of lower J has the lower test error in "
        "{} of {} pairs: ".format(*tally(whole)) + ", ".join(words) + ". "
        f"Spearman's correlation of J and test error within a problem, five networks each, is "
        f"{common.spread(of_groups, '.2f')}"
        + (f"; over all pairs that of the two ratios, of J and of test error, is "
           f"{rho.statistic:+.2f}."
           if rho is not None else "."))


def chosen(record: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """Of every seed the network of the λ with the least validation error."""
    return [min((r for r in over_decay(record, method) if r["seed"] == seed),
                key=lambda r: r["validation_error"]) for seed in record["settings"]["seeds"]]


def regularised(record: dict[str, Any]) -> list[str]:
    """Noise: at the same λ, and each at its own."""
    words = []
    for factor in record["settings"]["decay"]["factors"]:
        both = [over_decay(record, m, factor) for m in (CONTROL, DESCENT)]
        low, test = wins(*both, "objective"), wins(*both, "test_error")
        words.append(f"{factor:g}: J {low[0]} to {low[1]}, test error {test[0]} to {test[1]}")
    own = [chosen(record, m) for m in (CONTROL, DESCENT)]
    first, second = wins(*own, "test_error")
    best = [f"{common.spread([r['test_error'] for r in rows], '.3f')} at "
            f"{common.listed(sorted({r['factor'] for r in rows}))} times the usual λ ({name})"
            for rows, name in zip(own, (CONTROL, DESCENT), strict=True)]
    usual = [common.spread([r["test_error"] for r in over_decay(record, m, 1.0)], ".3f")
             for m in (CONTROL, DESCENT)]
    return [
        f"With noise on the targets, {len(record['settings']['seeds'])} teachers, optimal control "
        f"against Adam, who is lower at the same λ, in units of the usual one: {'; '.join(words)}.",
        f"With noise, each at its own best λ, the test error is {' and '.join(best)}; lower for "
        f"optimal control in {first}, for Adam in {second} of {len(own[0])}. At the usual λ it is "
        f"{usual[0]} (optimal control) and {usual[1]} (Adam).",
    ]


def answer(record: dict[str, Any]) -> str:
    """Yes or no, by count, for each of the questions."""
    whole = [row for row in record["networks"] if row["share"] == WHOLE]
    parts = [("without noise, the two after the same seconds",
              tally(pairs_of(whole, (CONTROL, DESCENT))))]
    factors = record["settings"]["decay"]["factors"]
    middle = len(factors) // 2
    for some in (factors[:middle], factors[middle:]):
        rows = [row for row in record["decays"] if row["factor"] in some]
        span = f"{some[0]:g}" if len(some) == 1 else f"{some[0]:g} to {some[-1]:g}"
        parts.append((f"with noise at {span} times the usual λ",
                      tally(pairs_of(rows, (CONTROL, DESCENT)))))
    words = [f"{verdict(*counts)} {name} (the lower J has the lower test error in {counts[0]} of "
             f"{counts[1]})" for name, counts in parts]
    own = wins(chosen(record, CONTROL), chosen(record, DESCENT), "test_error")
    learner = verdict(own[0], sum(own))
    return (
        f"Does a lower objective generalise better? {capital('; '.join(words))}. Does optimal "
        f"control learn better than Adam, each at its own best λ? {capital(learner)} (lower test "
        f"error {own[0]} to {own[1]}). Yes and no stand for more than two standard errors from "
        "even, as if the pairs were independent.")


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Six measures over L̃; who generalises; test error over λ."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(15.0, 7.8), layout="constrained")
    axes = fig.subplots(2, 4)
    palette = hs.plot.colours((CONTROL, DESCENT, LONGER))
    every = (CONTROL, DESCENT, LONGER)
    _over_depth(axes[0, 0], record, every, "objective", "(a) objective", "$J$")
    _over_depth(axes[0, 1], record, every, "test_error", "(b) test error",
                "share of the targets' mean square")
    _over_depth(axes[0, 2], record, every, "norm", "(c) parameter norm", r"$\int\|W_p\|^2\,dp$")
    _over_depth(axes[0, 3], record, every, "drift", "(d) drift of the Hamiltonian",
                r"$\max-\min$ of $-2H/\tilde{L}$, stable")
    _ranks(axes[1, 0], record, every, palette)
    _matched(axes[1, 1], record, palette)
    _pairs(axes[1, 2], record)
    _decays(axes[1, 3], record, palette)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    marked = common.labelled(CONTROL, record["ended"][CONTROL])
    labels = [label.replace(CONTROL, marked) for label in labels]
    more, named = axes[1, 2].get_legend_handles_labels()
    fig.legend([*handles, *more], [*labels, *named], loc="outside lower center", ncols=5,
               frameon=False, fontsize=9)
    return fig


def _series(ax, x, values, colour: str, marker: str, label: str, offset: np.ndarray) -> None:
    """The median as a line, every seed as a point beside it."""
    ax.plot(x, [np.median(v) for v in values], "-", color=colour, lw=1.8, marker=marker, ms=6,
            label=f"{label}, median")
    for at, found in zip(offset, values, strict=True):
        ax.plot(np.full(len(found), at), found, ls="", marker=marker, ms=3.5, color=colour,
                alpha=0.45, mec="none")


def _over_depth(ax, record, methods, key, title, label, log: bool = True) -> None:
    depths = np.array(record["settings"]["depths"])
    palette = hs.plot.colours((CONTROL, DESCENT, LONGER))
    for k, (method, marker) in enumerate(zip(methods, "os^", strict=False)):
        values = [[row[key] for row in of(record, method, d)] for d in depths]
        _series(ax, depths, values, palette[method], marker, method, depths + 0.22 * (k - 1))
    if log:
        ax.set_yscale("log")
        common.plain_ticks(ax)
    ax.set_xticks(depths)
    common.dress(ax, title, r"effective depth $\tilde{L}$", label)


def _ranks(ax, record, methods, palette) -> None:
    """−2H/L̃ with its seeds, and the medians of the least cost of identity dashed."""
    depths, true = np.array(record["settings"]["depths"]), min(record["settings"]["dims"])
    _over_depth(ax, record, methods, "rank", r"(e) rank: $-2H/\tilde{L}$; least COI dashed",
                "dimension, without costate", log=False)
    for method in methods:
        ax.plot(depths, [np.median([r["least_coi"] for r in of(record, method, d)])
                         for d in depths], "--", color=palette[method], lw=1.3)
    ax.axhline(true, color="#666666", lw=1, ls=":")
    ax.annotate(f"teacher's {true}", (0, true), xycoords=("axes fraction", "data"),
                xytext=(3, -3), textcoords="offset points", ha="left", va="top", fontsize=8,
                color="#444444")
    ax.set_yscale("symlog", linthresh=10, linscale=1.5)
    low, high = ax.get_ylim()
    ticks = [t for t in (-10000, -1000, -100, -10, -5, 0, 5, 10, 100, 1000) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}".replace("-", "−") for t in ticks])
    ax.set_yticks([], minor=True)


def _matched(ax, record, palette) -> None:
    depths = np.array(record["settings"]["depths"])
    for k, (method, marker) in enumerate(((DESCENT, "s"), (LONGER, "^"))):
        values = [[row["seconds"] / row["matched"] for row in of(record, method, d)
                   if row["matched"] is not None] for d in depths]
        have = [i for i, v in enumerate(values) if v]
        _series(ax, depths[have], [values[i] for i in have], palette[method], marker, method,
                depths[have] + 0.16 * k)
    ax.axhline(1, color="#666666", lw=1, ls=":")
    ax.set_yscale("log")
    common.plain_ticks(ax)
    ax.set_xticks(depths)
    ax.set_xlim(depths[0] - 0.45, depths[-1] + 0.67)
    common.dress(ax, "(f) time for the same objective", r"effective depth $\tilde{L}$",
                 "seconds of Adam / of optimal control")


def _pairs(ax, record) -> None:
    """Ratios of test errors over those of objectives: above 1 the lower J generalises better."""
    colours = hs.plot.colours(("", "", "", "two networks of one problem", "with noise"))
    kinds = (("two networks of one problem", "D", [
                 pair for group in problems(record["networks"])
                 for pair in itertools.combinations(group, 2)]),
             ("with noise", "o", pairs_of(record["decays"], (CONTROL, DESCENT))))
    names = ("a pair of networks, no noise (g)", "a pair, noise, any $\\lambda$ (g)")
    for (kind, marker, pairs), name in zip(kinds, names, strict=True):
        found = np.exp(np.array(ordered(pairs)).reshape(-1, 2))
        ax.plot(found[:, 0] - 1, found[:, 1], ls="", marker=marker, ms=4.5, alpha=0.6,
                color=colours[kind], mec="none", label=name)
    ax.axhline(1, color="#666666", lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    common.plain_ticks(ax)
    for at, words in ((0.98, "lower $J$ generalises better"),
                      (0.02, "lower $J$ generalises worse")):
        ax.text(0.02, at, words, transform=ax.transAxes, fontsize=8, color="#444444",
                va="top" if at > 0.5 else "bottom")
    ax.margins(y=0.15)
    common.dress(ax, "(g) does a lower objective generalise better?",
                 "higher $J$ / lower $J$, minus 1", "test error, of higher / of lower $J$")


def _decays(ax, record, palette) -> None:
    factors = np.array(record["settings"]["decay"]["factors"])
    for k, (method, marker) in enumerate(((CONTROL, "o"), (DESCENT, "s"))):
        values = [[row["test_error"] for row in over_decay(record, method, f)] for f in factors]
        _series(ax, factors, values, palette[method], marker, method, factors * 1.06 ** (2 * k - 1))
    ax.axvline(1, color="#666666", lw=1, ls=":")
    ax.axhline(1, color="#666666", lw=1, ls=":")
    ax.set_xscale("log")
    ax.set_xticks(factors, [f"{f:g}" for f in factors])
    ax.minorticks_off()
    ax.set_yscale("log")
    common.plain_ticks(ax)
    common.dress(ax, "(h) noisy targets", r"weight decay, $\lambda\,/\,0.001\tilde{L}$",
                 "test error, share of mean square")


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, SETTINGS, study, findings, draw, arguments,
               networks=networks)


if __name__ == "__main__":
    main()
