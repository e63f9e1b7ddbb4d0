"""Random problems of every awkward kind through every method: does each end with what is true?

    python demos/benchmarks/stress.py                  # 300 problems from seed 0, generator 15
    python demos/benchmarks/stress.py 50 1000 7        # 50 problems from seed 1000, generator 7
    python demos/benchmarks/stress.py --report         # the numbers of what was kept

Widths 1 to 12, samples 1 to 60, L̃ 0.1 to 15, λ over six decades, and in turn the kinds of `KINDS`:
duplicated samples, constant columns, collinear inputs, targets equal to inputs, huge and tiny
scales, more inputs or outputs than neurons, one sample, hard endpoints; ReLU, smooth ReLU and
linear. All of a problem follows from generator and seed. Each goes through `hs.solve` by single
shooting, multiple shooting and indirect shooting (hard endpoints by the last two), with few layers,
effort "quick", one thread and a time limit.

A solve is *right* when nothing was raised and what it says of itself is true (`untrue`): J, loss
and norm are those of its weights; a status that claims a stationary point is one, and no success
that the certificate denies; every other status means what its sentence says. The formulas are
written anew here from the theory page, none of them taken from the package. Of a layered network:
roll-out, costate (with the stored momenta as the witness for slopes on the kink of ReLU) and
stationarity. Of a continuous path: SciPy's DOP853 from each stored node to the next.

What was run is kept in stress.csv, and stress.json has date, machine, versions and each solve that
is not right with its reason. A run that was interrupted goes on; ``--again`` runs all anew, and
``--wrong`` what was not right, after a change. 300 problems take a quarter of an hour of CPU. Of
solves that end at the time limit little more is said than that it is so: 180 of the 850 of
generator 23, and 308 of the 850 of generator 15, whose limit was 1.5 s.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import platform
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

import hamshoot as hs

KINDS = ("teacher", "noise", "duplicated samples", "constant columns", "collinear inputs",
         "targets equal inputs", "scales", "more inputs than neurons", "more outputs than neurons",
         "one sample", "hard endpoint", "endpoint in reach")
ACTIVATIONS = ("relu", "smooth_relu", "linear")
METHODS = ("single_shooting", "multiple_shooting", "indirect")
MOST = (12, 60)  # width, samples
TIME_LIMIT = 5.0  # seconds a solve
TINY = 1e-8
COLUMNS = ("generator", "seed", "kind", "method", "activation", "width", "samples", "d_in", "d_out",
           "effective_depth", "weight_decay", "layers", "status", "success", "holds", "objective",
           "objective_apart", "stationarity", "recomputed", "cpu_seconds", "warnings", "right",
           "reason")
#: Bounds: recorded against recomputed numbers, over layers and on paths; what CONVERGED claims.
SAME, SAME_PATH, STATIONARY = 1e-9, 1e-7, 1e-6


# -- problems --------------------------------------------------------------------------------------


def draw(seed: int, generator: int = 15, most: tuple[int, int] = MOST
         ) -> tuple[str, hs.TrainingProblem]:
    """Kind and problem of a seed, with width and samples at most."""
    rng = np.random.default_rng([seed, generator])
    kind = KINDS[seed % len(KINDS)]
    activation = ACTIVATIONS[seed // len(KINDS) % len(ACTIVATIONS)]
    width, samples = (int(rng.integers(1, m + 1)) for m in most)
    depth = float(10 ** rng.uniform(-1, np.log10(15)))
    decay = float(10 ** rng.uniform(-5, 1))
    d_in, d_out = (int(rng.integers(1, width + 1)) for _ in range(2))
    if kind == "one sample":
        samples = 1
    if kind == "more inputs than neurons":
        d_in = width + int(rng.integers(1, 8))
    if kind == "more outputs than neurons":
        d_out = width + int(rng.integers(1, 8))
    X, Y = data(kind, rng, samples, d_in, d_out)
    options: dict[str, Any] = dict(effective_depth=depth, weight_decay=decay, width=width,
                                   activation=activation, bias=bool(rng.random() < 0.8), seed=seed)
    if activation == "smooth_relu":
        options["epsilon"] = float(10 ** rng.uniform(-2, 0))
    if kind in ("hard endpoint", "endpoint in reach"):
        free = hs.TrainingProblem(X, Y, **options)
        return kind, hs.TrainingProblem(X, endpoint=endpoint(kind, free, rng), **options)
    standardize = "varying" if rng.random() < 0.3 and kind != "scales" and samples > 1 else False
    return kind, hs.TrainingProblem(X, Y, standardize=standardize, **options)


def data(kind: str, rng: np.random.Generator, samples: int, d_in: int, d_out: int
         ) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, d_in) and targets (N, d_out) of a kind."""
    X = rng.standard_normal((samples, d_in))
    if kind == "duplicated samples":
        X = X[rng.integers(0, max(1, samples // 3), samples)]
    if kind == "constant columns":
        X[:, rng.random(d_in) < 0.6] = rng.choice([0.0, 1.0, -3.0])
    if kind == "collinear inputs":
        X = np.outer(X[:, 0], rng.standard_normal(d_in))
    if kind == "targets equal inputs":
        return X, X.copy()
    inner = int(rng.integers(1, 4))
    Y = np.maximum(X @ rng.standard_normal((d_in, inner)), 0) @ rng.standard_normal((inner, d_out))
    if kind == "noise":
        Y = rng.standard_normal((samples, d_out))
    if kind == "duplicated samples" and rng.random() < 0.5:
        Y = Y + 0.1 * rng.standard_normal(Y.shape)  # equal inputs with unequal targets
    if kind == "constant columns":
        Y[:, rng.random(d_out) < 0.4] = rng.choice([0.0, 2.0])
    if kind == "scales":
        X, Y = X * 10.0 ** rng.uniform(-7, 7), Y * 10.0 ** rng.uniform(-7, 7)
    return X, Y


def endpoint(kind: str, problem: hs.TrainingProblem, rng: np.random.Generator) -> np.ndarray:
    """A_1 at random, mostly out of reach, or where a random network of those layers ends."""
    A = problem.lift @ np.asarray(problem.X).T
    if kind == "hard endpoint":
        return rng.standard_normal(A.shape)
    L, w = layers(problem), problem.width
    W = problem.effective_depth * np.eye(w, w + problem.bias) + \
        rng.standard_normal((L, w, w + problem.bias)) / np.sqrt(w)
    return rolled_out(problem, A, W, np.full(L, 1 / L))[-1]


def layers(problem: hs.TrainingProblem) -> int:
    """Six, or as few more as L̃ allows."""
    return max(6, int(1.2 * problem.effective_depth) + 2)


# -- the formulas, anew ----------------------------------------------------------------------------


def sigma(problem: hs.TrainingProblem, A: np.ndarray, epsilon: float | None = None) -> np.ndarray:
    """σ(A), of the problem or, with ε, the smooth ReLU."""
    if epsilon is None:
        epsilon = problem.epsilon if problem.epsilon is not None else 0.1
        if problem.activation == "linear":
            return A
        if problem.activation == "relu":
            return np.maximum(A, 0.0)
    root = np.hypot(A, epsilon)
    return np.where(A >= 0, 0.5 * (A + root), 0.5 * epsilon**2 / (root + np.abs(A)))


def slope(problem: hs.TrainingProblem, A: np.ndarray, epsilon: float | None = None) -> np.ndarray:
    """σ′(A); of ReLU 0 at the kink."""
    if epsilon is None:
        if problem.activation == "linear":
            return np.ones_like(A)
        if problem.activation == "relu":
            return np.where(A > 0, 1.0, 0.0)
        epsilon = problem.epsilon if problem.epsilon is not None else 0.1
    return sigma(problem, A, epsilon) / np.hypot(A, epsilon)


def hat(problem: hs.TrainingProblem, A: np.ndarray, epsilon: float | None = None) -> np.ndarray:
    """σ̂(A) = [σ(A); 1ᵀ], or σ(A) without bias."""
    S = sigma(problem, A, epsilon)
    return np.vstack([S, np.ones((1, A.shape[1]))]) if problem.bias else S


def scaled(problem: hs.TrainingProblem) -> tuple[np.ndarray, np.ndarray | None]:
    """A_0 (w, N) and Yᵀ (d_out, N), in scaled units."""
    start = problem.lift @ problem.input_scaling.apply(np.asarray(problem.X)).T
    if problem.hard_endpoint:
        return start, None
    return start, problem.target_scaling.apply(np.asarray(problem.Y)).T


def rolled_out(problem: hs.TrainingProblem, start: np.ndarray, W: np.ndarray, rho: np.ndarray,
               epsilon: float | None = None) -> np.ndarray:
    """A_ℓ = (1 − ρL̃) A_{ℓ−1} + ρ W σ̂(A_{ℓ−1})."""
    nodes = [start]
    for weight, step in zip(W, rho, strict=True):
        A = nodes[-1]
        nodes.append((1 - step * problem.effective_depth) * A
                     + step * weight @ hat(problem, A, epsilon))
    return np.array(nodes)


def terminal(problem: hs.TrainingProblem, end: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """B_1 = −(2/(λN)) Qᵀ(Q A_1 − Yᵀ)."""
    return -2 / (problem.weight_decay * end.shape[1]) * (
        problem.readout.T @ (problem.readout @ end - targets))


def objective(problem: hs.TrainingProblem, end: np.ndarray, norm: float) -> tuple[float, float]:
    """J and loss of a path that ends at A_1, with ∫‖W‖²."""
    targets = scaled(problem)[1]
    loss = 0.0 if targets is None else float(
        np.sum((problem.readout @ end - targets) ** 2) / end.shape[1])
    return loss + problem.weight_decay / (2 * problem.effective_depth) * norm, loss


def of_weights(problem: hs.TrainingProblem, W: np.ndarray, rho: np.ndarray,
               epsilon: float | None = None) -> tuple[float, float, float, np.ndarray]:
    """J, loss, Σρ‖W‖² and A of an Euler network."""
    A = rolled_out(problem, scaled(problem)[0], W, rho, epsilon)
    norm = float(np.sum(rho * np.sum(W**2, axis=(1, 2))))
    return *objective(problem, A[-1], norm), norm, A


def costates(problem: hs.TrainingProblem, A: np.ndarray, W: np.ndarray, rho: np.ndarray,
             end: np.ndarray, stored: np.ndarray | None, epsilon: float | None
             ) -> tuple[np.ndarray, float]:
    """B of the roll-out, and how far the slopes that `stored` implies leave [0, 1] on the kink.

    Where A is on the kink of ReLU, σ′ is what takes the stored B_ℓ to the stored B_{ℓ−1}.
    """
    B, outside = [end], 0.0
    w, kink = problem.width, 1e-9 * max(1.0, float(np.abs(A).max()))
    for k in range(len(W) - 1, -1, -1):
        leak = 1 - rho[k] * problem.effective_depth
        pulled = rho[k] * W[k][:, :w].T @ B[0]
        d = slope(problem, A[k], epsilon)
        if problem.activation == "relu" and epsilon is None and stored is not None and k > 0:
            on = (np.abs(A[k]) <= kink) & (pulled != 0)
            implied = np.divide(stored[k] - leak * B[0], pulled, out=np.zeros_like(pulled),
                                where=on)
            # An entry that hardly pulls has a slope of rounding alone: clipped, B tells.
            weight = np.abs(pulled) / max(float(np.abs(pulled).max()), 1e-300)
            off = np.maximum(implied - 1, -implied)[on] * weight[on]
            outside = max(outside, float(np.max(off, initial=0.0)))
            d = np.where(on, np.clip(implied, 0, 1), d)
        B.insert(0, leak * B[0] + d * pulled)
    return np.array(B), outside


def gradient(problem: hs.TrainingProblem, A: np.ndarray, B: np.ndarray, W: np.ndarray,
             epsilon: float | None) -> np.ndarray:
    """W_ℓ − L̃ B_ℓ σ̂(A_{ℓ−1})ᵀ, (L, w, w+1): (L̃/(λρ_ℓ)) ∂J/∂W_ℓ."""
    return np.array([W[k] - problem.effective_depth * B[k + 1] @ hat(problem, A[k], epsilon).T
                     for k in range(len(W))])


def stationarity(W: np.ndarray, G: np.ndarray) -> float:
    """max ‖G_ℓ‖ / max(1, ‖W_ℓ‖)."""
    return float(max(np.linalg.norm(g) / max(1.0, np.linalg.norm(v))
                     for g, v in zip(G, W, strict=True)))


def fall(problem: hs.TrainingProblem, W: np.ndarray, rho: np.ndarray, G: np.ndarray) -> float:
    """How much J falls at most along −∇J within 10 % of W, relatively.

    To J, or to that of weights of size TINY, where J is nothing but rounding.
    """
    J, size = of_weights(problem, W, rho)[0], float(np.linalg.norm(G))
    if problem.hard_endpoint or size == 0 or not np.isfinite(size):
        return 0.0
    reach = max(float(np.linalg.norm(W)), 1e-8) / size
    best = min(of_weights(problem, W - reach * 10.0**-t * G, rho)[0] for t in range(1, 13))
    least = TINY**2 * problem.weight_decay / problem.effective_depth
    return (J - best) / max(abs(J), least)


def integrated(solution: hs.Solution, epsilon: float | None) -> tuple[float, float, float]:
    """Norm ∫‖W‖² of a path by the flow, its worst defect of a node, and of its two ends."""
    problem = solution.problem
    L, w, N = problem.effective_depth, problem.width, problem.n_samples

    def field(_: float, y: np.ndarray) -> np.ndarray:
        A, B = y[:-1].reshape(2, w, N)
        W = L * B @ hat(problem, A, epsilon).T
        back = slope(problem, A, epsilon) * (W[:, :w].T @ B)
        return np.concatenate([(W @ hat(problem, A, epsilon) - L * A).ravel(),
                               (L * B - back).ravel(), [np.sum(W * W)]])

    A, B, p = solution.representations, solution.momenta, solution.p
    norm, defect = 0.0, 0.0
    for k in range(len(p) - 1):
        y = np.concatenate([A[k].ravel(), B[k].ravel(), [0.0]])
        span = (p[k], p[k + 1])
        end = solve_ivp(field, span, y, method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
        norm += end[-1]
        for got, kept in zip(end[:-1].reshape(2, w, N), (A[k + 1], B[k + 1]), strict=True):
            defect = max(defect, apart(got, kept))
    start, targets = scaled(problem)
    ends = apart(A[-1], problem.endpoint) if targets is None else \
        apart(B[-1], terminal(problem, A[-1], targets))
    return norm, defect, max(apart(A[0], start), ends)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / max(1, ‖b‖)."""
    return float(np.linalg.norm(a - b) / max(1.0, np.linalg.norm(b)))


def one_output(problem: hs.TrainingProblem, end: np.ndarray) -> bool:
    """Whether outputs differ by under a tenth of what targets do, and fit no better than a mean."""
    out, targets = problem.readout @ end, scaled(problem)[1]
    missed = np.sum((out - targets) ** 2)
    means = targets.mean(axis=1, keepdims=True)
    return any(np.linalg.norm(o) <= 0.1 * np.linalg.norm(t) and missed >= 0.8 * np.sum(t**2)
               for o, t in ((out, targets), (out - out.mean(axis=1, keepdims=True),
                                             targets - means)))


# -- the judgement ---------------------------------------------------------------------------------


def relative(a: float, b: float) -> float:
    """|a − b| / |b|, 0 where both are equal."""
    return 0.0 if a == b else abs(a - b) / max(abs(b), 1e-300)


def _same(stored: float, value: float, size: float, most: float) -> bool:
    """Whether they differ by no more than this share of a size: for the loss it is J."""
    return stored == value or abs(stored - value) <= most * abs(size)


def judged(solution: hs.Solution, time_limit: float) -> dict[str, Any]:
    """What is recomputed of a solution, and every reason why it is not right."""
    with np.errstate(all="ignore"):
        numbers = _path(solution) if solution.steps is None else _layered(solution)
    certificate = hs.certify(solution)
    reasons = [*numbers.pop("reasons"), *untrue(solution, numbers, certificate, time_limit)]
    if solution.success != (solution.status in (hs.Status.CONVERGED, hs.Status.SMOOTHED,
                                                hs.Status.FLAT)):
        reasons.append(f"success {solution.success} with status {solution.status.name}")
    if solution.success and not certificate.holds:
        reasons.append(f"success that the certificate denies: {certificate.reasons[0]}")
    return {"status": solution.status.name, "success": int(solution.success),
            "holds": int(certificate.holds), "objective": f"{solution.objective:.10g}",
            "objective_apart": f"{numbers['apart']:.1e}",
            "stationarity": f"{solution.stationarity:.1e}",
            "recomputed": f"{numbers['stationarity']:.1e}", "reasons": reasons}


def _layered(solution: hs.Solution) -> dict[str, Any]:
    """Numbers of an Euler network, from its weights; stored states against them."""
    problem, W, rho = solution.problem, solution.weights, solution.steps
    J, loss, norm, A = of_weights(problem, W, rho)
    targets = scaled(problem)[1]
    epsilon = None
    if solution.status is hs.Status.SMOOTHED:
        epsilon = solution.residuals.get("epsilon")
    smooth = A if epsilon is None else of_weights(problem, W, rho, epsilon)[3]
    end = solution.momenta[-1] if targets is None else terminal(problem, smooth[-1], targets)
    stored = solution.momenta if epsilon is None else None
    B, outside = costates(problem, smooth, W, rho, end, stored, epsilon)
    G = gradient(problem, smooth, B, W, epsilon)
    reasons = [f"{name} {getattr(solution, name)!r}, recomputed {value!r}"
               for name, value in (("objective", J), ("loss", loss), ("parameter_norm", norm))
               if not _same(getattr(solution, name), value, J if name == "loss" else value, SAME)
               and np.isfinite(value)]
    if not apart(solution.representations, A) <= SAME:
        reasons.append(f"stored states are not the roll-out: {apart(solution.representations, A)}")
    if outside > 1e-6:
        reasons.append(f"slopes on the kink leave [0, 1] by {outside:.1e}")
    gap = 0.0 if targets is not None else apart(A[-1], problem.endpoint)
    value = stationarity(W, G)
    if epsilon is None and not abs(value - solution.stationarity) <= 1e-7 + 1e-5 * value:
        reasons.append(f"stationarity {solution.stationarity:.3e}, recomputed {value:.3e}")
    return {"J": J, "apart": relative(solution.objective, J), "stationarity": value, "gap": gap,
            "end": A[-1], "reasons": reasons, "finite": bool(np.all(np.isfinite(A))),
            "fall": fall(problem, W, rho, G) if epsilon is None else 0.0}


def _path(solution: hs.Solution) -> dict[str, Any]:
    """Numbers of a continuous path, by integration anew."""
    problem = solution.problem
    epsilon = solution.epsilon if problem.activation == "relu" and solution.epsilon else None
    norm, defect, ends = integrated(solution, epsilon)
    J, loss = objective(problem, solution.representations[-1], norm)
    reasons = [f"{name} {getattr(solution, name)!r}, recomputed {value!r}"
               for name, value in (("objective", J), ("loss", loss), ("parameter_norm", norm))
               if not _same(getattr(solution, name), value, J if name == "loss" else value,
                            SAME_PATH)]
    return {"J": J, "apart": relative(solution.objective, J), "gap": 0.0, "fall": 0.0,
            "stationarity": max(defect, ends), "end": solution.representations[-1],
            "reasons": reasons, "finite": bool(np.isfinite(J))}


def untrue(solution: hs.Solution, numbers: dict[str, Any], certificate: hs.Certificate,
           time_limit: float) -> list[str]:
    """What the sentence of a status says that is not so."""
    problem, status, S = solution.problem, solution.status, hs.Status
    stationary = numbers["stationarity"] <= STATIONARY
    claims = status in (S.CONVERGED, S.SMOOTHED, S.SADDLE, S.ABOVE_TRIVIAL)
    reasons = []
    if claims and not stationary:
        reasons.append(f"{status.name}, but stationarity {numbers['stationarity']:.1e}")
    if claims and numbers["gap"] > STATIONARY:
        reasons.append(f"{status.name}, but {numbers['gap']:.1e} off the endpoint")
    if status is S.CONVERGED and numbers["fall"] > 1e-6:
        reasons.append(f"CONVERGED, but J falls by {numbers['fall']:.1e} along its gradient")
    above = not problem.hard_endpoint and numbers["J"] > _trivial(solution) * (1 + 1e-9)
    if status is S.ABOVE_TRIVIAL and not above:
        reasons.append("ABOVE_TRIVIAL, but J is not above that of the network without weights")
    if solution.success and above:
        reasons.append(f"success with J above the {_trivial(solution):.6g} of no weights")
    if status is S.SADDLE and not _falls(solution, certificate):
        reasons.append(f"SADDLE, and the certificate names no way down: {certificate.second_order}")
    if status is S.COLLAPSED and not one_output(problem, numbers["end"]):
        reasons.append("COLLAPSED, but outputs differ")
    if status is S.INFEASIBLE and not numbers["gap"] > 1e-9:
        reasons.append(f"INFEASIBLE, but only {numbers['gap']:.1e} off the endpoint")
    if status is S.TIME_LIMIT and solution.seconds < 0.5 * time_limit:
        reasons.append(f"TIME_LIMIT after {solution.seconds:.2f} s of {time_limit:g}")
    if status is S.STALLED and numbers["fall"] > 1e-3:
        reasons.append(f"STALLED, but J falls by {numbers['fall']:.1e} along its gradient")
    if status is S.DIVERGED and numbers["finite"]:
        reasons.append("DIVERGED, but all numbers are finite")
    if status is not S.DIVERGED and not numbers["finite"]:
        reasons.append(f"{status.name} with numbers that are not finite")
    return reasons


def _trivial(solution: hs.Solution) -> float:
    """J of the network without weights, of as many layers, or continuous."""
    problem = solution.problem
    left = np.exp(-problem.effective_depth) if solution.steps is None else \
        np.prod(1 - problem.effective_depth * solution.steps)
    return objective(problem, left * scaled(problem)[0], 0.0)[0]


def _falls(solution: hs.Solution, certificate: hs.Certificate) -> bool:
    """Whether J is lower along the direction of the certificate; of a path, what it says."""
    if solution.steps is None:
        return certificate.second_order.startswith("saddle")
    if certificate.direction is None:
        return False
    J = of_weights(solution.problem, solution.weights, solution.steps)[0]
    return any(of_weights(solution.problem, solution.weights + sign * t * certificate.direction,
                          solution.steps)[0] < J
               for t, _ in certificate.descent for sign in (1, -1))


# -- running ---------------------------------------------------------------------------------------


def row(generator: int, seed: int, method: str, time_limit: float = TIME_LIMIT,
        most: tuple[int, int] = MOST) -> dict[str, Any]:
    """Solve a problem by a method and judge the end."""
    kind, problem = draw(seed, generator, most)
    options: dict[str, Any] = dict(effort="quick", time_limit=time_limit, workers=1)
    if method != "indirect":
        options["layers"] = layers(problem)
    began = time.process_time()
    found: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            solution = hs.solve(problem, method, **options)
        found["warnings"] = "; ".join(sorted({str(w.message) for w in heard}))
        seconds = time.process_time() - began
        found |= judged(solution, time_limit)
        if seconds > 3 * time_limit + 5:
            found["reasons"].append(f"{seconds:.1f} s of CPU with a limit of {time_limit:g} s")
    except Exception as error:  # what a stress test looks for: it is recorded with its type
        seconds = time.process_time() - began
        found["reasons"] = [f"{type(error).__name__}: {error}"]
    reasons = found.pop("reasons")
    return found | {
        "generator": str(generator), "seed": str(seed), "kind": kind, "method": method,
        "activation": problem.activation, "width": problem.width, "samples": problem.n_samples,
        "d_in": problem.d_in, "d_out": problem.d_out,
        "effective_depth": f"{problem.effective_depth:.4g}",
        "weight_decay": f"{problem.weight_decay:.3g}", "layers": options.get("layers", ""),
        "cpu_seconds": f"{seconds:.2f}", "right": int(not reasons), "reason": "; ".join(reasons)}


def serving(seed: int, methods: tuple[str, ...] = METHODS) -> tuple[str, ...]:
    """The methods that serve the problem of a seed: single shooting takes no hard endpoint."""
    hard = "endpoint" in KINDS[seed % len(KINDS)]
    return tuple(m for m in methods if not (hard and m == "single_shooting"))


def read(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Kept rows by generator, seed and method."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {(r["generator"], r["seed"], r["method"]): r for r in csv.DictReader(file)}


def keep(path: Path, rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    """Write all rows, and beside them date, machine, versions and what is not right."""
    ordered = sorted(rows.values(), key=lambda r: (int(r["generator"]), int(r["seed"]),
                                                   r["method"]))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(ordered)
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, OMP_NUM_THREADS="
                   f"{os.environ.get('OMP_NUM_THREADS', 'unset')}, time limit {TIME_LIMIT:g} s",
        "versions": {"python": platform.python_version(), "hamshoot": hs.__version__} | {
            name: importlib.metadata.version(name) for name in ("numpy", "scipy", "numba",
                                                                "casadi")},
        **counts(ordered),
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n",
                                         encoding="utf-8")


def counts(rows: list[dict[str, str]]) -> dict[str, Any]:
    """How many ran, how many are right, how they ended, and each that is not right."""
    wrong = [r for r in rows if not int(r["right"])]
    problems = {(r["generator"], r["seed"]) for r in rows}
    wrong_problems = {(r["generator"], r["seed"]) for r in wrong}
    return {
        "problems": len(problems), "problems_right": len(problems - wrong_problems),
        "solves": len(rows), "solves_right": len(rows) - len(wrong),
        "cpu_seconds": round(sum(float(r["cpu_seconds"]) for r in rows), 1),
        "by_status": dict(Counter(r["status"] or "raised" for r in rows).most_common()),
        "with_warnings": [[r["seed"], r["method"], r["warnings"]] for r in rows if r["warnings"]],
        "by_method": {m: [sum(r["method"] == m and int(r["right"]) for r in rows),
                          sum(r["method"] == m for r in rows)] for m in METHODS},
        "not_right": [{k: r[k] for k in ("generator", "seed", "kind", "method", "activation",
                                         "status", "reason")} for r in wrong],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("count", 300), ("first", 0), ("generator", 15)):
        parser.add_argument(name, type=int, nargs="?", default=default)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--again", action="store_true", help="run what is kept again")
    parser.add_argument("--wrong", action="store_true", help="run what was not right again")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args()
    rows = read(asked.out)
    if not asked.report:
        for seed in range(asked.first, asked.first + asked.count):
            for method in serving(seed, tuple(asked.methods)):
                key = (str(asked.generator), str(seed), method)
                wrong = key in rows and asked.wrong and not int(rows[key]["right"])
                if key in rows and not (asked.again or wrong):
                    continue
                rows[key] = row(asked.generator, seed, method)
                if not rows[key]["right"]:
                    print(*[rows[key][c] for c in COLUMNS], flush=True)
            keep(asked.out, rows)
    print(json.dumps(counts(list(rows.values())), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
