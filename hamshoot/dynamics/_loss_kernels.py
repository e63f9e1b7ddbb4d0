"""Compiled losses: C of the outputs of an Euler network, and its gradient.

(As of `hamshoot.dynamics._sigma_kernels`, numba's cache does not see an edit of this file in the
kernels that call it.)
"""

from __future__ import annotations

import math

from hamshoot.dynamics._compiling import njit

#: As in `hamshoot.problem.losses` (a literal keeps the cache valid).
CROSS_ENTROPY, HUBER = 1, 2


@njit(cache=True, nogil=True, error_model="numpy")
def end(criterion, targets, R):
    """N·C of the outputs z in R (d_out, N), which gets (N/2) ∂C/∂z: z − Yᵀ of squares.

    criterion is (code, δ, weights (N,), or (0,) where all samples count alike).
    """
    code, delta, weights = criterion
    d, N = R.shape
    total = 0.0
    for j in range(N):
        s, own = weights[j] if weights.size else 1.0, 0.0
        if code == CROSS_ENTROPY:
            largest, grown = R[0, j], 0.0
            for k in range(1, d):
                largest = max(largest, R[k, j])
            for k in range(d):
                grown += math.exp(R[k, j] - largest)
            for k in range(d):
                z, t = R[k, j] - largest, targets[k, j]
                own += t * (math.log(grown) - z)
                R[k, j] = 0.5 * s * (math.exp(z) / grown - t)
        else:
            for k in range(d):
                r = R[k, j] - targets[k, j]
                if code == HUBER and abs(r) > delta:
                    own += 2 * delta * abs(r) - delta * delta
                    r = math.copysign(delta, r) + 0 * r
                else:
                    own += r * r
                R[k, j] = s * r
        total += s * own
    return total
