"""Which layer steps are best at equal depth: equidistant, irregular, adaptive, an integrator's own?

Figure 2 of the paper on exact paths. For teachers 8 → 3 → 8 the geodesic of a smooth ReLU is known
at L̃ = 3 and 7; networks of 4 to 30 layers are built from it with four choices of steps:

* equidistant and irregular (long in the middle, short at the ends);
* adaptive: every layer changes the representations by the same share;
* integrator: where the adaptive Runge–Kutta pair of SciPy (RK23) puts its steps when it solves
  ∂_pA = −L̃A + W_pσ̂(A) along the path. The tolerance is the one at which it takes L steps, or
  nearest to L, and its positions are then interpolated at equal shares of their number.

They are "open loop" with the mean control of the path over each layer, which is plain Euler, and
"built" with that control corrected towards the path (`LeakyResNet.from_solution`). Measured:
distance of output and representations from the path, objective, test error. Beside them, networks
of the same steps trained by gradient descent, where adaptive steps are updated on the way, and what
that costs.

Run ``python demos/05_layer_steps.py`` (two to ten minutes): figures/05_layer_steps.png and
results/05_layer_steps.json. ``--small`` takes seconds, and writes to ``--out DIRECTORY``, or to a
temporary one.
"""

from __future__ import annotations

import time
from typing import Any

import common
import numpy as np

import hamshoot as hs
from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.network import follow_path as discretise
from hamshoot.network.layer_steps import (
    adaptive_steps_of_path,
    adaptive_update,
    cap_binds,
    irregular_steps,
    limit_steps,
)
from hamshoot.theory import hamiltonian as ham

NAME = "05_layer_steps"
SCHEMES = ("equidistant", "irregular", "adaptive", "integrator")
MARKERS = dict(zip(SCHEMES, "osD^", strict=True))
#: Depths at which a path is sampled for its cumulative length and its control.
POINTS = 601
#: Gradient descent updates adaptive steps every 10 epochs of the first four fifths.
UPDATES_PER_EPOCH = 0.1 * 0.8
#: Samples whose paths are drawn.
DRAWN = 2
SETTINGS = {
    "full": dict(seeds=[0, 1, 2, 3], depths=[3.0, 7.0], dims=[8, 3, 8], samples=32, width=8,
                 epsilon=0.1, layers=[4, 5, 6, 7, 8, 10, 12, 15, 18, 21, 24, 27, 30],
                 trained=[8, 12, 18, 30], epochs=10000, rate=0.03, shown=18,
                 timed=dict(dims=[30, 3, 30], samples=1000, width=100)),
    "small": dict(seeds=[0], depths=[2.0, 3.0], dims=[3, 1, 3], samples=6, width=3, epsilon=0.2,
                  layers=[4, 8, 16], trained=[8], epochs=200, rate=0.03, shown=8,
                  timed=dict(dims=[6, 2, 6], samples=50, width=20)),
}


def problem_of(depth: float, seed: int, settings: dict[str, Any]) -> hs.TrainingProblem:
    """The teacher's data at one effective depth."""
    return hs.teacher_problem(
        settings["dims"], samples=settings["samples"], width=settings["width"], seed=seed,
        effective_depth=depth, activation="smooth_relu", epsilon=settings["epsilon"],
        lift="orthonormal", readout="orthonormal")


# -- steps -----------------------------------------------------------------------------------------


class Path:
    """A geodesic, sampled finely once: its lengths, its control, an integrator's steps along it."""

    def __init__(self, solution: hs.Solution):
        from scipy.interpolate import CubicSpline

        self.solution, self.problem = solution, solution.problem
        self.depth = self.problem.effective_depth
        self.p = np.linspace(0, 1, POINTS)
        at = solution.at(self.p)
        self.representations, self.weights = at.representations, at.weights
        self.control = CubicSpline(self.p, at.weights)
        self.ladder = self._ladder()

    def steps(self, scheme: str, layers: int) -> np.ndarray | None:
        """Steps of a scheme, or None where a layer would have ρL̃ ≥ 1."""
        if layers <= self.depth:
            return None
        if scheme == "equidistant":
            return discretise.equidistant_steps(layers)
        if scheme == "irregular":
            return limit_steps(irregular_steps(layers), self.depth)
        if scheme == "adaptive":
            return adaptive_steps_of_path(self.p, self.representations, layers, self.depth)
        nodes = min(self.ladder, key=lambda nodes: abs(len(nodes) - 1 - layers))
        shares = np.linspace(0, len(nodes) - 1, layers + 1)
        steps = np.diff(np.interp(shares, np.arange(len(nodes)), nodes))
        return steps / steps.sum() if steps.max() * self.depth < 1 else None

    def integrated(self, A: np.ndarray, **options: Any) -> Any:
        """SciPy's solution of ∂_pA = −L̃A + W_pσ̂(A) from A (w, N)."""
        from scipy.integrate import solve_ivp

        sigma, bias, shape = self.solution.activation, self.problem.bias, A.shape

        def slope(p: float, flat: np.ndarray) -> np.ndarray:
            A = flat.reshape(shape)
            return (self.control(p) @ ham.augmented(A, sigma, bias) - self.depth * A).ravel()

        return solve_ivp(slope, (0, 1), A.ravel(), **options)

    def _ladder(self) -> list[np.ndarray]:
        """Nodes of RK23 from loose to fine tolerances, one set for every number of steps met."""
        found: dict[int, np.ndarray] = {}
        size = np.abs(self.representations).mean()
        for tol in np.geomspace(2.0, 1e-4, 60):
            nodes = self.integrated(self.problem.initial_state, method="RK23", rtol=tol,
                                    atol=tol * size).t
            found.setdefault(len(nodes), nodes)
            if len(nodes) > 40:
                break
        return list(found.values())

    def test_error(self) -> float:
        """Of the path itself, its control applied to held-out samples."""
        problem = self.problem
        first = self.solution.to_network(30).representations(problem.X_test)[0]
        last = self.integrated(first, method="DOP853", rtol=1e-6, atol=1e-6).y[:, -1]
        outputs = problem.readout @ last.reshape(first.shape)
        missed = outputs.T - problem.target_scaling.apply(problem.Y_test)
        return float(np.sum(missed**2) / len(missed))


# -- networks --------------------------------------------------------------------------------------


def networks(seed: int, with_curves: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """All networks of one teacher: built, in open loop and trained, at every L̃."""
    geodesics, failed = common.continued(lambda depth: problem_of(depth, seed, settings),
                                         settings["depths"], time_limit=200.0)
    found: dict[str, Any] = {"paths": [], "rows": [], "failed": failed}
    for solution in geodesics:
        path = Path(solution)
        found["paths"].append({
            "seed": seed, "effective_depth": path.depth, "objective": solution.objective,
            "test": path.test_error(), "drift": solution.hamiltonian_drift,
            "status": solution.status.name, "stationarity": solution.stationarity,
            "seconds": solution.seconds,
            **(curves(path, settings["shown"])
               if with_curves and path.depth == settings["depths"][-1] else {})})
        for layers in settings["layers"]:
            for scheme in SCHEMES:
                steps = path.steps(scheme, layers)
                if steps is not None:
                    found["rows"].append({
                        "seed": seed, "effective_depth": path.depth, "layers": layers,
                        "scheme": scheme, "longest": digits(steps.max()),
                        "capped": scheme == "adaptive" and cap_binds(steps, path.depth),
                        **measured(path, steps),
                        **trained(path.problem, scheme, steps, seed, settings)})
    return found


def digits(value: float) -> float:
    """Five of them, so that the record stays small."""
    return float(f"{value:.5g}")


def measured(path: Path, steps: np.ndarray) -> dict[str, Any]:
    """Both networks of these steps against the path."""
    nodes = np.concatenate([[0.0], np.cumsum(steps)])
    nodes[-1] = 1.0
    goals = path.solution.at(nodes).representations
    control = discretise.mean_control(path.solution, nodes)
    pair = {"open": hs.LeakyResNet.from_weights(path.problem, control, steps),
            "built": path.solution.to_network(steps=steps)}
    return {kind: against(network, goals, path.problem) for kind, network in pair.items()}


def against(network: hs.LeakyResNet, goals: np.ndarray, problem: hs.TrainingProblem
            ) -> dict[str, float]:
    """Relative distance of output and of representations (mean square over depth), J, test."""
    A = network.representations(problem.X)
    apart = np.linalg.norm(A - goals, axis=(1, 2)) / np.linalg.norm(goals, axis=(1, 2))
    output = problem.readout @ (A[-1] - goals[-1]), problem.readout @ goals[-1]
    return {"output": digits(np.linalg.norm(output[0]) / np.linalg.norm(output[1])),
            "depth": digits(np.sqrt(np.sum(network.steps * apart[1:] ** 2))),
            "objective": digits(network.objective(problem)),
            "test": digits(network.test_error(problem))}


def trained(problem: hs.TrainingProblem, scheme: str, steps: np.ndarray, seed: int,
            settings: dict[str, Any]) -> dict[str, Any]:
    """The network of gradient descent; adaptive steps are its own, the integrator's the path's."""
    if len(steps) not in settings["trained"]:
        return {}
    epochs = settings["epochs"]
    # One rate and schedule for all schemes: it is the steps that are compared.
    optimizer = hs.Adam(rate=settings["rate"], schedule="cosine", epochs=epochs,
                        sgd_epochs=epochs // 5)
    solution = hs.train(problem, len(steps), steps if scheme == "integrator" else scheme,
                        optimizer=optimizer, seed=seed)
    return {"trained": {"objective": digits(solution.objective),
                        "test": digits(solution.test_error()), "seconds": digits(solution.seconds)}}


def curves(path: Path, layers: int) -> dict[str, Any]:
    """Spectra of W_p with the adaptive steps, and paths of the schemes in two dimensions."""
    every = 5
    A = path.representations
    points = A.transpose(0, 2, 1).reshape(-1, A.shape[1])
    centre = points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(points - centre, full_matrices=False)
    chosen = list(range(min(DRAWN, A.shape[2])))

    def flat(A: np.ndarray) -> list[Any]:
        seen = np.einsum("kw,mwn->nmk", directions[:2], A[:, :, chosen] - centre[:, None])
        return np.round(seen, 4).tolist()

    found = {"p": np.round(path.p[::every], 4).tolist(), "paths": {"exact path": flat(A[::every])},
             "variance": float(np.sum(sizes[:2] ** 2) / np.sum(sizes**2)), "nodes": {},
             "W": np.round(np.linalg.svd(path.weights[::every], compute_uv=False), 5).tolist()}
    for scheme in SCHEMES:
        steps = path.steps(scheme, layers)
        if steps is not None:
            nodes = np.concatenate([[0.0], np.cumsum(steps)])
            network = path.solution.to_network(steps=steps)
            found["nodes"][scheme] = np.round(nodes, 5).tolist()
            found["paths"][scheme] = flat(network.representations(path.problem.X))
    return found


def cost_of_update(dims: list[int], samples: int, width: int, layers: int, depth: float,
                   repeats: int = 5) -> dict[str, Any]:
    """Seconds of an epoch and of an update of the steps (with the roll-out that follows it)."""
    problem = hs.teacher_problem(dims, samples=samples, width=width, effective_depth=depth, seed=0,
                                 test_samples=0)
    steps = discretise.equidistant_steps(layers)
    sweeps = EulerSweeps(problem, steps)
    weights = np.random.default_rng(0).standard_normal((layers, *problem.control_shape)) / width

    def epoch() -> None:
        sweeps.gradient(weights)

    def update() -> None:
        adaptive_update(sweeps.representations, steps, depth, 0.5)
        sweeps.objective(weights)

    seconds = {}
    for name, function in (("epoch", epoch), ("update", update)):
        function()
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
        seconds[name] = min(taken)
    return {"width": width, "samples": samples, "layers": layers, **seconds,
            "share": UPDATES_PER_EPOCH * seconds["update"] / seconds["epoch"]}


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    seeds, others = settings["seeds"], {k: v for k, v in settings.items() if k != "seeds"}
    found = each(networks, [dict(seed=seed, with_curves=seed == seeds[0], settings=others)
                            for seed in seeds])
    last = settings["depths"][-1]
    own = {k: settings[k] for k in ("dims", "samples", "width")}
    costs = [cost_of_update(**size, layers=settings["shown"], depth=last, repeats=repeats)
             for size, repeats in ((own, 200), (settings["timed"], 5))]
    return {"paths": [row for part in found for row in part["paths"]], "costs": costs,
            "failed": [[seed, depth] for seed, part in zip(seeds, found, strict=True)
                       for depth in part["failed"]],
            "rows": [row for part in found for row in part["rows"]]}


# -- findings --------------------------------------------------------------------------------------


def values(record: dict[str, Any], depth: float, kind: str, key: str
           ) -> dict[Any, dict[str, float]]:
    """By layers and seed: one number of every scheme that has a network there."""
    found: dict[Any, dict[str, float]] = {}
    for row in record["rows"]:
        if row["effective_depth"] == depth and kind in row:
            place = found.setdefault((row["layers"], row["seed"]), {})
            place[row["scheme"]] = row[kind][key]
    return found


def ratios(record: dict[str, Any], depth: float, kind: str, key: str, scheme: str,
           beside: str = "equidistant") -> list[float]:
    """Of a scheme to another, over all layers and seeds where both are."""
    return [place[scheme] / place[beside] for place in values(record, depth, kind, key).values()
            if scheme in place and beside in place]


def wins(record: dict[str, Any], depth: float, kind: str, key: str) -> dict[str, int]:
    """How often each scheme has the lowest value, of those that have a network there."""
    best = [min(place, key=place.get) for place in values(record, depth, kind, key).values()]
    return {scheme: best.count(scheme) for scheme in SCHEMES}


def said(counts: dict[str, int]) -> str:
    ordered = sorted(counts, key=counts.get, reverse=True)
    return ", ".join(f"{scheme} {counts[scheme]}" for scheme in ordered)


def recorded(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The geodesics whose status was recorded."""
    return {"exact geodesic": [row for row in record["paths"] if "status" in row]}


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    depths, settings = record["settings"]["depths"], record["settings"]
    lines = [
        f"{len(record['paths'])} geodesics (w = {settings['width']}, N = {settings['samples']}, "
        f"seeds {common.listed(settings['seeds'])}, L̃ = {common.listed(depths)}); the Hamiltonian "
        f"drifts by at most {max(row['drift'] for row in record['paths']):.0e}."
        + (f" Not found (seed, L̃): {record['failed']}." if record["failed"] else "")]
    for kind, words in (("open", "Open loop"), ("built", "Built networks")):
        lines += [discretised(record, depth, kind, words) for depth in depths]
    lines += [objectives(record, depth, kind) for kind in ("built", "trained") for depth in depths]
    lines += [claim(record, kind) for kind in ("built", "trained")]
    lines += [steps_said(record, depth) for depth in depths]
    lines += [cost_said(record), *slower(record)]
    return lines


def discretised(record: dict[str, Any], depth: float, kind: str, words: str) -> str:
    fractions = [f"{np.median(found):.2f} ({scheme})" for scheme in SCHEMES[1:]
                 if (found := ratios(record, depth, kind, "output", scheme))]
    counts = wins(record, depth, kind, "output")
    return (f"{words} at L̃ = {depth:g}: the output error is, median over L and seeds, "
            f"{', '.join(fractions)} times that of equidistant steps; least error, of "
            f"{sum(counts.values())} cases (L and seed): {said(counts)}.")


def objectives(record: dict[str, Any], depth: float, kind: str) -> str:
    J, test = wins(record, depth, kind, "objective"), wins(record, depth, kind, "test")
    return (f"{kind.capitalize()} at L̃ = {depth:g}, of {sum(J.values())} cases: lowest objective "
            f"{said(J)}; lowest test error {said(test)}.")


def claim(record: dict[str, Any], kind: str) -> str:
    """Whether adaptive steps help at the larger L̃, and more than at the smaller."""
    small, large = record["settings"]["depths"]
    found = {(depth, key): ratios(record, depth, kind, key, "adaptive")
             for depth in (small, large) for key in ("objective", "test")}
    median = {place: float(np.median(ratio)) for place, ratio in found.items()}
    lower = {place: sum(r < 1 for r in ratio) for place, ratio in found.items()}
    helps = {key: median[large, key] < 1 and 2 * lower[large, key] > len(found[large, key])
             for key in ("test", "objective")}
    verdict = " and ".join(f"{'agree' if helps[key] else 'does not agree'} in {words}" for
                           key, words in (("test", "test error"), ("objective", "objective")))
    return (f"Adaptive steps help at large L̃, {kind} networks: "
            f"{verdict}. Against equidistant steps the test error is "
            f"{median[large, 'test']:.3f} and the objective {median[large, 'objective']:.3f} "
            f"times as large at L̃ = {large:g} (medians; lower in {lower[large, 'test']} and "
            f"{lower[large, 'objective']} of {len(found[large, 'test'])}), "
            f"{median[small, 'test']:.3f} and {median[small, 'objective']:.3f} at L̃ = {small:g} "
            f"(lower in {lower[small, 'test']} and {lower[small, 'objective']} of "
            f"{len(found[small, 'test'])}).")


def steps_said(record: dict[str, Any], depth: float) -> str:
    rows = [row for row in record["rows"] if row["effective_depth"] == depth]
    adaptive = [row for row in rows if row["scheme"] == "adaptive"]
    shown = [row["longest"] * row["layers"] for row in adaptive
             if row["layers"] == record["settings"]["shown"]]
    integrator = sum(row["scheme"] == "integrator" for row in rows)
    return (f"At L̃ = {depth:g} and L = {record['settings']['shown']} the longest adaptive step is "
            f"{common.spread(shown, '.2f')} of an equidistant one; the limit on ρL̃ binds in "
            f"{sum(row['capped'] for row in adaptive)} of {len(adaptive)} adaptive networks, and "
            f"the integrator's steps have every ρL̃ < 1 in {integrator} of {len(adaptive)}.")


def cost_said(record: dict[str, Any]) -> str:
    parts = [f"{100 * cost['share']:.2g} % of the gradients' time at w = {cost['width']}, "
             f"N = {cost['samples']}" for cost in record["costs"]]
    return (f"The adaptive update, every 10 epochs of the first four fifths, costs "
            f"{' and '.join(parts)} (L = {record['costs'][0]['layers']}, with the roll-out after "
            "it).")


def slower(record: dict[str, Any]) -> list[str]:
    """Whole trainings with adaptive steps against those with equidistant ones."""
    longer = [ratio for depth in record["settings"]["depths"]
              for ratio in ratios(record, depth, "trained", "seconds", "adaptive")]
    return [f"Whole trainings, which also look at J more often while the steps move, take "
            f"{100 * (np.median(longer) - 1):.0f} % longer with adaptive steps than with "
            f"equidistant ones at w = {record['settings']['width']} (median of {len(longer)} "
            "pairs, wall clock)."
            ] if longer else []


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Output and test error over L at both L̃; spectra with the steps, and paths in 2-D."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13.0, 8.0), layout="constrained")
    axes = fig.subplots(2, 3)
    small, large = record["settings"]["depths"]
    palette = hs.plot.colours(SCHEMES)
    for ax, letter, depth in ((axes[0, 0], "a", small), (axes[0, 1], "b", large)):
        _errors(ax, record, depth, palette, letter)
    for ax, letter, depth in ((axes[1, 0], "d", small), (axes[1, 1], "e", large)):
        _tests(ax, record, depth, palette, letter)
    shown = next(row for row in record["paths"] if "W" in row)
    _spectra(axes[0, 2], shown, record["settings"]["shown"])
    _projected(axes[1, 2], shown, record["settings"]["shown"], palette)
    return fig


def over_layers(record: dict[str, Any], depth: float, kind: str, key: str, scheme: str
                ) -> tuple[list[int], list[list[float]]]:
    """Layers at which every teacher has this network, and its values there.

    The test error is that over the exact path's, as teachers differ more than schemes do.
    """
    exact = {row["seed"]: row["test"] if key == "test" else 1.0 for row in record["paths"]
             if row["effective_depth"] == depth}
    found: dict[int, list[float]] = {}
    for (layers, seed), place in values(record, depth, kind, key).items():
        if scheme in place:
            found.setdefault(layers, []).append(place[scheme] / exact[seed])
    whole = [layers for layers in sorted(found) if len(found[layers]) == len(exact)]
    return whole, [found[layers] for layers in whole]


def _errors(ax: Any, record: dict[str, Any], depth: float, palette: Any, letter: str) -> None:
    for kind, style in (("built", "-"), ("open", ":")):
        for scheme in SCHEMES:
            x, y = over_layers(record, depth, kind, "output", scheme)
            if not x:
                continue
            ax.plot(x, [np.median(v) for v in y], style, marker=MARKERS[scheme], ms=4, lw=1.5,
                    color=palette[scheme], label=scheme if kind == "built" else None)
            if scheme in ("equidistant", "adaptive"):  # the ranges of all four hide each other
                ax.fill_between(x, [min(v) for v in y], [max(v) for v in y], alpha=0.1, lw=0,
                                color=palette[scheme])
    ax.plot([], [], "-", color="#666666", label="built")
    ax.plot([], [], ":", color="#666666", label="open loop")
    ax.set_yscale("log")
    common.plain_ticks(ax)
    common.dress(ax, f"({letter}) distance from the geodesic, $\\tilde{{L}} = {depth:g}$",
                 "layers $L$", "relative output error")
    below(ax, 3)


def _tests(ax: Any, record: dict[str, Any], depth: float, palette: Any, letter: str) -> None:
    for k, scheme in enumerate(SCHEMES):
        x, y = over_layers(record, depth, "built", "test", scheme)
        if x:
            ax.plot(x, [np.median(v) for v in y], "-", color=palette[scheme], lw=1.5, label=scheme)
        x, y = over_layers(record, depth, "trained", "test", scheme)
        if x:
            middle = np.array([np.median(v) for v in y])
            bars = [middle - [min(v) for v in y], [max(v) for v in y] - middle]
            ax.errorbar(np.array(x) + 0.35 * (k - 1.5), middle, bars, fmt=MARKERS[scheme], ms=5,
                        lw=1, capsize=2, color=palette[scheme])
    ax.axhline(1.0, color="black", lw=1, ls="--", label="exact path")
    ax.errorbar([], [], [], fmt="o", color="#666666", capsize=2, label="trained, range")
    title = f"({letter}) test error, built (lines) and trained, $\\tilde{{L}} = {depth:g}$"
    common.dress(ax, title, "layers $L$", "test error / that of the exact path")
    below(ax, 3)


def _spectra(ax: Any, row: dict[str, Any], layers: int) -> None:
    W = np.array(row["W"])
    for k, line in enumerate(W.T):
        ax.plot(row["p"], line, color=str(0.7 * k / max(1, W.shape[1] - 1)), lw=1.6)
    for k, p in enumerate(row["nodes"].get("adaptive", [])):
        ax.axvline(p, color=hs.plot.PALETTE[2], lw=0.8, alpha=0.6,
                   label=f"adaptive steps, $L = {layers}$" if k == 0 else None)
    ax.set_xlim(0, 1)
    ax.set_ylim(0)
    common.dress(ax, f"(c) the exact path's $W_p$, $\\tilde{{L}} = {row['effective_depth']:g}$",
                 "$p$", "singular values")
    ax.grid(False, axis="x")
    below(ax, 1)


def _projected(ax: Any, row: dict[str, Any], layers: int, palette: Any) -> None:
    for name, lines in row["paths"].items():
        for k, line in enumerate(np.array(lines)):
            label = name if k == 0 else None
            if name == "exact path":
                ax.plot(*line.T, color="black", lw=1.4, label=label, zorder=1)
                ax.plot(*line[0], "o", color="black", ms=7, mfc="white", zorder=4)
            else:
                ax.plot(*line.T, "-", marker=MARKERS[name], color=palette[name], lw=0.7, ms=3,
                        label=label, zorder=2)
    common.dress(ax, f"(f) paths of {len(row['paths']['exact path'])} samples, $L = {layers}$, "
                 f"$\\tilde{{L}} = {row['effective_depth']:g}$", "first principal component",
                 "second principal component")
    below(ax, 3)


def below(ax: Any, columns: int) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False,
              fontsize=9)


def main(arguments: list[str] | None = None) -> None:
    common.run(NAME, __doc__, SETTINGS, study, findings, draw, arguments,
               networks=recorded)


if __name__ == "__main__":
    main()
