"""Newton's method on the controls of an Euler network, by a Riccati recursion with feedback.

The second-order expansion of J around a rolled-out network is a linear-quadratic problem in which,
given the change of the controls, the samples are independent w-dimensional systems. A backward
Riccati recursion solves it for the change δW_ℓ = k_ℓ + K_ℓ (A_new − A), and the network is rolled
out with that feedback (differential dynamic programming). The shift of
`hamshoot.methods.newton.levenberg_marquardt` keeps every stage positive definite. The method takes
over where L-BFGS crawls: at small λ the Hessian's condition number is 1/λ.

An iteration costs L ((2m + 4w)n² + 2m²n + m³/3) flops with m = w(w+1) and n = wN, and L m n numbers
of memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamshoot.methods.newton.levenberg_marquardt import Iterate, Shifts, Trial, longest_step
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import hamiltonian as ham


def flops(width: int, columns: int, samples: int, layers: int) -> float:
    """Of one iteration."""
    m, n = width * columns, width * samples
    return float(layers * ((2 * m + 4 * width) * n**2 + 2 * m**2 * n + m**3 / 3))


class RecursionModel:
    """The linear-quadratic problem at an iterate, solved for each shift anew."""

    def __init__(self, problem: TrainingProblem, steps: NDArray, at: Iterate):
        self.problem, self.steps, self.at = problem, steps, at

    @staticmethod
    def shifts(problem: TrainingProblem) -> Shifts:
        """A hundredth of the weight decay's own curvature to begin with."""
        return Shifts(first=1e-2 / problem.effective_depth, least=1e-6, zero=1e-9)

    def at_rest(self, stationarity: float, tol: float) -> bool:
        """Whether the gradient is small: of curvature the recursion says nothing at the end."""
        return stationarity <= tol

    def trial(self, shift: float) -> Trial | None:
        """The roll-out with feedback, if every stage is definite and J falls."""
        problem, at = self.problem, self.at
        A, W = at.representations, at.weights
        found = _backward(problem, A, at.momenta, W, at.gradient, self.steps, shift)
        if found is None:
            return None
        k, K, decrease = found
        return longest_step(
            problem, self.steps, at.objective,
            lambda length: problem.weight_decay * decrease * (2 * length - length**2),
            lambda length: _roll_out(problem, A, W, self.steps, length, k, K))


def _backward(
    problem: TrainingProblem, A: NDArray, B: NDArray, W: NDArray, gradient: NDArray, steps: NDArray,
    shift: float,
) -> tuple[NDArray, NDArray, float] | None:
    """Feedforward k (L, m), gains K (L, m, n) and predicted decrease, or None if not definite."""
    from scipy.linalg import cho_solve, solve_triangular

    sigma, leak = problem.sigma, problem.effective_depth
    L, w, c = W.shape
    N = A.shape[2]
    n, m = N * w, c * w
    block = ham.terminal_curvature(A[-1], problem.readout, problem.targets, problem.weight_decay,
                                   problem.criterion)
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
