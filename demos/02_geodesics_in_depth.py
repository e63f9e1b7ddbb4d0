"""Geodesics in depth: Pontryagin's path of a Leaky ResNet, and its bottleneck as depth grows.

For those who know optimal control and not these networks. State A_p (6 × 12, one column a sample),
control W_p, cost ‖QA_1 − Yᵀ‖²/N + λ/(2L̃) ∫‖W‖², dynamics ∂A = −L̃A + Wσ(A) with a smooth ReLU and
a bias, λ = L̃/1000. `hs.IndirectShooting` solves the two-point problem of state and costate at
effective depth L̃ = 1. The script then

* checks the costate against the value function, whose gradient in A_0 must be −λB_0 (two more
  solves with A_0 moved a little), and counts the digits to which the Hamiltonian is constant;
* continues in L̃ to 10, each path the guess of the next, and watches a path of many dimensions turn
  into one that jumps to few, stays there, and jumps back; where Newton's method cannot follow, it
  goes on from a minimum that descent finds, which may lie on another branch;
* sets the last path beside 20-layer networks, the one of optimal control and one that Adam trained.
  Layers are Euler steps, along which H is not constant even at an optimum: networks of optimal
  control with more layers say how much of their drift is the mesh's own.

Run ``python demos/02_geodesics_in_depth.py`` (under a minute): it draws
figures/02_geodesics_in_depth.png and writes results/02_geodesics_in_depth.json. ``--small`` takes a
smaller problem and seconds, and writes to ``--out DIRECTORY``, or to a temporary one.
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
from hamshoot.study.compare import CONTROL, DESCENT

NAME = "02_geodesics_in_depth"
FULL = dict(depths=(1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10), shown=(1, 3, 10), layers=20,
            meshes=(20, 40, 80), dims=(6, 2, 6), samples=12, width=6)
SMALL = dict(depths=(1, 2, 3), shown=(1, 2, 3), layers=8, meshes=(16, 64),
             dims=(3, 1, 3), samples=6, width=3)
EPSILON, DECAY, SEED = 0.1, 1e-3, 0
#: Of the stable cost of identity ‖A‖²_{K+γI}, γ = γ₀‖σ̂‖²_op, the library's default.
GAMMA0 = 1e-3
GEODESIC = "geodesic"
#: A singular value counts when it is at least this share of the largest.
SHARE = 0.1
#: The path is in the bottleneck where its cost of identity is within this factor of the least.
NEAR = 1.1


def problem_of(depth: float, settings: dict[str, Any]) -> hs.TrainingProblem:
    """Teacher of the settings at one effective depth."""
    return hs.teacher_problem(
        settings["dims"], samples=settings["samples"], width=settings["width"], seed=SEED,
        effective_depth=depth, weight_decay=DECAY * depth, activation="smooth_relu",
        epsilon=EPSILON,
    )


def flatness(solution: hs.Solution) -> float:
    """Largest |H − median H| over |median H| along the path."""
    return float(departures(solution).max())


def costate_check(solution: hs.Solution, step: float = 1e-4) -> dict[str, float]:
    """Slope of the optimal objective in A_0, by two solves, and as the costate has it.

    C(A_0), the least objective from A_0, has the gradient −λB_0: costates are sensitivities. The
    move of A_0 is along that gradient, where the slope is −λ‖B_0‖.
    """
    problem, B = solution.problem, solution.momenta[0]
    direction = B / np.linalg.norm(B)
    lift = np.linalg.pinv(problem.lift)

    def value(shift: float) -> float:
        # The data as the solver sees them, or scaling would undo part of the move.
        moved = problem.replace(X=(lift @ (problem.initial_state + shift * direction)).T,
                                Y=problem.targets.T, X_test=None, Y_test=None, standardize=False)
        return hs.IndirectShooting(tol=1e-11).solve(moved, initial_guess=solution).objective

    slope = (value(step) - value(-step)) / (2 * step)
    predicted = -problem.weight_decay * float(np.linalg.norm(B))
    return {"slope": slope, "predicted": predicted, "relative": abs(slope / predicted - 1)}


def numbers(solution: hs.Solution) -> dict[str, Any]:
    """What is printed and kept of one path."""
    coi = solution.energies(GAMMA0).stable_cost_of_identity
    p = solution.p[: len(coi)]
    middle = np.linalg.svd(solution.at(0.5).representations, compute_uv=False)
    near = np.interp(np.linspace(0, 1, 1001), p, coi) <= NEAR * coi.min()
    return {
        "effective_depth": solution.problem.effective_depth,
        "objective": solution.objective,
        "loss": solution.loss,
        "stationarity": solution.stationarity,
        "hamiltonian": float(np.median(solution.hamiltonian)),
        "flatness": flatness(solution),
        "bottleneck_rank": solution.bottleneck_rank,
        "cost_of_identity": float(coi.min()),
        "share_in_bottleneck": float(near.mean()),
        "middle_singular_values": middle.tolist(),
        "middle_dimensions": int(np.sum(middle >= SHARE * middle[0])),
        "costates": [float(np.linalg.norm(solution.at(p).momenta)) for p in (0.0, 0.5, 1.0)],
        "iterations": solution.nit,
        "seconds": solution.seconds,
        "status": solution.status.name.lower(),
    }


def continued(settings: dict[str, Any], first: hs.Solution) -> tuple[dict[float, Any], list[str]]:
    """Geodesics by depth, each from the last that was found; and what went wrong on the way."""
    paths, remarks, left = {settings["depths"][0]: first}, [], []
    print(f"{'L̃':>5}  {'J':>9}  {'loss':>8}  {'−2H/L̃':>8}  {'min COI':>7}  {'flat to':>7}  "
          f"{'nit':>4}  {'seconds':>7}")
    print_row(first)
    here = first
    for depth in settings["depths"][1:]:
        solution = hs.IndirectShooting().solve(problem_of(depth, settings), initial_guess=here)
        if not solution.success:
            remarks.append(f"The step to L̃ = {depth:g} failed ({solution.message}); the next one "
                           f"starts from L̃ = {here.problem.effective_depth:g} again.")
            print(f"{depth:>5g}  {remarks[-1]}")
            continue
        if solution.extra.get("descents_taken"):
            left.append(f"{depth:g}")
        if solution.extra.get("definite") is False:
            remarks.append(f"At L̃ = {depth:g} the second-order condition of the discretised "
                           "problem does not hold: a stationary path, not certainly a minimum.")
        paths[depth] = here = solution
        print_row(solution)
    if left:
        remarks.append(f"On the way to L̃ = {', '.join(left)} Newton's method could not follow "
                       "the branch; there the path went on from a minimum that descent found, "
                       "perhaps of another branch.")
    else:
        remarks.append("All paths lie on one branch: no step needed a new descent.")
    return paths, remarks


def print_row(solution: hs.Solution) -> None:
    n = numbers(solution)
    print(f"{n['effective_depth']:>5g}  {n['objective']:>9.6f}  {n['loss']:>8.5f}  "
          f"{n['bottleneck_rank']:>8.3f}  {n['cost_of_identity']:>7.3f}  {n['flatness']:>7.0e}  "
          f"{n['iterations']:>4}  {n['seconds']:>7.2f}", flush=True)


def networks_beside(path: hs.Solution, layers: int, small: bool) -> dict[str, hs.Solution]:
    """The path, the optimal network started from it, and the network that Adam trains."""
    adam = hs.Adam(epochs=300, sgd_epochs=100) if small else hs.Adam()
    return {
        GEODESIC: path,
        CONTROL: layered(path, layers),
        DESCENT: hs.train(path.problem, layers=layers, optimizer=adam, seed=SEED),
    }


def layered(path: hs.Solution, layers: int) -> hs.Solution:
    """The network of optimal control of so many layers, started from the path."""
    method = hs.DirectMultipleShooting(layers=layers, nlp_solver="fatrop")
    found = method.solve(path.problem, initial_guess=path)
    if found.success:
        return found
    # On many layers its line search ends a little before the tolerance.
    return hs.solve(path.problem, hs.DirectSingleShooting(layers=layers), initial_guess=found)


def findings(paths: dict[float, hs.Solution], check: dict[str, float], remarks: list[str],
             beside: dict[str, hs.Solution], meshes: list[dict[str, Any]],
             scratch: hs.Solution) -> list[str]:
    """Sentences with numbers."""
    rows = [numbers(path) for path in paths.values()]
    first, last = rows[0], rows[-1]
    worst = max(row["flatness"] for row in rows)
    at_0, at_half, at_1 = first["costates"]
    lines = [
        f"Costate: at L̃ = {first['effective_depth']:g} its norm is {at_0:.4g} at p = 0, "
        f"{at_half:.4g} at p = 1/2 and {at_1:.4g} at p = 1. Moving A_0 along B_0 changes the "
        f"optimal objective at the rate {check['slope']:.8g}; −λ‖B_0‖ is {check['predicted']:.8g} "
        f"(relative difference {check['relative']:.0e}).",
        f"Hamiltonian: constant to {int(-np.log10(worst))} digits or more on every geodesic "
        f"(largest relative deviation {worst:.0e}).",
        *remarks,
        _bottleneck(first, last),
        _from_scratch(last, scratch),
    ]
    for name, solution in beside.items():
        deviation = departures(solution)
        lines.append(
            f"At L̃ = {last['effective_depth']:g}, {_long_name(name, solution)} "
            f"({solution.status.name.lower()}): "
            f"J = {solution.objective:.6f}, {_residual(solution)}, "
            f"−2H/L̃ = {solution.bottleneck_rank:.3f} with costate, |H − median H| at most "
            f"{deviation.max():.1e} of |median H| and {np.median(deviation):.1e} in the median.")
    lines.append(_mesh(meshes, numbers(beside[DESCENT]), beside[DESCENT].layers))
    lines.append("(The layers are Euler steps, a coarser problem: compare the objectives of "
                 "networks with each other, not with the geodesic's.)")
    return lines


def departures(solution: hs.Solution) -> np.ndarray:
    """|H − median H| over |median H|, at every node or layer."""
    H = solution.hamiltonian
    return np.abs(H - np.median(H)) / abs(np.median(H))


def _mesh(meshes: list[dict[str, Any]], descent: dict[str, Any], layers: int) -> str:
    """How far H departs on networks of optimal control alone: that is Euler's own."""
    words = ", ".join(f"{row['flatness']:.2f} with {row['layers']} layers" for row in meshes)
    return (f"Euler's own drift: H departs from its median by up to {words} (of |median H|, on the "
            f"networks of optimal control, {said(endings(meshes))}); on the {layers} layers of "
            f"Adam's by up to {descent['flatness']:.2f}.")


def _bottleneck(first: dict[str, Any], last: dict[str, Any]) -> str:
    return (
        f"Bottleneck: from L̃ = {first['effective_depth']:g} to {last['effective_depth']:g} "
        f"the least cost of identity goes from {first['cost_of_identity']:.2f} to "
        f"{last['cost_of_identity']:.3f} and −2H/L̃ (with costate) from "
        f"{first['bottleneck_rank']:.2f} to "
        f"{last['bottleneck_rank']:.3f}; half way A has {first['middle_dimensions']}, then "
        f"{last['middle_dimensions']} singular values above {SHARE:.0%} of the largest, and the "
        f"path spends {first['share_in_bottleneck']:.0%}, then {last['share_in_bottleneck']:.0%} "
        f"of depth within {NEAR - 1:.0%} of its least cost of identity."
    )


def _from_scratch(last: dict[str, Any], scratch: hs.Solution) -> str:
    opening = f"Solved at L̃ = {last['effective_depth']:g} from scratch"
    if not scratch.success:
        return f"{opening} the method fails: {scratch.message}"
    gap = (scratch.objective - last["objective"]) / last["objective"]
    if abs(gap) < 1e-6:
        return f"{opening} the path is as good (J = {scratch.objective:.6f})."
    relation = f"{abs(gap):.1%} {'higher' if gap > 0 else 'LOWER'}"
    return (f"{opening} instead of continued, J is {relation} ({scratch.objective:.6f} against "
            f"{last['objective']:.6f}), and −2H/L̃ = {scratch.bottleneck_rank:.3f} with "
            "costate: another basin.")


def _residual(solution: hs.Solution) -> str:
    """On a geodesic W is computed from state and costate, so that only the flow can be amiss."""
    if solution.layers is None:
        return f"shooting defect {solution.residuals['defect']:.0e}"
    return f"stationarity {solution.stationarity:.0e}"


def _long_name(name: str, solution: hs.Solution) -> str:
    names = {GEODESIC: "the geodesic", CONTROL: f"{_optimal(solution)} {solution.layers} layers",
             DESCENT: f"the network of Adam, {solution.layers} layers"}
    return names[name]


def _optimal(solution: hs.Solution) -> str:
    """The word for a network of optimal control, by its status."""
    return ("the optimal network," if solution.status is hs.Status.CONVERGED
            else "the network of optimal control, not converged,")


def draw(paths: dict[float, hs.Solution], shown: list[float], beside: dict[str, hs.Solution],
         rank: int) -> Any:
    """Spectra of three depths above; costs of identity, Hamiltonians and the bracket below."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(11.0, 7.4), layout="constrained")
    top, bottom = fig.subfigures(2, 1)
    palette = dict(zip(shown, hs.plot.PALETTE[2:5], strict=False))
    _draw_spectra(top.subplots(1, len(palette), sharey=True, squeeze=False)[0], paths, palette)
    below = bottom.subplots(1, 3)
    _draw_cost(below[0], paths, palette)
    _draw_hamiltonians(below[1], beside)
    _draw_bracket(below[2], paths, rank)
    return fig


def _draw_spectra(axes: Any, paths: dict[float, hs.Solution], palette: dict[float, str]) -> None:
    views = []
    for ax, (depth, colour) in zip(axes, palette.items(), strict=True):
        hs.plot.plot_spectra(paths[depth], ax=ax, colour=colour)
        ax.set_title(f"(a) $\\tilde{{L}} = {depth:g}$", loc="left", color=colour)
        views.append(ax.get_ylim())
        ax.label_outer()
    axes[0].set_ylim(min(low for low, _ in views), max(high for _, high in views))


def _draw_cost(ax: Any, paths: dict[float, hs.Solution], palette: dict[float, str]) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    for depth, colour in palette.items():
        energies = paths[depth].energies(GAMMA0)
        ax.plot(energies.p, energies.stable_cost_of_identity, color=colour, lw=1.8,
                label=f"$\\tilde{{L}} = {depth:g}$")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    _dress(ax, "(b) cost of identity", "$p$", r"$\Vert A_p\Vert^2_{K+\gamma I}$")


def _draw_hamiltonians(ax: Any, beside: dict[str, hs.Solution]) -> None:
    colours = {GEODESIC: hs.plot.PALETTE[6], **hs.plot.colours([CONTROL, DESCENT])}
    layers = beside[CONTROL].layers
    optimal = "optimal" if beside[CONTROL].status is hs.Status.CONVERGED else "not converged"
    labels = {GEODESIC: "geodesic", CONTROL: f"{optimal}, {layers} layers",
              DESCENT: f"Adam, {layers} layers"}
    for name, solution in beside.items():
        H = solution.hamiltonian
        # Rounding may give the median itself, which a logarithm cannot show.
        deviation = np.maximum(np.abs(H - np.median(H)), 1e-16)
        ax.plot(solution.p[: len(H)], deviation, color=colours[name], lw=1.3, label=labels[name],
                marker={CONTROL: "o", DESCENT: "s"}.get(name), ms=4)
    ax.set_yscale("log")
    depth = beside[GEODESIC].problem.effective_depth
    _dress(ax, f"(c) Hamiltonian, $\\tilde{{L}} = {depth:g}$", "$p$",
           r"$|H - \mathrm{median}\,H|$")


def _draw_bracket(ax: Any, paths: dict[float, hs.Solution], rank: int) -> None:
    rows = [numbers(path) for path in paths.values()]
    ax.plot(list(paths), [row["cost_of_identity"] for row in rows], "o--", ms=4,
            color=hs.plot.PALETTE[6], label="least cost of identity")
    ax.plot(list(paths), [row["bottleneck_rank"] for row in rows], "s-", ms=4,
            color=hs.plot.PALETTE[5], label=r"$-2H/\tilde{L}$")
    ax.axhline(rank, color=hs.plot.GREY, lw=0.8, ls=":", label="teacher")
    # Linear where the rank is read off, logarithmic far below: at small L̃ the path only moves.
    ax.set_yscale("symlog", linthresh=3, linscale=2)
    ticks = [-100, -30, -10, -3, 0, 1, 2, 3, 10, 30]
    low, high = (1.4 * end for end in ax.get_ylim())
    ax.set_ylim(low, high)
    ticks = [tick for tick in ticks if low <= tick <= high]
    ax.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    ax.set_yticks([], minor=True)
    _dress(ax, "(d) bottleneck rank, both estimates", r"$\tilde{L}$", "dimension")


def _dress(ax: Any, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_title(title, loc="left")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if xlabel == "$p$":
        ax.set_xlim(0, 1)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, ncols=3, fontsize=9,
              columnspacing=0.9, handlelength=1.5, handletextpad=0.4)


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a smaller problem, seconds")
    parser.add_argument("--out", type=Path, help="directory of figure and results")
    given = parser.parse_args(arguments)
    settings = SMALL if given.small else FULL
    out_figure, out_results = places(given.out, given.small)

    first = hs.IndirectShooting(seed=SEED).solve(problem_of(settings["depths"][0], settings))
    if not first.success:
        sys.exit(f"No geodesic at L̃ = {settings['depths'][0]:g} to begin with: {first.message}")
    paths, remarks = continued(settings, first)
    check = costate_check(first)
    last = list(paths)[-1]
    scratch = hs.IndirectShooting(seed=SEED).solve(paths[last].problem)
    beside = networks_beside(paths[last], settings["layers"], given.small)
    meshes = [{"layers": n, **numbers(beside[CONTROL] if n == settings["layers"]
                                      else layered(paths[last], n))} for n in settings["meshes"]]
    sentences = findings(paths, check, remarks, beside, meshes, scratch)
    print("\n" + "\n".join(sentences))

    shown = [depth for depth in settings["shown"] if depth in paths]
    figure = hs.plot.save_figure(draw(paths, shown, beside, min(settings["dims"])),
                                 out_figure / f"{NAME}.png")
    record = {
        **where_and_when(NAME, arguments),
        "settings": {**settings, "seed": SEED, "epsilon": EPSILON, "weight_decay_over_L": DECAY,
                     "gamma0": GAMMA0},
        "findings": sentences, "costate_check": check,
        "geodesics": [numbers(path) for path in paths.values()],
        "from_scratch": numbers(scratch),
        "beside": {name: numbers(solution) for name, solution in beside.items()},
        "meshes": meshes,
        "ended": {GEODESIC: endings(numbers(path) for path in paths.values()),
                  CONTROL: endings(meshes),
                  DESCENT: endings([numbers(beside[DESCENT])])},
    }
    written = out_results / f"{NAME}.json"
    written.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{figure}\n{written}")


if __name__ == "__main__":
    main()
