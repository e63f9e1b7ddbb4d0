"""An exact stationary point of a ReLU network, beside what Adam and a smooth ReLU leave.

At a stationary point a ReLU network has hidden activations exactly on the kink of ReLU, where its
objective has no gradient. Training comes near and then jumps from one side of the kinks to the
other: the gradient of Adam's network does not settle. Here one network is trained by Adam, solved
as a network of smooth ReLUs down a ladder of widths ε, and from there polished: the entries on the
kink are held at 0 and get a multiplier d ∈ [0, 1] each, which stands for the slope. What comes out
is stationary for the ReLU network itself, in Clarke's sense, to rounding. Whether it is a minimum
is another matter: the certificate says how far that is decided, in its own words.

Run ``python demos/03_exact_relu_optimum.py`` (half a minute): it draws
figures/03_exact_relu_optimum.png and writes results/03_exact_relu_optimum.json. ``--small`` takes a
tiny network and seconds, and writes to ``--out DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import endings, places, said, where_and_when

import hamshoot as hs
from hamshoot.theory.clarke import clarke_residual

NAME = "03_exact_relu_optimum"
FULL = dict(seed=0, layers=20, dims=(8, 2, 8), samples=50, width=8, effective_depth=3.0,
            weight_decay=3e-3)
SMALL = dict(seed=1, layers=8, dims=(4, 2, 4), samples=12, width=4, effective_depth=3.0,
             weight_decay=3e-3)
ADAM_FULL = dict(epochs=30_000, sgd_epochs=6000)
ADAM_SMALL = dict(epochs=300, sgd_epochs=100)
ADAM, SMOOTH, EXACT = "Adam", "smooth ReLU", "polished ReLU"
#: Activations of exactly 0 are drawn at this size.
SMALLEST = 1e-17


def networks(
    settings: dict[str, Any], adam: dict[str, Any]
) -> dict[str, tuple[hs.Solution, list[hs.Record]]]:
    """The three networks, from one start, with every record on the way."""
    given = {k: v for k, v in settings.items() if k != "layers"}
    problem, layers = hs.teacher_problem(test_samples=0, **given), settings["layers"]
    options = dict(layers=layers, starts=1, reheats=0, seed=settings["seed"])
    ways = {
        ADAM: lambda keep: hs.train(problem, layers, optimizer=hs.Adam(**adam),
                                    seed=settings["seed"], callback=keep),
        SMOOTH: lambda keep: hs.solve(
            problem, hs.DirectSingleShooting(polish=False, **options), callback=keep),
        EXACT: lambda keep: hs.solve(
            problem, hs.DirectSingleShooting(**options), callback=keep),
    }
    done = {}
    for name, way in ways.items():
        records: list[hs.Record] = []
        done[name] = way(records.append), records
    return done


def numbers(solution: hs.Solution, records: list[hs.Record]) -> dict[str, Any]:
    """What the reference formulas say of the ReLU network, and its history."""
    certificate = hs.certify(solution)
    W, A = solution.weights, solution.representations
    clarke = clarke_residual(solution.problem, A, W, solution.steps)
    d, hidden = clarke.slopes[clarke.on_kink], np.abs(A[1:-1]).ravel()
    return {
        "status": solution.status.name, "objective": solution.objective,
        "stationarity": solution.stationarity, "clarke_residual": certificate.clarke_residual,
        "kinks": certificate.kinks, "hidden": hidden.size,
        "least_activation": float(hidden.min()),
        "second_order": certificate.second_order,
        "min_eigenvalue": None if np.isnan(certificate.min_eigenvalue)
        else certificate.min_eigenvalue,
        "multipliers": sorted(map(float, d)), "seconds": solution.seconds,
        "controls": W.size, "activations": [float(f"{a:.3g}") for a in hidden],
        "history": [(r.seconds, r.objective, r.stationarity, r.stage) for r in records],
    }


def findings(rows: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    adam, smooth, exact = rows[ADAM], rows[SMOOTH], rows[EXACT]
    gap = (adam["objective"] - exact["objective"]) / exact["objective"]
    where = "above" if gap > 0 else "below"
    d = exact["multipliers"]
    lines = [
        f"Adam ends after {adam['seconds']:.1f} s at J = {adam['objective']:.6f}, with "
        f"{adam['kinks']} of its {adam['hidden']} hidden activations within the tolerance of the "
        f"kink and, with the best slopes there, {_stationary(adam)}.",
        f"The network of smooth ReLUs ends after {smooth['seconds']:.1f} s; as a ReLU network it "
        f"has J = {smooth['objective']:.6f}, {smooth['kinks']} activations on the kink and "
        f"{_stationary(smooth)}.",
        f"The polished network takes {exact['seconds']:.1f} s, smooth ladder included: "
        f"J = {exact['objective']:.6f}, {exact['kinks']} of {exact['hidden']} hidden activations "
        f"on the kink, {_stationary(exact)}.",
        f"Adam's objective lies {100 * abs(gap):.2g} % {where} that of the polished network.",
        f"The certificate says of the polished network: {exact['second_order']}.",
        f"It says of Adam's network: {adam['second_order']}.",
        "How they ended: " + "; ".join(
            f"{name}, {said(endings([row]))}" for name, row in rows.items()) + ".",
    ]
    if d:
        edge = min(min(d), 1 - max(d))
        lines.append(f"Every multiplier lies in [0, 1], from {min(d):.2g} to {max(d):.4g}, and "
                     f"{edge:.1e} or more from either end.")
    if exact["min_eigenvalue"] is not None:
        lines.append(f"The smallest eigenvalue of the Hessian on the null space of the "
                     f"{exact['kinks']} constraints, among {exact['controls']} controls, is "
                     f"{exact['min_eigenvalue']:.2e}.")
    return lines


def _stationary(row: dict[str, Any]) -> str:
    return (f"a stationarity of {row['stationarity']:.1e} (Clarke residual "
            f"{row['clarke_residual']:.1e})")


# -- the figure ------------------------------------------------------------------------------------


def draw(rows: dict[str, Any]) -> Any:
    """Stationarity against time, activations near 0, and the multipliers on the kink."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(12.0, 4.2), layout="constrained")
    axes = fig.subplots(1, 3, width_ratios=(1.15, 1, 0.9))
    palette = hs.plot.colours(rows)
    _stationarity(axes[0], rows, palette)
    _activations(axes[1], rows, palette)
    _multipliers(axes[2], rows[EXACT], palette[EXACT])
    for ax in axes:
        ax.grid(color="#dddddd", lw=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return fig


def _stationarity(ax: Any, rows: dict[str, Any], palette: dict[str, str]) -> None:
    walked = [h for h in rows[EXACT]["history"] if np.isfinite(h[2]) and h[2] > 0]
    polished = [h for h in walked if h[3].startswith("polish")]
    curves = {ADAM: (rows[ADAM]["history"], "-"),
              SMOOTH: ([h for h in walked if not h[3].startswith("polish")], "-"),
              EXACT: (polished or walked[-1:], ".-")}
    for name, (history, style) in curves.items():
        shown = [h for h in history if np.isfinite(h[2]) and h[2] > 0]
        ax.plot([h[0] for h in shown], [h[2] for h in shown], style, color=palette[name], lw=1.2,
                ms=7, label=name)
        ax.plot(shown[-1][0], max(rows[name]["stationarity"], SMALLEST), "*", ms=13, mec="white",
                color=palette[name], clip_on=False, zorder=3)
    ax.plot([], [], "*", ms=12, color="#595959",
            label="the ReLU network at the end, best slopes $d$ on the kink")
    ax.set_yscale("log")
    ax.set_xlim(0, None)
    ax.set_xlabel("seconds (Adam's with its grid of rates)")
    ax.set_ylabel(r"$\max_\ell\,\|W_\ell - \tilde L B_\ell\hat\sigma(A_{\ell-1})^T\|"
                  r"\,/\,\max(1, \|W_\ell\|)$")


def _activations(ax: Any, rows: dict[str, Any], palette: dict[str, str]) -> None:
    edges = np.linspace(np.log10(SMALLEST), 2.0, 39)
    for name, row in rows.items():
        sizes = np.log10(np.clip(row["activations"], SMALLEST * 1.01, None))
        counts = np.histogram(sizes, edges)[0]
        ax.stairs(np.maximum(counts, 0.5), 10.0**edges, color=palette[name], lw=1.6,
                  fill=name == EXACT, alpha=0.35 if name == EXACT else 1.0, baseline=0.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.7, None)
    ax.set_xlim(SMALLEST, 1e2)
    ax.set_xlabel(r"$|A_{\ell,ij}|$ of hidden layers (0 drawn at the left end)")
    ax.set_ylabel("number of entries")


def _multipliers(ax: Any, row: dict[str, Any], colour: str) -> None:
    d = row["multipliers"]
    ax.plot(np.arange(1, len(d) + 1), d, "o", ms=4, color=colour)
    for edge in (0, 1):
        ax.axhline(edge, color="#595959", lw=0.9)
    ax.set_ylim(-0.08, 1.08)
    ax.set_xlabel("entry on the kink, sorted")
    ax.set_ylabel("multiplier $d$, the slope of ReLU there")
    if row["min_eigenvalue"] is not None:
        mantissa, exponent = f"{row['min_eigenvalue']:.1e}".split("e")
        ax.set_title(f"{len(d)} entries; smallest eigenvalue "
                     rf"${mantissa} \times 10^{{{int(exponent)}}}$", fontsize=9)


# -- as a command ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tiny network, seconds")
    parser.add_argument("--out", type=Path, help="directory of figure and results")
    given = parser.parse_args(arguments)
    settings, adam = (SMALL, ADAM_SMALL) if given.small else (FULL, ADAM_FULL)
    out_figure, out_results = places(given.out, given.small)
    rows = {name: numbers(*pair) for name, pair in networks(settings, adam).items()}
    sentences = findings(rows)
    print("\n".join(sentences))
    figure = hs.plot.save_figure(draw(rows), out_figure / f"{NAME}.png")
    for row in rows.values():  # what the figure alone needs
        del row["activations"], row["history"]
    record = {**where_and_when(NAME, arguments), "settings": settings, "adam": adam,
              "findings": sentences, "ended": {name: endings([row]) for name, row in rows.items()},
              "networks": rows}
    written = out_results / f"{NAME}.json"
    written.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{figure}\n{written}")


if __name__ == "__main__":
    main()
