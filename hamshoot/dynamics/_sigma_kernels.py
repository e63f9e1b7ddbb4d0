"""Compiled σ, σ′ and σ″ of one number, for the activations that have no loop of their own.

ReLU, its smooth form and the identity are written out where they are used, as loops that run in
vector registers. The others cost an exponential or two, beside which a call is nothing.

(numba's cache does not see an edit of this file in the kernels that call it: after one, delete
`hamshoot/dynamics/__pycache__`.)
"""

from __future__ import annotations

import math

from hamshoot.dynamics._compiling import njit

#: As in `hamshoot.problem.activations` (a literal keeps the cache valid).
LEAKY_RELU, SMOOTH_LEAKY_RELU, TANH, SOFTPLUS = 3, 4, 5, 6


@njit(cache=True, nogil=True, error_model="numpy")
def sigma(code, square, alpha, z):
    """σ, σ′ and σ″ at z without cancellation; square is ε², alpha the negative slope."""
    if code == LEAKY_RELU:
        # α + 0·z, for NaN to stay visible.
        return (z, 1.0, 0.0) if z > 0 else (alpha * z, alpha + 0 * z, 0.0)
    if code == SMOOTH_LEAKY_RELU:
        root = math.sqrt(z * z + square)
        upper = 0.5 * (abs(z) + root)
        value = upper if z >= 0 else 0.25 * square / upper
        return (alpha * z + (1 - alpha) * value, alpha + (1 - alpha) * (value / root),
                (1 - alpha) * 0.5 * square / (root * root * root))
    if code == TANH:
        e, value = math.exp(-2 * abs(z)), math.tanh(z)
        slope = 4 * e / ((1 + e) * (1 + e))
        return value, slope, -2 * value * slope
    if code == SOFTPLUS:
        e = math.exp(-abs(z))
        return ((z if z > 0 else 0.0) + math.log1p(e), (e if z < 0 else 1.0) / (1 + e),
                e / ((1 + e) * (1 + e)))
    normal = 0.5 * math.erfc(-z / math.sqrt(2.0))
    bell = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return z * normal, normal + z * bell, (2 - z * z) * bell
