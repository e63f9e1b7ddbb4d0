"""Does the bottleneck rank come out, from below and from above, as the effective depth grows?

Figure 1 of the paper: a teacher 30 → 3 → 30 seen by a Leaky ResNet of width 100. Over L̃, −2H/L̃
should approach the true rank 3 from below and the least cost of identity from above; at L̃ = 7 the
singular values of A_p should show three directions that survive the middle, and the energies along
p a Hamiltonian that is nearly constant. Redone for the network of optimal control and for the one
that Adam and SGD train from the same start, over seeds, and for the exact geodesic of a smaller
teacher 8 → 3 → 8. Optimal control has 1500 iterations and gradient descent 3600 epochs, more than
four times the seconds, at the best rate and schedule, tried at every L̃ and seed: three rates with
three schedules have 600 epochs, and the best rate of each schedule all of them (the paper has 6000,
and twice the 500 samples; what more epochs bring is in demo 8). At this size that many iterations
do not end at a stationary point: how each network ended is said beside every number, and only a
network that converged is called optimal.

There are two estimates −2H/L̃. *With costate* H is that of state and costate, which tells of the
bottleneck only where the network is stationary. *Without costate* H is the sum of kinetic and
potential energy with (K + γI)⁻¹ in place of K⁺, γ_p = γ₀‖σ̂(A_p)‖², and ∂_pA that of the layers:
this "stable" version also describes a network that is not stationary. A plain one, with K⁺, is
printed beside it. The estimate from above is the stable cost of identity, which γ lowers, so that
it may fall below the rank itself.

Run ``python demos/04_rank_over_depth.py`` (two to three hours on one core; it goes on where it was
interrupted): figures/04_rank_over_depth.png and results/04_rank_over_depth.json. ``--small`` takes
seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import dress, endings, labelled, run, said, spread

import hamshoot as hs

NAME = "04_rank_over_depth"
GAMMA0 = 1e-3
RATES = (0.01, 0.03, 0.1)
SHOWN = 8
CONTROL, DESCENT, GEODESIC = "optimal control", "Adam, then SGD", "exact geodesic"
SETTINGS = {
    "full": dict(depths=[1.0, 3.0, 7.0, 15.0], geodesic_depths=[1.0, 3.0, 7.0, 10.0, 15.0],
                 seeds=[0], geodesic_seeds=[0, 1, 2, 3, 4],
                 dims=[30, 3, 30], samples=500, width=100, layers=20,
                 iterations=1500, epochs=3000,
                 middle=7.0, geodesic=dict(dims=[8, 3, 8], samples=24, width=8, epsilon=0.05)),
    "small": dict(depths=[2.0, 4.0], geodesic_depths=[2.0, 4.0], seeds=[0],
                  geodesic_seeds=[0], dims=[4, 1, 4],
                  samples=20, width=4, layers=8, iterations=300, epochs=250, middle=4.0,
                  geodesic=dict(dims=[3, 1, 3], samples=6, width=3, epsilon=0.3)),
}


def problem_of(effective_depth: float, seed: int, dims, samples: int, width: int, **more):
    """The teacher's data; lift and readout random orthonormal."""
    return hs.teacher_problem(dims=dims, samples=samples, effective_depth=effective_depth,
                              width=width, seed=seed, lift="orthonormal", readout="orthonormal",
                              **more)


def described(solution: hs.Solution, curves: bool) -> dict[str, Any]:
    """Rank estimates along the layers, and the curves of one network if asked for."""
    problem, e = solution.problem, solution.energies(GAMMA0)
    stable = e.stable_kinetic + e.stable_potential
    plain = e.kinetic + e.potential
    ranks = -2 * stable / problem.effective_depth
    numbers = {
        "objective": solution.objective, "test_error": solution.test_error(),
        "norm": solution.parameter_norm,
        "stationarity": solution.stationarity, "seconds": solution.seconds,
        "status": solution.status.name,
        "rank": float(np.median(ranks)), "rank_low": float(ranks.min()),
        "rank_high": float(ranks.max()),
        "rank_plain": float(np.median(-2 * plain / problem.effective_depth)),
        "rank_costate": solution.bottleneck_rank,
        "least_coi": float(e.stable_cost_of_identity.min()),
    }
    if curves:
        of_A, of_W = solution.spectra()
        every = max(1, len(e.p) // 40)
        numbers["curves"] = {
            "p": e.p[::every].tolist(), "hamiltonian": stable[::every].tolist(),
            "kinetic": e.stable_kinetic[::every].tolist(),
            "potential": e.stable_potential[::every].tolist(),
            "plain": {"hamiltonian": plain[::every].tolist(),
                      "kinetic": e.kinetic[::every].tolist(),
                      "potential": e.potential[::every].tolist()},
            "p_A": solution.p[::every].tolist(), "A": of_A[::every, :SHOWN].tolist(),
            "W": of_W[::every, :SHOWN].tolist(), "directions": rank_of(of_A, of_W)}
    return numbers


def rank_of(of_A, of_W) -> dict[str, list[int]]:
    """Singular values above a tenth of the largest, at the ends and least in between."""
    counts = [np.sum(s > 0.1 * s[:, :1], axis=1) for s in (of_A, of_W)]
    return {name: [int(c[0]), int(c.min()), int(c[-1])]
            for name, c in zip(("A", "W"), counts, strict=True)}


def trained(effective_depth, seed, method, dims, samples, width, layers, iterations, epochs,
            curves):
    """One network: by optimal control, or by Adam and SGD from the same start."""
    problem = problem_of(effective_depth, seed, dims, samples, width)
    if method == CONTROL:
        solution = hs.solve(problem, hs.DirectSingleShooting(
            layers=layers, seed=seed, optimizer="kronecker", max_iter=iterations))
    else:
        solution = hs.train(problem, layers, seed=seed, optimizer=hs.Adam(
            rates=RATES, finalists=1, epochs=epochs, sgd_epochs=epochs // 5))
    tried = {key: solution.extra[key] for key in ("rate", "schedule", "grid_seconds")
             if key in solution.extra}
    return {"method": method, "effective_depth": effective_depth, "seed": seed, **tried,
            **described(solution, curves)}


def geodesics(depths, seed, dims, samples, width, epsilon):
    """Exact paths of the smaller teacher, continued in L̃."""
    rows, guess = [], None
    for depth in depths:
        problem = problem_of(depth, seed, dims, samples, width, activation="smooth_relu",
                             epsilon=epsilon)
        solution = hs.solve(problem, hs.IndirectShooting(time_limit=120), initial_guess=guess)
        guess = solution if solution.success else guess
        if solution.success:
            rows.append({"method": GEODESIC, "effective_depth": depth, "seed": seed,
                         **described(solution, False)})
    return rows


def study(settings: dict[str, Any], each) -> dict[str, Any]:
    """All networks, and the geodesics."""
    network = {k: settings[k] for k in ("dims", "samples", "width", "layers")}
    first = settings["seeds"][0]
    jobs = [dict(effective_depth=depth, seed=seed, method=method, **network,
                 iterations=settings["iterations"], epochs=settings["epochs"],
                 curves=depth == settings["middle"] and seed == first)
            for seed in settings["seeds"] for depth in settings["depths"]
            for method in (CONTROL, DESCENT)]
    paths = each(geodesics, [dict(depths=settings["geodesic_depths"], seed=seed,
                                  **settings["geodesic"])
                             for seed in settings["geodesic_seeds"]])
    return {"networks": each(trained, jobs),
            "geodesics": [row for rows in paths for row in rows]}


def of(record, method: str, depth: float, key: str) -> list[float]:
    """One number over seeds."""
    rows = record["geodesics" if method == GEODESIC else "networks"]
    return [r[key] for r in rows if (r["method"], r["effective_depth"]) == (method, depth)]


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by method."""
    return {method: [row for row in record["geodesics" if method == GEODESIC else "networks"]
                     if row["method"] == method] for method in (CONTROL, DESCENT, GEODESIC)}


def depths_of(record: dict[str, Any], method: str) -> list[float]:
    """The L̃ at which a method has networks."""
    every = record["settings"]["geodesic_depths" if method == GEODESIC else "depths"]
    return [depth for depth in every if of(record, method, depth, "rank")]


def true_rank(record: dict[str, Any], method: str) -> int:
    """Of the teacher that a method is seen on."""
    settings = record["settings"]
    return (settings["geodesic"] if method == GEODESIC else settings)["dims"][1]


def estimates(record: dict[str, Any], method: str, depth: float) -> str:
    """All three estimates at one L̃."""
    below, costate, above = (spread(of(record, method, depth, key), ".2f")
                             for key in ("rank", "rank_costate", "least_coi"))
    return (f"the median −2H/L̃ is {below} without costate and {costate} with it, the least stable "
            f"cost of identity {above}")


def bracketed(record: dict[str, Any], method: str, depth: float) -> str:
    """How often the estimates are in their order, and on their sides of the true rank."""
    true, above = true_rank(record, method), of(record, method, depth, "least_coi")
    words = []
    for key, what in (("rank", "without"), ("rank_costate", "with")):
        below = of(record, method, depth, key)
        ordered = sum(low < high for low, high in zip(below, above, strict=True))
        sides = sum(low <= true <= high for low, high in zip(below, above, strict=True))
        words.append(f"{ordered} {what} costate (with {true} between them in {sides})")
    return (f"{method}: −2H/L̃ lies below the least stable cost of identity in "
            f"{' and in '.join(words)} of {len(above)}")


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences from the numbers."""
    settings, lines = record["settings"], []
    middle, reached = settings["middle"], []
    for method in (CONTROL, DESCENT, GEODESIC):
        depths = depths_of(record, method)
        if not depths:
            lines.append(f"{method}: no path was found.")
            continue
        reached.append((method, depths[-1]))
        rows = [r for r in networks(record)[method] if r["effective_depth"] == depths[-1]]
        lines.append(
            f"{method}, true rank {true_rank(record, method)} ({said(endings(rows))}): at "
            f"L̃ = {depths[-1]:g} {estimates(record, method, depths[-1])}; at L̃ = {depths[0]:g} "
            f"{estimates(record, method, depths[0])}.")
    lines.append("At the largest L̃, " + "; ".join(
        bracketed(record, *place) for place in reached) + ".")
    lines.append("How they ended, over all L̃: " + ". ".join(
        f"{name}, {said(how)}" for name, how in record["ended"].items()) + ".")
    found = [len(of(record, GEODESIC, d, "rank")) for d in settings["geodesic_depths"]]
    lines.append(f"Geodesics were found at {', '.join(map(str, found))} of "
                 f"{len(settings['geodesic_seeds'])} seeds, L̃ = "
                 f"{', '.join(f'{d:g}' for d in settings['geodesic_depths'])}.")
    for method in (CONTROL, DESCENT):
        width = [r["rank_high"] - r["rank_low"] for r in record["networks"]
                 if (r["method"], r["effective_depth"]) == (method, middle)]
        lines.append(f"At L̃ = {middle:g} −2H/L̃ without costate varies along the layers by "
                     f"{spread(width, '.2f')} ({method}); its plain version has median "
                     f"{spread(of(record, method, middle, 'rank_plain'), '.3g')}.")
    for row in record["networks"]:
        if "curves" in row:
            A, W = (row["curves"]["directions"][name] for name in ("A", "W"))
            lines.append(
                f"Singular values above a tenth of the largest, {row['method']} at L̃ = "
                f"{row['effective_depth']:g}: A_p has {A[0]} at p = 0, {A[1]} where it has the "
                f"fewest and {A[2]} at p = 1; W_p has {W[0]}, {W[1]} and {W[2]}.")
    pairs = [(c, d) for c, d in zip(
        *([r for r in record["networks"] if r["method"] == m] for m in (CONTROL, DESCENT)),
        strict=True)]
    lower = sum(c["objective"] < d["objective"] for c, d in pairs)
    better = sum(c["test_error"] < d["test_error"] for c, d in pairs)
    seconds = [spread([pair[k]["seconds"] for pair in pairs], ".0f") for k in (0, 1)]
    lines.append(f"Optimal control has the lower objective in {lower} of {len(pairs)} pairs and "
                 f"the lower test error in {better}, after at most {settings['iterations']} "
                 f"iterations in {seconds[0]} s against {settings['epochs'] * 6 // 5} epochs in "
                 f"{seconds[1]} s.")
    return lines


def draw(record: dict[str, Any]) -> Any:
    """Ranks over L̃; spectra and energies at the middle one."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(17, 8.2), layout="constrained")
    panels = fig.subplots(2, 4)
    palette = hs.plot.colours((CONTROL, DESCENT, GEODESIC))
    settings = record["settings"]
    for ax, methods, own, letter in ((panels[0, 0], (CONTROL, DESCENT), settings, "a"),
                                     (panels[1, 0], (GEODESIC,), settings["geodesic"], "e")):
        _ranks(ax, record, methods, palette)
        dims = " → ".join(map(str, own["dims"]))
        dress(ax, f"({letter}) teacher {dims}", "effective depth $\\tilde{L}$", "dimension")
    shown = [r for r in record["networks"] if "curves" in r]
    for k, row in enumerate(shown):
        where = (f"{labelled(row['method'], endings([row]))}, "
                 f"$\\tilde{{L}}$ = {settings['middle']:g}")
        _spectra(panels[k, 1], row, "A", f"({'bf'[k]}) {where}")
        _spectra(panels[k, 2], row, "W", f"({'cg'[k]}) {where}")
        _energies(panels[k, 3], row, f"({'dh'[k]}) {where}")
    for column in (1, 2, 3):
        low = min(ax.get_ylim()[0] for ax in panels[:, column])
        high = max(ax.get_ylim()[1] for ax in panels[:, column])
        for ax in panels[:, column]:
            ax.set_ylim(low, high)
    return fig


def _ranks(ax, record, methods, palette) -> None:
    """Medians, and the range over seeds; logarithmic beyond ten."""
    for method in methods:
        have, name = depths_of(record, method), labelled(method, record["ended"][method])
        for key, style, what in (("rank", "o-", "$-2H/\\tilde{L}$ without costate"),
                                 ("rank_costate", "^:", "with costate"),
                                 ("least_coi", "s--", "least stable cost of identity")):
            values = [of(record, method, d, key) for d in have]
            middle = np.array([np.median(v) for v in values])
            ax.plot(have, middle, style, color=palette[method], ms=5, label=f"{what}, {name}")
            ax.fill_between(have, [min(v) for v in values], [max(v) for v in values],
                            color=palette[method], alpha=0.15, lw=0)
    true = true_rank(record, methods[0])
    ax.axhline(true, color="#666666", lw=1, ls=":", label=f"rank of the teacher, {true}")
    ax.set_yscale("symlog", linthresh=10, linscale=2)
    low, high = ax.get_ylim()
    ticks = [t for t in (-10000, -1000, -100, -10, -5, 0, 5, 10, 100) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}".replace("-", "−") for t in ticks])
    ax.set_yticks([], minor=True)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=8)


def _spectra(ax, row, name, title) -> None:
    curves, shades = row["curves"], np.linspace(0.0, 0.75, SHOWN)
    p = curves["p_A"] if name == "A" else curves["p"]
    for values, shade in zip(np.array(curves[name]).T, shades, strict=False):
        ax.semilogy(p, np.maximum(values, 1e-12), color=str(shade), lw=1.6)
    low, high = np.array(curves[name]).min(), np.array(curves[name]).max()
    ax.set_ylim(max(low, 1e-4 * high) / 1.5, 1.5 * high)
    dress(ax, title, "depth $p$", f"singular values of ${name}_p$")


def _energies(ax, row, title) -> None:
    """Stable energies, and the plain ones thin and dashed."""
    curves = row["curves"]
    palette = hs.plot.colours(("hamiltonian", "kinetic", "potential"))
    for key, label in (("hamiltonian", "$H$"), ("kinetic", "kinetic energy"),
                       ("potential", "$-\\frac{\\tilde{L}}{2}$ cost of identity")):
        ax.plot(curves["p"], curves[key], color=palette[key], lw=1.8, label=label)
        ax.plot(curves["p"], curves["plain"][key], "--", color=palette[key], lw=0.9,
                label=f"{label}, plain")
    values = np.concatenate([curves[key] for key in ("hamiltonian", "kinetic", "potential")])
    margin = 0.08 * np.ptp(values)
    ax.set_ylim(values.min() - margin, values.max() + margin)
    ax.set_yscale("symlog", linthresh=20)
    dress(ax, title, "depth $p$", "energy, stable and plain")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=8)


def main(arguments: list[str] | None = None) -> None:
    run(NAME, __doc__, SETTINGS, study, findings, draw, arguments, networks=networks)


if __name__ == "__main__":
    main()
