"""Compiled J and its gradient where lift and readout are learned, for stacked controls.

What a stack is: `hamshoot.theory.learned`. The kernel has the arguments of
`hamshoot.dynamics._kernels.gradient`, so that L-BFGS and the epochs of gradient descent call it by
its address in place of that one; what it needs besides comes in the tuple that stands for Q.
"""

from __future__ import annotations

from hamshoot.dynamics._compiling import call, njit

_OPTIONS = dict(cache=True, nogil=True, error_model="numpy")


@njit(**_OPTIONS)
def gradient(U, wide, steps, leak, decay, code, epsilon, below, maps, targets, criterion, A, S,
             slope, D, R, T, G):
    """J = C(QA_L) + λ/(2L̃) Σρ‖W‖² + (μ_P/2)‖P‖² + (μ_Q/2)‖Q‖², and in G its gradient.

    Parameters
    ----------
    U, G : ndarray, shape (L + a + b, w, c)
        Stacked controls, P and Qᵀ from layer L and L + a on; the filling of G is set to 0.
    steps : ndarray, shape (L + a + b,)
    maps : tuple
        Where `hamshoot.dynamics._kernels.gradient` is, Q (d_out, w), written to where it is
        learned, Xᵀ (d_in, N), a, b, μ_P and μ_Q.
    """
    place, Q, X, a, b, lift_decay, readout_decay = maps
    L, w, c = A.shape[0] - 1, U.shape[1], U.shape[2]
    N, d_in, d_out = A.shape[2], X.shape[0], Q.shape[0]
    squares = 0.0
    if a:
        for i in range(w):
            for j in range(N):
                A[0, i, j] = 0.0
            for q in range(d_in):
                p = U[L + q // c, i, q % c]
                squares += lift_decay * p * p
                for j in range(N):
                    A[0, i, j] += p * X[q, j]
    if b:
        for i in range(w):
            for q in range(d_out):
                value = U[L + a + q // c, i, q % c]
                squares += readout_decay * value * value
                Q[q, i] = value
    here = G[:L] if len(G) else G
    J = call(place, (U[:L], wide, steps[:L], leak, decay, code, epsilon, below, Q, targets,
                     criterion, A, S, slope, D, R, T, here))
    J += 0.5 * squares
    if len(G) == 0:
        return J
    for k in range(L, L + a + b):
        for i in range(w):
            for q in range(c):
                G[k, i, q] = 0.0
    if a:  # D_0, which the sweep of the controls leaves out, then ∂J/∂P = μP + D_0X
        keep, rho = 1 - steps[0] * leak, steps[0]
        for i in range(w):
            for j in range(N):
                D[0, i, j] = 0.0
            for m in range(w):
                weight = U[0, m, i]
                for j in range(N):
                    D[0, i, j] += weight * D[1, m, j]
            for j in range(N):
                D[0, i, j] = keep * D[1, i, j] + rho * slope[0, i, j] * D[0, i, j]
            for q in range(d_in):
                total = 0.0
                for j in range(N):
                    total += D[0, i, j] * X[q, j]
                k = L + q // c
                G[k, i, q % c] = total + lift_decay * U[k, i, q % c]
    if b:  # R is (N/2) ∂C/∂z
        for i in range(w):
            for q in range(d_out):
                total = 0.0
                for j in range(N):
                    total += R[q, j] * A[L, i, j]
                k = L + a + q // c
                G[k, i, q % c] = 2.0 / N * total + readout_decay * U[k, i, q % c]
    return J
