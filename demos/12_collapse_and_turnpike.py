"""Neural collapse on certified networks, and the turnpike that exact paths take as L̃ grows.

*Collapse.* Jacot, Súkeník, Wang and Mondelli (arXiv 2410.04887, version 1) prove, for wide networks
with weight decay that end in linear layers and fit their data, that the features of a class gather
at its mean (NC1), that class means become orthogonal (NC2), and that linear layers are balanced,
W_{ℓ+1}ᵀW_{ℓ+1} ≈ W_ℓW_ℓᵀ. A Leaky ResNet ends in no linear layer but its fixed readout, so this
asks for more than their theorem says. For deeper nonlinear parts Súkeník, Mondelli and Lampert
(arXiv 2405.14468) found that weight decay prefers class means of lower rank to such a frame. Of
scikit-learn's digits some classes, projected on their first principal components, are solved by
optimal control and trained by Adam at the best rate and schedule of a grid and in the solver's
seconds (`hamshoot.compare`), over λ, and at one λ with a larger width. With the columns of A_ℓ
grouped by class, μ_c the means and μ their mean:

* NC1 = tr Σ_W / tr Σ_B, Σ_W within the classes, Σ_B of their means;
* NC2: the distance of the Gram matrix of the means, of norm 1, from that of an orthogonal frame,
  I/√C, and of the centred means μ_c − μ from that of a simplex, (I − 11ᵀ/C)/√(C − 1);
* balance: ‖W_{ℓ+1}ᵀW_{ℓ+1} − W_ℓW_ℓᵀ‖/‖W_ℓW_ℓᵀ‖, without biases.

The linear Leaky ResNet has layers A_ℓ = M_ℓA_{ℓ−1}, M_ℓ = (1 − ρL̃)I + ρW_ℓ, and a balance of its
own: at a stationary point W_ℓM_ℓᵀ = L̃B_ℓA_ℓᵀ = M_{ℓ+1}ᵀW_{ℓ+1}, exactly, from W_ℓ = L̃B_ℓA_{ℓ−1}ᵀ
and B_ℓ = M_{ℓ+1}ᵀB_{ℓ+1}. For ρL̃ = 1, fully connected layers, it is W_ℓW_ℓᵀ = W_{ℓ+1}ᵀW_{ℓ+1}.

*Turnpike.* In the time t = L̃p the problem has the horizon T = L̃: dA/dt = −A + Vσ̂(A), V = W/L̃,
with the cost loss + (λ/2)∫‖V‖²dt; so λ is held here while L̃ grows. Its static problem is to rest at
least cost, Vσ̂(A) = A with ‖V‖² least, which is the cost of identity. By itself that is solved by
A = 0, from where no output is reached; among states that carry the k dimensions of the task its
solutions are a set, for the linear network all A of rank k, of cost k each; for ReLU the paper's
Proposition 2 has non-negative ones of rank k, without bias. A turnpike in the sense
of Trélat and Zuazua is a bound C(e^{−μL̃p} + e^{−μL̃(1−p)}) on a distance from the static solution,
with C and μ the same for all L̃; one in the sense of Faulwasser and Grüne, that the time t outside a
neighbourhood stays bounded. Three distances are looked at:

* to the set: (Σ_{i>k} s_i²)^{1/2}/‖A_p‖, s_i the singular values of A_p, k = 1 here;
* to rest: ‖dA/dt‖/‖A_p‖ = ‖∂_pA‖/(L̃‖A_p‖);
* to one static point: ‖A_p − A_*‖/‖A_*‖, A_* where the path is nearest to rest in its inner 90 %.

To the first two, two curves are fitted by least squares in logarithms, a₀e^{−μt} + a₁e^{−μ(T−t)}
and the same plus a constant; R² is that of the logarithms. The *rate of the bound* is the largest μ
for which the bound holds with C = 3. Rates to compare with are the real parts of the eigenvalues of
the flow, linearised at A_*, in units of t. Exact geodesics, of a linear network that is to learn a
map of rank 1, and of a smooth ReLU with bias behind a teacher 2 → 1 → 2.

Needs scikit-learn (``pip install scikit-learn``). Run ``python demos/12_collapse_and_turnpike.py``
(four to eight minutes on one core): it draws figures/12_collapse_and_turnpike.png and writes
results/12_collapse_and_turnpike.json. ``--small`` takes seconds, and writes to ``--out
DIRECTORY``, or to a temporary one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import common
import numpy as np
from scipy.optimize import brentq, least_squares

import hamshoot as hs
from hamshoot.theory.hamiltonian import flow_derivative

NAME = "12_collapse_and_turnpike"
GAMMA0 = 1e-3  # of the stable cost of identity
RANK = 1  # of what the paths have to carry
BOUND, NEAR = 3.0, 0.1  # C of the bound; a neighbourhood, for the time outside
CONTROL, DESCENT, SAME = "optimal control", "gradient descent", "gradient descent, same seconds"
LINEAR, WIDE = "{}, linear network", "{}, width {}"
GEODESIC = "exact geodesic"
KINDS = ("linear", "smooth ReLU")
DISTANCES = {"set": "to the set of rank 1", "rest": "to rest", "point": "to one static point"}
FULL = dict(
    seeds=[0, 1, 2],
    digits=dict(classes=4, samples=12, components=8, width=10, layers=10, effective_depth=4.0,
                decays=[0.03, 0.01, 0.003], linear_decay=0.003, wide=16, wide_decay=0.01,
                epochs=5000, same_seconds=True),
    turnpike=dict(depths=[3.0, 4.5, 6.5, 10.0, 14.0, 20.0, 28.0], weight_decay=5e-3, samples=6,
                  width=dict(zip(KINDS, (3, 2), strict=True)), points=401))
SMALL = dict(
    seeds=[0],
    digits=dict(classes=2, samples=4, components=2, width=3, layers=5, effective_depth=2.0,
                decays=[0.03], linear_decay=0.01, wide=4, wide_decay=0.03, epochs=200,
                same_seconds=False, effort="quick"),
    turnpike=dict(depths=[2.0, 5.0], weight_decay=5e-3, samples=3,
                  width=dict(zip(KINDS, (2, 2), strict=True)), points=101, effort="quick"))


# -- collapse --------------------------------------------------------------------------------------


def digits(seed: int, own: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of some digits, (N, d), and their classes, an equal number of each."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(10)[:own["classes"]]
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:own["samples"]]
                           for c in chosen])
    centred = pixels[rows] - pixels[rows].mean(axis=0)
    X = centred @ np.linalg.svd(centred, full_matrices=False)[2][:own["components"]].T
    return X / np.sqrt(np.mean(X**2)), np.repeat(np.arange(own["classes"]), own["samples"])


def compared(seed: int, decay: float, width: int, linear: bool, own: dict[str, Any]
             ) -> list[dict[str, Any]]:
    """Rows of `hamshoot.compare` on one choice of digits."""
    X, classes = digits(seed, own)
    problem = hs.TrainingProblem(
        X, np.eye(own["classes"])[classes], effective_depth=own["effective_depth"],
        weight_decay=decay, width=width, activation="linear" if linear else "relu",
        bias=not linear, lift="orthonormal", readout="orthonormal", seed=seed)
    comparison = hs.compare(
        problem, own["layers"], method=hs.DirectSingleShooting(
            layers=own["layers"], workers=1, effort=own.get("effort", "default")),
        optimizer=hs.Adam(epochs=own["epochs"]), seed=seed, longer=False,
        same_seconds=own["same_seconds"])
    form = LINEAR if linear else "{}" if width == own["width"] else WIDE
    return [measured(row, classes) | {
        "method": form.format(row.name, width), "seed": seed, "decay": decay, "width": width,
        "cpu_seconds": row.cpu_seconds}
        for row in comparison.rows if row.name in (CONTROL, DESCENT, SAME)]


def measured(row: Any, classes: np.ndarray) -> dict[str, Any]:
    """What one network is like, layer by layer."""
    solution = row.solution
    problem, trained = solution.problem, solution.status is hs.Status.TRAINED
    certificate = None if trained else hs.certify(solution)
    predicted = np.argmax(problem.readout @ solution.representations[-1], axis=0)
    V = solution.weights[:, :, :problem.width]
    return {
        "status": solution.status.name, "stationarity": solution.stationarity,
        "objective": solution.objective, "loss": solution.loss,
        "accuracy": float(np.mean(predicted == classes)),
        "certified": None if certificate is None else certificate.holds,
        "second_order": "" if certificate is None else certificate.second_order,
        **{name: [float(f"{value:.5g}") for value in values] for name, values in dict(
            zip(("nc1", "orthogonal", "simplex", "conditioning"),
                zip(*(collapse(A, classes) for A in solution.representations), strict=True),
                strict=True),
            norms=np.linalg.norm(solution.weights, axis=(1, 2)),
            balance=balance(V),
            leaky_balance=leaky_balance(V, solution.steps, problem.effective_depth),
            coi=solution.energies(GAMMA0).stable_cost_of_identity).items()},
    }


def collapse(A: np.ndarray, classes: np.ndarray) -> tuple[float, float, float, float]:
    """NC1, the two distances of NC2, and the condition number of the class means; A is (w, N)."""
    count = classes.max() + 1
    means = np.stack([A[:, classes == c].mean(axis=1) for c in range(count)], axis=1)
    centred = means - means.mean(axis=1, keepdims=True)
    within = np.sum((A - means[:, classes]) ** 2) / A.shape[1]
    nc1 = within / (np.sum(centred**2) / count)
    identity = np.eye(count)
    values = np.linalg.svd(means, compute_uv=False)
    return (float(nc1), _apart(means, identity), _apart(centred, identity - 1 / count),
            float(values[0] / max(values[-1], 1e-300)) if len(values) == count else np.inf)


def _apart(means: np.ndarray, gram: np.ndarray) -> float:
    """Distance of two Gram matrices, each of norm 1."""
    own = means.T @ means
    return float(np.linalg.norm(own / np.linalg.norm(own) - gram / np.linalg.norm(gram)))


def balance(V: np.ndarray) -> np.ndarray:
    """‖W_{ℓ+1}ᵀW_{ℓ+1} − W_ℓW_ℓᵀ‖/‖W_ℓW_ℓᵀ‖ of neighbouring layers, from weights (L, w, w)."""
    return _relative(V[1:].transpose(0, 2, 1) @ V[1:], V[:-1] @ V[:-1].transpose(0, 2, 1))


def leaky_balance(V: np.ndarray, steps: np.ndarray, depth: float) -> np.ndarray:
    """‖M_{ℓ+1}ᵀW_{ℓ+1} − W_ℓM_ℓᵀ‖/‖W_ℓM_ℓᵀ‖: 0 at a stationary point of a linear network."""
    rho = steps[:, None, None]
    M = (1 - rho * depth) * np.eye(V.shape[1]) + rho * V
    return _relative(M[1:].transpose(0, 2, 1) @ V[1:], V[:-1] @ M[:-1].transpose(0, 2, 1))


def _relative(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.linalg.norm(left - right, axis=(1, 2)) / np.linalg.norm(right, axis=(1, 2))


# -- turnpike --------------------------------------------------------------------------------------


def path_problem(kind: str, seed: int, depth: float, own: dict[str, Any]) -> hs.TrainingProblem:
    """A linear network that is to learn a map of rank 1, or a smooth ReLU behind a teacher."""
    width, decay = own["width"][kind], own["weight_decay"]
    if kind == "smooth ReLU":
        return hs.teacher_problem(
            (width, RANK, width), samples=own["samples"], width=width, seed=seed,
            activation="smooth_relu", effective_depth=depth, weight_decay=decay, test_samples=0)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((own["samples"], width))
    Y = X @ np.outer(rng.standard_normal(width), rng.standard_normal(width))
    return hs.TrainingProblem(X, Y, width=width, bias=False, activation="linear",
                              effective_depth=depth, weight_decay=decay)


def followed(kind: str, seed: int, own: dict[str, Any]) -> dict[str, Any]:
    """Geodesics of one problem over L̃, each described, and the depths that failed."""
    paths, failed = common.continued(
        lambda depth: path_problem(kind, seed, depth, own), own["depths"], workers=1,
        effort=own.get("effort", "default"))
    return {"geodesics": [{"kind": kind, "seed": seed, **described(path, own["points"])}
                          for path in paths],
            "failed": [{"kind": kind, "seed": seed, "effective_depth": d} for d in failed]}


def described(path: hs.Solution, points: int) -> dict[str, Any]:
    """Distances along one geodesic and what was fitted to them."""
    depth, p = path.problem.effective_depth, np.linspace(0, 1, points)
    at = path.at(p)
    moved, size = common.speeds(path, p)
    rest = moved / (depth * size)
    edge = points // 20
    static = edge + int(np.argmin(rest[edge:points - edge]))
    values = np.linalg.svd(at.representations, compute_uv=False)
    A = at.representations
    distances = {
        "set": np.sqrt(np.sum(values[:, RANK:] ** 2, axis=1)) / size,
        "rest": rest,
        "point": np.linalg.norm(A - A[static], axis=(1, 2)) / size[static],
    }
    rates = linear_rates(A[static], at.momenta[static], path)
    return {
        "effective_depth": depth, "status": path.status.name, "stationarity": path.stationarity,
        "objective": path.objective, "drift": path.hamiltonian_drift,
        "bottleneck_rank": path.bottleneck_rank,
        "cost_of_identity": float(path.energies(GAMMA0).stable_cost_of_identity.min()),
        "static_at": float(p[static]), "static_rest": float(rest[static]),
        "rates": [float(f"{rate:.4g}") for rate in rates],
        **{name: {**outside(distance, depth * p), **(
            {} if name == "point" else fitted(distance, depth * p))}
           for name, distance in distances.items()},
    }


def linear_rates(A: np.ndarray, B: np.ndarray, path: hs.Solution) -> np.ndarray:
    """|Re| of the eigenvalues of the linearised flow in units of t, one of each ± pair, sorted."""
    settings: dict[str, Any] = dict(effective_depth=1.0, activation=path.activation,
                                    bias=path.problem.bias)
    columns = []
    for unit in np.eye(2 * A.size):
        a, b = unit.reshape(2, *A.shape)
        columns.append(np.concatenate([change.ravel() for change in flow_derivative(
            A, B, a, b, **settings)]))
    return np.sort(np.abs(np.linalg.eigvals(np.array(columns).T).real))[::2]


def outside(distance: np.ndarray, t: np.ndarray) -> dict[str, Any]:
    """The rate of the bound, the time outside a neighbourhood, and every fourth value."""
    return {"bound_rate": bound_rate(distance, t),
            "time_outside": float(t[-1] * np.mean(distance > NEAR)),
            "least": float(distance.min()),
            "curve": [float(f"{value:.3g}") for value in distance[::4]]}


def fitted(distance: np.ndarray, t: np.ndarray) -> dict[str, Any]:
    """Both fits, to what is more than rounding."""
    kept = distance > 1e-13
    plain, floored = (_fit(distance[kept], t[kept], t[-1], floor) for floor in (False, True))
    return {"rate": plain[0], "r2": plain[1], "rate_above_floor": floored[0],
            "r2_floor": floored[1], "floor": floored[2]}


def _fit(distance: np.ndarray, t: np.ndarray, end: float, floor: bool) -> tuple[float, ...]:
    """Least squares in logarithms: μ, R² and the constant (0 without one)."""
    logs = np.log(distance)

    def curve(x: np.ndarray) -> np.ndarray:
        rate = np.exp(x[2])
        sides = np.exp(x[0] - rate * t) + np.exp(x[1] - rate * (end - t))
        return sides + np.exp(x[3]) if floor else sides

    low = [-60.0, -60.0, np.log(1e-3)] + ([-40.0] if floor else [])
    high = [10.0, 10.0, np.log(20.0)] + ([5.0] if floor else [])
    starts = [[logs[0], right, rate] + ([logs.min() - 0.1] if floor else [])
              for rate in (-1.5, 0.0, 1.0) for right in (logs[-1], -10.0)]
    found = min((least_squares(lambda x: np.log(curve(x)) - logs, np.clip(start, low, high),
                               bounds=(low, high)) for start in starts), key=lambda f: f.cost)
    r2 = 1 - np.sum(found.fun**2) / np.sum((logs - logs.mean()) ** 2)
    return float(np.exp(found.x[2])), float(r2), float(np.exp(found.x[3])) if floor else 0.0


def bound_rate(distance: np.ndarray, t: np.ndarray) -> float:
    """The largest μ ≤ 20 with distance ≤ C(e^{−μt} + e^{−μ(T−t)}) everywhere, C = `BOUND`."""
    def excess(rate: float) -> float:
        sides = np.logaddexp(-rate * t, -rate * (t[-1] - t))
        return float(np.max(np.log(np.maximum(distance, 1e-300)) - sides)) - np.log(BOUND)

    if excess(0.0) > 0:
        return 0.0
    return 20.0 if excess(20.0) <= 0 else float(brentq(excess, 0.0, 20.0))


# -- the study -------------------------------------------------------------------------------------


def study(settings: dict[str, Any], each: Any) -> dict[str, Any]:
    needed()
    own, seeds = settings["digits"], settings["seeds"]
    cases = [*((decay, own["width"], False) for decay in own["decays"]),
             (own["linear_decay"], own["width"], True), (own["wide_decay"], own["wide"], False)]
    rows = each(compared, [dict(seed=seed, decay=decay, width=width, linear=linear, own=own)
                           for seed in seeds for decay, width, linear in cases])
    found = each(followed, [dict(kind=kind, seed=seed, own=settings["turnpike"])
                            for kind in KINDS for seed in seeds])
    return {"networks": [row for part in rows for row in part],
            "geodesics": [row for part in found for row in part["geodesics"]],
            "failed": [row for part in found for row in part["failed"]]}


def needed() -> None:
    """End with one sentence where scikit-learn is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise SystemExit(f"{NAME}.py needs scikit-learn, for its data; install it with: "
                         "pip install scikit-learn")


def networks(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of networks by the name that sentences and figure call them."""
    names = dict.fromkeys(row["method"] for row in record["networks"])
    return {**{name: of(record, name) for name in names}, GEODESIC: record["geodesics"]}


def of(record: dict[str, Any], method: str, **wanted: Any) -> list[dict[str, Any]]:
    """Networks of one method, those with the values wanted."""
    return [row for row in record["networks"] if row["method"] == method
            and all(row[key] == value for key, value in wanted.items())]


def middle(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> float:
    """The median of a number over rows."""
    return float(np.median([value(row) for row in rows]))


# -- findings --------------------------------------------------------------------------------------


def findings(record: dict[str, Any]) -> list[str]:
    """Sentences with numbers, whichever way it went."""
    return [*collapse_findings(record), *wide_findings(record), *linear_findings(record),
            *turnpike_findings(record)]


def before_last(key: str) -> Callable[[dict[str, Any]], float]:
    """A number of the features that the last layer receives, A_{L−1}."""
    return lambda row: row[key][-2]


def over_decays(record: dict[str, Any], method: str, value: Callable, form: str = ".2g") -> str:
    """Medians of a number over the seeds for every λ."""
    return common.listed((middle(of(record, method, decay=decay), value)
                          for decay in record["settings"]["digits"]["decays"]), form)


def collapse_findings(record: dict[str, Any]) -> list[str]:
    """Of the ReLU networks."""
    own, ended = record["settings"]["digits"], record["ended"]
    control, adam = of(record, CONTROL), of(record, DESCENT)
    methods = [name for name in (CONTROL, DESCENT, SAME) if of(record, name)]
    wide = of(record, WIDE.format(CONTROL, own["wide"]))
    proved = common.verdicts(row["second_order"] for row in (*control, *wide))
    decays = common.listed(own["decays"])
    by_decay = [middle(of(record, CONTROL, decay=decay), before_last("nc1"))
                for decay in own["decays"]]
    falls = all(b < a for a, b in pairwise(by_decay))
    factors = [(row["nc1"][-2] / row["nc1"][0]) ** (1 / (own["layers"] - 1)) for row in control]
    lowest = {(row["seed"], row["decay"]): row["objective"] for row in control}
    ratios = {name: [row["objective"] / lowest[row["seed"], row["decay"]] - 1
                     for row in of(record, name)] for name in methods[1:]}
    return [
        f"Digits, {own['classes']} classes of {own['samples']}, seeds "
        f"{common.listed(record['settings']['seeds'])}, λ = {decays}: " + "; ".join(
            f"{name}, {common.said(ended[name])}" for name in methods)
        + f"; {sum(row['certified'] for row in control)} of {len(control)} networks of optimal "
        "control are certified.",
        f"Second order of the ReLU networks of optimal control, wider ones among them: {proved}.",
        "J above that of optimal control, in percent: " + "; ".join(
            f"{name} {common.spread((100 * r for r in ratio), '+.2g')}, lower by more than 0.001 "
            f"in {sum(r < -1e-5 for r in ratio)}" for name, ratio in ratios.items())
        + f"; all samples are classified right by {sum(row['accuracy'] == 1 for row in control)} "
        f"and {sum(row['accuracy'] == 1 for row in adam)} of {len(control)}.",
        f"NC1 before the last layer (inputs: {middle(control, lambda r: r['nc1'][0]):.2g}) for "
        f"λ = {decays}: " + "; ".join(
            f"{over_decays(record, name, before_last('nc1'))} ({name})" for name in methods)
        + f". Collapse grows as λ and with it the loss fall: {'agree' if falls else 'not always'}.",
        f"NC1 falls from layer to layer by the factor {common.spread(factors)} (optimal control), "
        f"in {sum(_falling(row) for row in control)} of {len(control)} networks at every layer.",
        *geometry_findings(record, control, methods),
        "Balance of ReLU layers, median over pairs of layers of ‖W_{ℓ+1}ᵀW_{ℓ+1} − W_ℓW_ℓᵀ‖ over "
        "‖W_ℓW_ℓᵀ‖: " + ", ".join(
            f"{middle(of(record, name), lambda r: np.median(r['balance'])):.2g} ({name})"
            for name in methods) + "; largest ‖W_ℓ‖ over the smallest: " + ", ".join(
            f"{middle(of(record, name), _unequal):.3g} ({name})" for name in methods) + ".",
        "Cost of identity, the stable one: from "
        f"{middle(control, lambda r: r['coi'][0]):.3g} at the first layer to "
        f"{middle(control, lambda r: min(r['coi'])):.3g} at the least (optimal control), "
        f"{middle(adam, lambda r: min(r['coi'])):.3g} ({DESCENT}), for {own['classes']} classes; "
        f"the least is at the last layer in {sum(r['coi'][-1] == min(r['coi']) for r in control)} "
        f"of {len(control)}.",
    ]


def geometry_findings(record: dict[str, Any], control: list[dict[str, Any]],
                      methods: list[str]) -> list[str]:
    """Of the class means: NC2, and whether a lower J is nearer to it."""
    def listed(key: str) -> str:
        return "; ".join(f"{over_decays(record, name, before_last(key))} ({name})"
                         for name in methods)

    def medians(value: Callable[[dict[str, Any]], float]) -> str:
        return ", ".join(f"{middle(of(record, name), value):.2g} ({name})" for name in methods)

    nearer = count = 0
    for name in methods[1:]:
        for row in of(record, name):
            own, = of(record, CONTROL, seed=row["seed"], decay=row["decay"])
            if abs(row["objective"] / own["objective"] - 1) > 1e-5:
                low, high = sorted((own, row), key=lambda r: r["objective"])
                nearer += low["simplex"][-2] < high["simplex"][-2]
                count += 1
    verdict = "agree" if nearer > 0.8 * count else (
        "does not agree" if nearer < 0.5 * count else "agree in part")
    return [
        "NC2 before the last layer, distance of the centred means from a simplex, for the same λ: "
        f"{listed('simplex')}; at the inputs {middle(control, lambda r: r['simplex'][0]):.2g}. "
        f"Distance of the means themselves from an orthogonal frame: {listed('orthogonal')}.",
        "The largest distance from a simplex on the way is "
        f"{medians(lambda r: max(r['simplex']))}, and the largest condition number "
        "of the means of hidden layers "
        f"{medians(lambda r: max(r['conditioning'][1:-1]))}.",
        f"Of {count} pairs of optimal control and Adam whose J differs by more than 0.001 %, the "
        f"lower J is nearer to a simplex before the last layer in {nearer}. NC2, as what a lower J "
        f"brings: {verdict}.",
    ]


def _falling(row: dict[str, Any]) -> bool:
    return all(b < a for a, b in pairwise(row["nc1"]))


def _late(row: dict[str, Any]) -> float:
    """How much of NC1 in the middle is left before the last layer."""
    return row["nc1"][-2] / row["nc1"][len(row["nc1"]) // 2]


def _unequal(row: dict[str, Any]) -> float:
    return max(row["norms"]) / min(row["norms"])


def wide_findings(record: dict[str, Any]) -> list[str]:
    """Of wider networks, at one λ, beside those of the usual width."""
    own = record["settings"]["digits"]
    names = {name: WIDE.format(name, own["wide"]) for name in (CONTROL, DESCENT, SAME)
             if of(record, WIDE.format(name, own["wide"]))}

    def both(key: str) -> str:
        return "; ".join(
            f"{middle(of(record, wide), before_last(key)):.2g} where width {own['width']} has "
            f"{middle(of(record, name, decay=own['wide_decay']), before_last(key)):.2g} ({name})"
            for name, wide in names.items())

    wide = of(record, names[CONTROL])
    lower = sum(row["objective"] < of(record, CONTROL, seed=row["seed"], decay=row["decay"])[0][
        "objective"] for row in wide)
    won = {name: sum(row["objective"] < of(record, names[CONTROL], seed=row["seed"])[0]["objective"]
                     * (1 - 1e-5) for row in of(record, name))
           for name in list(names.values())[1:]}
    return [
        f"Wider, λ = {own['wide_decay']:g}: " + "; ".join(
            f"{wide}, {common.said(record['ended'][wide])}" for wide in names.values())
        + f"; {sum(row['certified'] for row in wide)} of {len(wide)} of optimal control are "
        f"certified; J is lower than at width {own['width']} in {lower}. Lower than optimal "
        "control is "
        + ", ".join(f"{name} in {count}" for name, count in won.items()) + ".",
        f"Width {own['wide']}, NC1 before the last layer: {both('nc1')}. NC2, distance from a "
        f"simplex: {both('simplex')}; from an orthogonal frame: {both('orthogonal')}.",
    ]


def linear_findings(record: dict[str, Any]) -> list[str]:
    """Of the linear networks on the same digits."""
    names = [name for name in map(LINEAR.format, (CONTROL, DESCENT, SAME)) if of(record, name)]
    first = of(record, names[0])
    decay = record["settings"]["digits"]["linear_decay"]
    relu = of(record, CONTROL, decay=decay) or of(record, CONTROL)
    return [
        f"Linear networks of the same digits, λ = {decay:g}: " + "; ".join(
            f"{name}, {common.said(record['ended'][name])}" for name in names) + ".",
        f"Their loss is {common.spread(row['loss'] for row in first)} where ReLU's is "
        f"{middle(relu, lambda r: r['loss']):.2g}; NC1 before the last layer "
        f"{middle(first, before_last('nc1')):.2g} where ReLU's is "
        f"{middle(relu, before_last('nc1')):.2g}; from the middle layer on it changes by "
        f"the factor {middle(first, _late):.2g}, ReLU's by {middle(relu, _late):.2g}.",
        "Their own balance, M_{ℓ+1}ᵀW_{ℓ+1} = W_ℓM_ℓᵀ, holds to "
        + ", ".join(f"{max(max(row['leaky_balance']) for row in of(record, name)):.1e} ({name})"
                    for name in names) + "; that of fully connected layers is missed by "
        f"{middle(first, lambda r: np.median(r['balance'])):.2g}, and the largest ‖W_ℓ‖ is "
        f"{max(map(_unequal, first)):.4f} times the smallest (optimal control).",
    ]


def turnpike_findings(record: dict[str, Any]) -> list[str]:
    """Of the geodesics."""
    lines = [f"Turnpike: {common.said(record['ended'][GEODESIC])}, {GEODESIC}s; the Hamiltonian "
             f"drifts by at most {max(row['drift'] for row in record['geodesics']):.1e}."]
    for kind in KINDS:
        lines += [turnpike_sentence(record, kind, name) for name in DISTANCES]
        lines.append(rates_sentence(record, kind))
    if record["failed"]:
        lines.append("No geodesic was found at " + "; ".join(
            f"L̃ = {row['effective_depth']:g} ({row['kind']}, seed {row['seed']})"
            for row in record["failed"]) + ".")
    return lines


def at_depth(record: dict[str, Any], kind: str, depth: float) -> list[dict[str, Any]]:
    return [row for row in record["geodesics"]
            if row["kind"] == kind and row["effective_depth"] == depth]


def shown_depths(record: dict[str, Any], kind: str) -> list[float]:
    """The first, the middle and the last L̃ at which there are geodesics."""
    depths = sorted({row["effective_depth"] for row in record["geodesics"] if row["kind"] == kind})
    return sorted({depths[0], depths[len(depths) // 2], depths[-1]})


def turnpike_sentence(record: dict[str, Any], kind: str, name: str) -> str:
    """What became of one distance as L̃ grew; medians over the seeds."""
    depths = shown_depths(record, kind)

    def over(key: str, form: str) -> str:
        return common.listed((middle(at_depth(record, kind, depth), lambda r: r[name][key])
                              for depth in depths), form)

    last = [row[name]["bound_rate"] for row in at_depth(record, kind, depths[-1])]
    seeds = f" (at the last from {min(last):.2f} to {max(last):.2f} over {len(last)} seeds)"
    fits = "" if name == "point" else (
        f"; least {over('least', '.2g')}; fitted μ {over('rate', '.2f')} (R² {over('r2', '.2f')}), "
        f"above a constant {over('rate_above_floor', '.2f')} (R² {over('r2_floor', '.2f')}; "
        f"constant {over('floor', '.2g')})")
    return (f"{kind[0].upper() + kind[1:]}, distance {DISTANCES[name]}, at "
            f"L̃ = {common.listed(depths)}: time t outside {NEAR:g} {over('time_outside', '.3g')}; "
            f"rate of the bound with C = {BOUND:g} {over('bound_rate', '.2f')}"
            f"{seeds if len(last) > 1 else ''}{fits}. "
            f"{verdict(record, kind, name)}")


def verdict(record: dict[str, Any], kind: str, name: str) -> str:
    """What holds for all L̃; from the last two, whether time outside and rate stay."""
    depths = sorted({row["effective_depth"] for row in record["geodesics"] if row["kind"] == kind})
    before, last = depths[-2:]

    def at(depth: float, key: str) -> float:
        return middle(at_depth(record, kind, depth), lambda r: r[name][key])

    longer = (at(last, "time_outside") - at(before, "time_outside")) / (last - before)
    steady = at(last, "bound_rate") > 0.9 * at(before, "bound_rate") > 0
    least = min(row[name]["bound_rate"] for row in record["geodesics"] if row["kind"] == kind)
    return (f"For all L̃ and seeds the bound holds with C = {BOUND:g} and μ = {least:.2f}. "
            f"From L̃ = {before:g} to {last:g} the time outside changes by {longer:+.2f} of what "
            f"L̃ does ({'bounded so far' if longer < 0.1 else 'not bounded'}), and the rate of the "
            f"bound {'holds' if steady else 'falls'}: an exponential turnpike, whose rate L̃ leaves "
            f"alone, is {'borne out' if steady and longer < 0.1 else 'not borne out'}.")


def rates_sentence(record: dict[str, Any], kind: str) -> str:
    """Eigenvalues of the linearised flow, and the drift."""
    depths = shown_depths(record, kind)

    def over(value: Callable, form: str) -> str:
        return common.listed((middle(at_depth(record, kind, d), value) for d in depths), form)

    return (f"{kind[0].upper() + kind[1:]}, at the static point the linearised flow has "
            f"{over(lambda r: sum(0.9 < rate < 1.1 for rate in r['rates']), 'g')} of "
            f"{len(at_depth(record, kind, depths[-1])[0]['rates'])} rates within 0.1 of 1, and "
            f"{over(lambda r: sum(rate < 0.1 for rate in r['rates']), 'g')} below 0.1 "
            f"(L̃ = {common.listed(depths)}); L̃ times the distance to rest there is "
            f"{over(lambda r: r['effective_depth'] * r['static_rest'], '.3g')}; −2H/L̃ with costate "
            f"{over(lambda r: r['bottleneck_rank'], '.2f')}.")


# -- the figure ------------------------------------------------------------------------------------


def draw(record: dict[str, Any]) -> Any:
    """Collapse layer by layer above; distances and rates of the turnpike below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 8.0), layout="constrained")
    top, bottom = figure.subplots(2, 4)
    collapse_panels(top, record)
    figure.legend(*top[0].get_legend_handles_labels(), loc="outside upper center", ncols=4,
                  frameon=False)
    seed = record["settings"]["seeds"][0]
    curves(bottom[0], record, KINDS[0], "set", f"(e) linear network, {DISTANCES['set']}", seed)
    curves(bottom[1], record, KINDS[1], "set", f"(f) smooth ReLU, {DISTANCES['set']}", seed)
    curves(bottom[2], record, KINDS[1], "rest", f"(g) smooth ReLU, {DISTANCES['rest']}", seed)
    rates_panel(bottom[3], record)
    return figure


def collapse_panels(axes: Any, record: dict[str, Any]) -> None:
    """NC1, NC2, the norms of the layers, and the cost of identity; medians over the seeds."""
    own = record["settings"]["digits"]
    palette = dict(zip(own["decays"], hs.plot.PALETTE, strict=False))
    names = {CONTROL: common.labelled(CONTROL, record["ended"][CONTROL]), DESCENT: "Adam, its grid"}
    for decay in own["decays"]:
        for method, style in ((CONTROL, "o-"), (DESCENT, "--")):
            rows = of(record, method, decay=decay)
            look: dict[str, Any] = dict(color=palette[decay], ms=3, lw=1.3)
            label = rf"{names[method]}, $\lambda = {decay:g}$"
            axes[0].semilogy(_layers(rows, "nc1"), style, label=label, **look)
            axes[1].plot(_layers(rows, "simplex"), style, **look)
            axes[2].plot(np.arange(1, own["layers"] + 1), _layers(rows, "norms"), style, **look)
            axes[3].semilogy(_layers(rows, "coi"), style, **look)
    wide = WIDE.format(CONTROL, own["wide"])
    for ax, key in zip(axes[:2], ("nc1", "simplex"), strict=True):
        ax.plot(_layers(of(record, wide), key), "-.", color=hs.plot.PALETTE[3], lw=1.6,
                label=f"{wide}, $\\lambda = {own['wide_decay']:g}$")
    linear = of(record, LINEAR.format(CONTROL))
    axes[0].semilogy(_layers(linear, "nc1"), ":", color="black", lw=1.5,
                     label=f"{LINEAR.format(CONTROL)}, $\\lambda = {own['linear_decay']:g}$")
    axes[3].axhline(own["classes"], color=hs.plot.GREY, lw=0.9)
    axes[3].text(0, 1.08 * own["classes"], "number of classes", color=hs.plot.GREY, fontsize=8)
    common.dress(axes[0], "(a) NC1: within over between classes", "layer",
                 r"tr $\Sigma_W$ / tr $\Sigma_B$ of $A_\ell$")
    common.dress(axes[1], "(b) NC2: class means from a simplex", "layer",
                 "distance of the Gram matrices")
    common.dress(axes[2], "(c) norms of the layers", "layer", r"$\|W_\ell\|$")
    common.dress(axes[3], "(d) cost of identity", "layer", r"$\|A_\ell\|^2_{K+\gamma I}$")


def _layers(rows: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.median([row[key] for row in rows], axis=0)


def curves(ax: Any, record: dict[str, Any], kind: str, name: str, title: str, seed: int) -> None:
    """One distance along the paths of one seed, for every L̃."""
    from matplotlib import colormaps

    rows = [row for row in record["geodesics"] if (row["kind"], row["seed"]) == (kind, seed)]
    shades = np.linspace(0.15, 0.85, len(rows))
    for row, shade in zip(rows, shades, strict=True):
        curve = np.maximum(row[name]["curve"], 1e-14)
        ax.semilogy(np.linspace(0, 1, len(curve)), curve, color=colormaps["viridis"](shade), lw=1.4,
                    label=f"{row['effective_depth']:g}")
    low = min(min(row[name]["curve"]) for row in rows)
    ax.set_ylim(0.02 * max(low, 1e-14), None)  # room for the key
    ax.legend(title=r"$\tilde{L}$", frameon=False, fontsize=8, ncols=4, loc="lower left")
    common.dress(ax, title, "$p$", "distance")


def rates_panel(ax: Any, record: dict[str, Any]) -> None:
    """Rates of the bound over L̃, all seeds."""
    for kind, style in zip(KINDS, ("-", "--"), strict=True):
        for k, name in enumerate(DISTANCES):
            depths = sorted({row["effective_depth"] for row in record["geodesics"]
                             if row["kind"] == kind})
            ax.plot(depths, [middle(at_depth(record, kind, d), lambda r, n=name: r[n]["bound_rate"])
                             for d in depths], style, marker="o", ms=3, lw=1.3,
                    color=hs.plot.PALETTE[k], label=f"{kind}, {DISTANCES[name]}")
    ax.set_xlim(0, None)
    ax.set_ylim(0, None)
    ax.legend(frameon=False, fontsize=7)
    common.dress(ax, f"(h) rate of the bound with C = {BOUND:g}", r"$\tilde{L}$", r"$\mu$")


def main(arguments: list[str] | None = None) -> None:
    """Run the demo."""
    common.run(NAME, __doc__, {"small": SMALL, "full": FULL}, study, findings, draw, arguments,
               networks=networks)


if __name__ == "__main__":
    main()
