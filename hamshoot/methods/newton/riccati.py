"""Newton's method on the controls of an Euler network, by a Riccati recursion with feedback.

The second-order expansion of J around a rolled-out network is a linear-quadratic problem in which,
given the change of the controls, the samples are independent w-dimensional systems. A backward
Riccati recursion solves it for the change δW_ℓ = k_ℓ + K_ℓ (A_new − A), and the network is rolled
out with that feedback (differential dynamic programming). A Levenberg–Marquardt shift on ‖δW‖²
keeps every stage positive definite; it tends to 0 near a strict local minimum, where convergence is
quadratic. It takes over where L-BFGS crawls: at small λ the Hessian's condition number is 1/λ.

An iteration costs L ((2m + 4w)n² + 2m²n + m³/3) flops with m = w(w+1) and n = wN, and L m n numbers
of memory. With many samples the dense Hessian in the controls is cheaper, 2L²w³(w+1)N + (Lm)³/3
flops and (Lm)² numbers (`hamshoot.methods.newton.reduced_hessian`); `minimise` takes the form with
fewer flops.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hamshoot.methods.newton import reduced_hessian as reduced_newton
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete

LayeredMinimum = reduced_newton.Minimum
FORMS = ("auto", "riccati", "dense")
#: Flops of an iteration, and numbers it holds, up to which Newton's method is affordable: some ten
#: seconds on one core, 0.8 GB.
MAX_FLOPS, MAX_NUMBERS = 1.5e11, 1e8


def flops(width: int, columns: int, samples: int, layers: int) -> float:
    """Of one iteration of the Riccati form."""
    m, n = width * columns, width * samples
    return float(layers * ((2 * m + 4 * width) * n**2 + 2 * m**2 * n + m**3 / 3))


def cheaper_form(problem: TrainingProblem, layers: int) -> str:
    """The form with fewer flops an iteration, "riccati" or "dense"."""
    sizes = *problem.control_shape, problem.n_samples, layers
    return "dense" if reduced_newton.flops(*sizes) < flops(*sizes) else "riccati"


def affordable(problem: TrainingProblem, layers: int) -> bool:
    """Whether an iteration of the cheaper form keeps to MAX_FLOPS and MAX_NUMBERS."""
    w, c, N, L = *problem.control_shape, problem.n_samples, layers
    if cheaper_form(problem, layers) == "dense":
        return reduced_newton.flops(w, c, N, L) <= MAX_FLOPS and (L * w * c) ** 2 <= MAX_NUMBERS
    return flops(w, c, N, L) <= MAX_FLOPS and L * w * c * (w * N + w * c) <= MAX_NUMBERS


def minimise(
    problem: TrainingProblem,
    weights: NDArray,
    steps: NDArray,
    *,
    tol: float = 1e-7,
    max_iter: int = 100,
    callback: Callable[[float, float], None] | None = None,
    form: str = "auto",
) -> LayeredMinimum:
    """Minimise J over the controls of an Euler network from given ones.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss and a smooth (or linear) activation.
    weights, steps : ndarray, shapes (L, w, w+1) and (L,)
    tol : float
        For the stationarity max_ℓ ‖W − L̃Bσ̂ᵀ‖/max(1, ‖W‖).
    callback : callable, optional
        Receives objective and stationarity of every iterate; may raise.
    form : {"auto", "riccati", "dense"}
        By default the one with fewer flops.

    Returns
    -------
    LayeredMinimum
        Short of `tol` where J can no longer tell a step from rounding and the gradient does not
        fall either, or after `max_iter` iterations.

    Raises
    ------
    ValueError
        For another form.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {', '.join(FORMS)}, got {form!r}")
    if form == "dense" or (form == "auto" and cheaper_form(problem, len(steps)) == "dense"):
        return reduced_newton.minimise(problem, weights, steps, tol=tol, max_iter=max_iter,
                                       callback=callback)
    W, shift = np.array(weights, dtype=float), 1e-2 / problem.effective_depth
    A = discrete.roll_out(problem, W, steps)
    J = discrete.objective(problem, A[-1], W, steps)[0]
    for iteration in range(max_iter + 1):
        B, gradient = discrete.costates(problem, A, W, steps)
        stationarity = discrete.stationarity(W, gradient)
        if callback is not None:
            callback(J, stationarity)
        if stationarity <= tol or iteration == max_iter:
            break
        trial = None
        while shift < 1e8:
            model = _backward(problem, A, B, W, gradient, steps, shift)
            if model is not None:
                trial = _search(problem, A, W, J, steps, *model)
                if trial is not None:
                    break
            shift = max(10 * shift, 1e-6)
        if trial is None:
            break
        gain, W_new, A_new, J_new = trial
        if J - J_new <= reduced_newton.ROUNDING * abs(J):  # the gradient sees further than J
            after = discrete.costates(problem, A_new, W_new, steps)[1]
            if discrete.stationarity(W_new, after) >= 0.5 * stationarity:
                break
        W, A, J = W_new, A_new, J_new
        shift *= 0.1 if gain > 0.5 else (1.0 if gain > 0.1 else 4.0)
        shift = 0.0 if shift < 1e-9 else shift
    return LayeredMinimum(W, J, stationarity, iteration)


def _backward(
    problem: TrainingProblem, A: NDArray, B: NDArray, W: NDArray, gradient: NDArray,
    steps: NDArray, shift: float,
) -> tuple[NDArray, NDArray, float] | None:
    """Feedforward k (L, m), gains K (L, m, n) and predicted decrease, or None if not definite."""
    from scipy.linalg import cho_solve, solve_triangular

    sigma, leak = problem.sigma, problem.effective_depth
    L, w, c = W.shape
    N = A.shape[2]
    n, m = N * w, c * w
    block = 2.0 / (problem.weight_decay * N) * problem.readout.T @ problem.readout
    P: NDArray = np.zeros((N, w, N, w))
    q = np.zeros((N, w))
    P[np.arange(N), :, np.arange(N), :] = block
    P = P.reshape(n, n)
    K, k, decrease = np.empty((L, m, n)), np.empty((L, m)), 0.0
    for layer in range(L - 1, -1, -1):
        h, a, b = steps[layer], A[layer].T, B[layer + 1].T  # (N, w)
        s = ham.augmented(A[layer], sigma, problem.bias)  # (c, N)
        slope, weight = sigma.slope(a), W[layer][:, :w]
        F = h * weight[None] * slope[:, None, :]
        F[:, np.arange(w), np.arange(w)] += 1 - h * leak  # Φ_j
        Ft = np.ascontiguousarray(np.swapaxes(F, 1, 2))
        FtP = (Ft @ P.reshape(N, w, n)).reshape(n, n)
        Hxx = (Ft @ np.ascontiguousarray(FtP.T).reshape(N, w, n)).reshape(n, n)
        diagonal = -h * sigma.curvature(a) * (b @ weight)
        Hxx[np.arange(n), np.arange(n)] += diagonal.ravel()
        VP = h * (s @ P.reshape(N, -1)).reshape(m, n)
        Huu = h * (s @ np.ascontiguousarray(VP.T).reshape(N, -1)).reshape(m, m)
        Huu = 0.5 * (Huu + Huu.T)
        Huu[np.arange(m), np.arange(m)] += h * (1 / leak + shift)
        Hux = (Ft @ np.ascontiguousarray(VP.T).reshape(N, w, m)).reshape(n, m).T.copy()
        view = Hux.reshape(c, w, N, w)
        for i in range(w):
            view[i, :, :, i] -= h * (b * slope[:, i : i + 1]).T
        g = h / leak * gradient[layer].T.ravel() + h * (s @ q).ravel()
        try:
            factor = np.linalg.cholesky(Huu)
        except np.linalg.LinAlgError:
            return None
        Y = solve_triangular(factor, Hux, lower=True, check_finite=False)
        K[layer] = -solve_triangular(factor, Y, lower=True, trans=1, check_finite=False)
        k[layer] = -cho_solve((factor, True), g, check_finite=False)
        decrease -= 0.5 * float(g @ k[layer])
        Hxx -= Y.T @ Y
        P = 0.5 * (Hxx + Hxx.T)
        q = (Ft @ q[:, :, None])[:, :, 0] + (g @ K[layer]).reshape(N, w)
    return k, K, decrease


def _search(
    problem: TrainingProblem, A: NDArray, W: NDArray, J: float, steps: NDArray, k: NDArray,
    K: NDArray, decrease: float,
) -> tuple[float, NDArray, NDArray, float] | None:
    """Longest step of 1, 1/2, … that decreases J enough: gain ratio, W, A, J; None if none does."""
    length = 1.0
    while length > 0.05:
        with np.errstate(all="ignore"):
            trial = _roll_out(problem, A, W, steps, length, k, K)
            new_J = discrete.objective(problem, trial[1][-1], trial[0], steps)[0]
        promised = problem.weight_decay * decrease * (2 * length - length**2)
        if np.isfinite(new_J) and J - new_J >= 0.05 * promised - reduced_newton.ROUNDING * abs(J):
            gain = (J - new_J) / promised if promised > 0 else 1.0
            return gain, *trial, new_J
        length /= 2
    return None


def _roll_out(
    problem: TrainingProblem, A: NDArray, W: NDArray, steps: NDArray, length: float, k: NDArray,
    K: NDArray,
) -> tuple[NDArray, NDArray]:
    """Controls and representations of the network rolled out with the feedback."""
    L, w, c = W.shape
    new_W, new_A = np.empty_like(W), np.empty_like(A)
    new_A[0] = A[0]
    for layer in range(L):
        change = length * k[layer] + K[layer] @ (new_A[layer] - A[layer]).T.ravel()
        new_W[layer] = W[layer] + change.reshape(c, w).T
        s = ham.augmented(new_A[layer], problem.sigma, problem.bias)
        keep = 1 - steps[layer] * problem.effective_depth
        new_A[layer + 1] = keep * new_A[layer] + steps[layer] * (new_W[layer] @ s)
    return new_W, new_A
