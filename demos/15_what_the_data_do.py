"""What each sample does to a network, told without solving again; how far predictions spread.

A noisy teacher's table. `hs.influence` leaves out each sample in turn, to first order (derivative)
and to second (a Newton step with the activations on the kink held), and is compared with the true
removal of every sample: the problem without it, solved from there. On ReLU networks the
activations that change sides are counted, to first order.

`Solution.predictive_spread` is the linearised Laplace approximation at the same network. Its
intervals are compared with new targets, and with the teacher's own values without noise, over
tables of several sizes: calibrated is what holds as many as it says.

Run ``python demos/15_what_the_data_do.py`` (two minutes): it draws figures/15_what_the_data_do.png
and writes results/15_what_the_data_do.json. ``--small`` takes seconds, and writes to ``--out
DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import dress, labelled, listed, run, said, spread
from scipy.stats import spearmanr

import hamshoot as hs

NAME = "15_what_the_data_do"
SETTINGS = {
    "full": dict(seeds=[0, 1, 2], tables=[0, 1, 2, 3, 4, 5], samples=50,
                 sizes=[30, 100, 300], new=1000, noise=0.3, layers=6, width=4,
                 effective_depth=2.0, weight_decay=0.05),
    "small": dict(seeds=[0], tables=[0], samples=12, sizes=[14], new=60, noise=0.3, layers=3,
                  width=3, effective_depth=1.0, weight_decay=0.1),
}
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
MEASURES = ("objective", "test_error")
ACTIVATIONS = ("relu", "smooth_relu")
WORDS = {"objective": "J", "test_error": "the test error", "relu": "ReLU",
         "smooth_relu": "smooth ReLU"}
LEFT_OUT, SPREAD = "networks of which samples are left out", "networks whose predictions spread"


def table(seed: int, samples: int, new: int, noise: float) -> tuple[np.ndarray, ...]:
    """Inputs 3, targets 2, through two ReLUs of unit variance, with noise; and without."""
    rng = np.random.default_rng([seed, 15])
    X = rng.standard_normal((samples + new, 3))
    F = np.maximum(X @ rng.standard_normal((3, 2)), 0) @ rng.standard_normal((2, 2))
    F = F / F.std(axis=0)
    return X, F + noise * rng.standard_normal(F.shape), F


def problem_of(
    seed: int, samples: int, activation: str, new: int, noise: float, width: int,
    effective_depth: float, weight_decay: float,
) -> hs.TrainingProblem:
    """The training problem of a table, whose last rows are new ones."""
    X, Y, _ = table(seed, samples, new, noise)
    return hs.TrainingProblem(
        X[:samples], Y[:samples], X_test=X[samples:], Y_test=Y[samples:], width=width,
        effective_depth=effective_depth, weight_decay=weight_decay, activation=activation,
        standardize=True)


def left_out(seed: int, activation: str, layers: int, **settings: Any) -> dict[str, Any]:
    """Every sample left out: to first order, to second, and by solving without it."""
    solution = hs.solve(problem_of(seed, activation=activation, **settings), layers=layers,
                        tol=1e-9, effort="quick")
    row: dict[str, Any] = {
        "seed": seed, "activation": activation, "status": solution.status.name,
        "stationarity": solution.stationarity, "second_order": solution.extra["second_order"]}
    try:
        for on in MEASURES:
            began = time.process_time()
            found = hs.influence(solution, on)
            seconds, began = time.process_time() - began, time.process_time()
            true = found.resolve()
            row[on] = {"value": found.value, "first": found.first.tolist(),
                       "second": found.second.tolist(),
                       "true": [None if np.isnan(one) else one for one in true.tolist()],
                       "changes": found.changes.tolist(), "whole": found.whole.tolist(),
                       "seconds": seconds, "solving_seconds": time.process_time() - began}
    except ValueError as reason:
        row["refused"] = str(reason)
    return row


def spreading(seed: int, samples: int, layers: int, noise: float, new: int,
              **settings: Any) -> dict[str, Any]:
    """How many new targets, and values without noise, the intervals hold."""
    X, Y, F = table(seed, samples, new, noise)
    solution = hs.solve(problem_of(seed, samples, "relu", new, noise, **settings), layers=layers,
                        tol=1e-9, effort="quick")
    row: dict[str, Any] = {"seed": seed, "samples": samples, "status": solution.status.name,
                           "stationarity": solution.stationarity}
    try:
        found = solution.predictive_spread(X[samples:])
    except ValueError as reason:
        return {**row, "refused": str(reason)}
    held = {"targets": [], "values": []}
    for level in LEVELS:
        held["targets"].append(found.coverage(Y[samples:], level))
        low, high = found.interval(level, noise=False)
        held["values"].append(float(np.mean((low <= F[samples:]) & (F[samples:] <= high))))
    return {**row, **held, "noise": found.noise.tolist(), "network": float(
        np.median(found.network)), "effective": found.effective_parameters}


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    """All tables."""
    fixed = {name: settings[name] for name in ("layers", "width", "effective_depth",
                                               "weight_decay", "noise", "new")}
    return {
        "rows": each(left_out, [
            {"seed": seed, "activation": activation, "samples": settings["samples"], **fixed}
            for activation in ACTIVATIONS for seed in settings["seeds"]]),
        "spreads": each(spreading, [
            {"seed": seed, "samples": samples, **fixed}
            for samples in settings["sizes"] for seed in settings["tables"]]),
    }


# -- what was found --------------------------------------------------------------------------------


def compared(row: dict[str, Any], on: str, most: float = np.inf) -> dict[str, np.ndarray]:
    """First and second order and the truth, of samples without which the solve converged.

    And whose step is Newton's own with at most `most` changes of sides, where that is finite.
    """
    part = row[on]
    true = np.array([np.nan if one is None else one for one in part["true"]])
    keep = np.isfinite(true)
    if np.isfinite(most):
        keep &= np.array(part["whole"]) & (np.array(part["changes"]) <= most)
    return {"true": true[keep], "changes": np.array(part["changes"])[keep],
            **{name: np.array(part[name])[keep] for name in ("first", "second")}}


def correlations(rows: list[dict[str, Any]], on: str, order: str, most: float = np.inf
                 ) -> list[float]:
    """Rank correlation with the truth, of every table in which there are five samples or more."""
    found = []
    for row in rows:
        if "refused" not in row:
            part = compared(row, on, most)
            if len(part["true"]) >= 5:
                found.append(float(spearmanr(part[order], part["true"])[0]))
    return found


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    sentences = [f"{name.capitalize()}: {said(how)}." for name, how in record["ended"].items()]
    for activation in ACTIVATIONS:
        rows = [row for row in record["rows"] if row["activation"] == activation]
        refused = sum("refused" in row for row in rows)
        if refused:
            sentences.append(f"{WORDS[activation]}: {refused} of {len(rows)} refused.")
        for on in MEASURES:
            first, second = (correlations(rows, on, order) for order in ("first", "second"))
            if second:
                sentences.append(
                    f"{WORDS[activation]}, {WORDS[on]} without each of "
                    f"{record['settings']['samples']} samples: the rank correlation with true "
                    f"removal is {spread(first, '.3f')} to first order and "
                    f"{spread(second, '.3f')} to second.")
        sentences += _sets(rows, activation)
    return [*sentences, *_seconds(record["rows"]), *_calibration(record)]


def _sets(rows: list[dict[str, Any]], activation: str) -> list[str]:
    """Where the active set holds, and what the correlation is there."""
    rows = [row for row in rows if "refused" not in row]
    if not rows:
        return []
    total = sum(len(row["objective"]["whole"]) for row in rows)
    whole = sum(sum(row["objective"]["whole"]) for row in rows)
    words = [f"{WORDS[activation]}: Newton's own step was taken for {whole} of {total} samples, "
             "cut or shifted for the others."]
    if activation == "relu":
        changes = np.concatenate([row["objective"]["changes"] for row in rows])
        words.append(f"ReLU: the active set holds, to first order, for {int(np.sum(changes == 0))} "
                     f"of {total} samples; the others change {np.median(changes):g} activations "
                     f"in the median, {int(changes.max())} at most.")
    for most, what in ((0, "the active set holds"), (3, "at most three activations change sides")):
        if activation != "relu" and most:
            continue
        for on in MEASURES:
            pooled = [compared(row, on, most) for row in rows]
            second, true = (np.concatenate([part[name] for part in pooled])
                            for name in ("second", "true"))
            if len(true) >= 5:
                words.append(
                    f"{WORDS[activation]}, {WORDS[on]}, the {len(true)} samples of all tables of "
                    f"which the step is Newton's own and {what}: rank correlation "
                    f"{spearmanr(second, true)[0]:.3f} to second order.")
    return words


def _seconds(rows: list[dict[str, Any]]) -> list[str]:
    parts = [row[on] for row in rows if "refused" not in row for on in MEASURES]
    if not parts:
        return []
    return [f"All samples take {spread((part['seconds'] for part in parts), '.2g')} s of CPU by "
            f"derivatives, {spread((part['solving_seconds'] for part in parts), '.2g')} s by "
            "solving without each."]


def _calibration(record: dict[str, Any]) -> list[str]:
    """Whether intervals hold what they say."""
    sentences = []
    for samples in record["settings"]["sizes"]:
        rows = [row for row in record["spreads"] if row["samples"] == samples]
        told = [row for row in rows if "refused" not in row]
        if len(told) < len(rows):
            sentences.append(f"{samples} samples: {len(rows) - len(told)} of {len(rows)} networks "
                             "have no spread, as the second-order test does not decide them.")
        if not told:
            continue
        for name, what in (("targets", "new targets"), ("values", "values without noise")):
            shares = np.array([row[name] for row in told])
            nine, half = shares[:, LEVELS.index(0.9)], shares[:, LEVELS.index(0.5)]
            verdict = verdict_of(float(np.median(nine)), 0.9)
            sentences.append(
                f"{samples} samples, {what}: the interval for 90 % holds {spread(100 * nine)} %, "
                f"that for 50 % {spread(100 * half)} %: {verdict}.")
    return sentences


def verdict_of(share: float, level: float) -> str:
    """A word for a share against its level."""
    if abs(share - level) <= 0.03:
        return "calibrated to 3 %"
    return "too narrow" if share < level else "too wide"


def draw(record: dict[str, Any]) -> Any:
    """Removal by derivatives over true removal, of both measures, and calibration."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    name = labelled("", record["ended"][LEFT_OUT]).strip()
    rows = [row for row in record["rows"] if "refused" not in row]
    for ax, on in ((left, "objective"), (middle, "test_error")):
        palette = hs.plot.colours(["first order", "second order"])
        for order, size in (("first", 9), ("second", 9)):
            true, told = (np.concatenate([compared(row, on)[part] for row in rows] or [[]])
                          for part in ("true", order))
            ax.plot(true, told, ls="", marker="o" if order == "second" else "x",
                    ms=size / 2.5, alpha=0.6, mew=0.8, color=palette[f"{order} order"],
                    label=f"{order} order")
        ends = np.array(ax.get_xlim())
        ax.plot(ends, ends, color="#777777", lw=0.8, zorder=0)
        dress(ax, f"A sample left out: change of {WORDS[on]}{' ' + name if name else ''}",
              "by solving without it", "by derivatives")
        ax.locator_params(nbins=5)
        ax.legend(frameon=False, fontsize=9)
    sizes = record["settings"]["sizes"]
    palette = hs.plot.colours([f"{samples} samples" for samples in sizes])
    for samples in sizes:
        told = [row for row in record["spreads"]
                if row["samples"] == samples and "refused" not in row]
        if told:
            for part, style in (("targets", "-"), ("values", ":")):
                right.plot(LEVELS, np.median([row[part] for row in told], axis=0), style,
                           marker="o", ms=3.5, color=palette[f"{samples} samples"],
                           label=f"{samples} samples" if part == "targets" else None)
    right.plot([0, 1], [0, 1], color="#777777", lw=0.8, zorder=0)
    dress(right, "Intervals of `predictive_spread`: solid, for new\ntargets; dotted, for values "
                 "without noise", "level", f"share held, {listed(sizes)} samples")
    right.legend(frameon=False, fontsize=9)
    return figure


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of networks by the name that sentences call them."""
    return {LEFT_OUT: record["rows"], SPREAD: record["spreads"]}


def main(arguments: list[str] | None = None) -> None:
    """Run the demo."""
    run(NAME, __doc__, SETTINGS, study, findings, draw, arguments, networks=networks)


if __name__ == "__main__":
    main()
