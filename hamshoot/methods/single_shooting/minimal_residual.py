"""Make the gradient of a large network small: minimal residuals over the last iterates.

In the long, shallow valleys of large networks L-BFGS goes on lowering J while its gradient hardly
falls: the steps along the valley overshoot in the steep directions. Here every iteration takes the
combination of the last iterates whose combined gradient is least,

    min ‖g + Yc‖,    x ← x + Sc − β(g + Yc),

S and Y the last differences of iterates and gradients: GMRES for a quadratic, one gradient for each
dimension of its Krylov space, known as nonlinear GMRES or Anderson's acceleration of gradient
descent (Anderson, 1965; Washio and Oosterlee, 1997). There is no preconditioner: the norm that is
minimised is the one that the stationarity is measured in, and a Kronecker preconditioner, which
favours the shallow directions, makes it fall more slowly.

The variables are √ρ_ℓ W_ℓ, in which the scaled gradients of the stationarity count alike whatever
the steps. An iterate that multiplies the least norm by more than `FAR` ends the combination; it
begins anew at the best one, with half the β.

Cost of an iteration: a gradient, and 8·memory·Lw² flops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.methods.common.kept import Step
from hamshoot.methods.single_shooting.optimizer import Ended, Optimizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Differences kept.
MEMORY = 30
#: Of the squared size of the differences, added to their Gram matrix.
RIDGE = {"f": 1e-6, "d": 1e-12}
#: Growth of the norm at which iterates are left; β's below this share of the first end the search.
FAR, SHORTEST = 3.0, 1e-3


class MinimalResidual(Optimizer):
    """Nonlinear GMRES on the gradient, from a point in a valley.

    `objective`, `gradient_norm` and `stationarity` are those of the iterate of least gradient,
    which `minimise` returns. A saddle would be as good as a minimum: it is for the caller to begin
    low, and to look at J afterwards.

    Parameters
    ----------
    sweeps : BlockSweeps or HeldSweeps
        Its precision is that of the iterates and differences.
    memory : int
        Differences kept.
    step : float, optional
        β, of the gradient in the variables √ρW; by default the curvature of a first short step
        along the gradient gives it.
    """

    def __init__(self, sweeps: Any, memory: int = MEMORY, step: float | None = None):
        super().__init__(sweeps)
        self.memory, self.step = memory, step
        self._best = self._best_g = self._x = self._g = np.empty(0)
        self._norm, self._longest, self._count, self._oldest = np.inf, 0.0, 0, 0
        self._root = np.sqrt(self.sweeps.steps)[:, None, None]

    @property
    def latest(self) -> NDArray:
        """Controls of the iterate of least gradient, (L, w, c); empty before there is one."""
        if not self._best.size:
            return np.empty(0)
        return self._best.reshape(self.sweeps.shape) / self._root

    def _begin(self, weights: NDArray) -> None:
        self._allocate(weights.size)
        self._x = (weights * self._root).ravel()
        J, self._g = self._value(self._x)
        self._accept(self._x, J, self._g)
        if self.step is None:
            self.step = self._first_step()
        self._longest = self.step

    def _state(self) -> Step:
        m = self._count
        return {"S": self._S[:m], "Y": self._Y[:m], "gram": self._gram, "x": self._x,
                "g": self._g, "least": self._best, "least_g": self._best_g}, {
            "norm": float(self._norm), "longest": float(self._longest), "kept": m,
            "oldest": self._oldest, "step": self.step}

    def _resume(self, weights: NDArray, arrays: dict[str, NDArray], numbers: dict[str, Any]
                ) -> None:
        self._allocate(weights.size)
        m = self._count = numbers["kept"]
        self._S[:m], self._Y[:m], self._gram[:] = arrays["S"], arrays["Y"], arrays["gram"]
        self._x, self._g = arrays["x"], arrays["g"]
        self._best, self._best_g = arrays["least"], arrays["least_g"]
        self._norm, self._longest = numbers["norm"], numbers["longest"]
        self._oldest, self.step = numbers["oldest"], numbers["step"]

    def _allocate(self, size: int) -> None:
        kind = self.sweeps.dtype
        self._S, self._Y = (np.empty((self.memory, size), kind) for _ in range(2))
        self._gram = np.zeros((self.memory, self.memory))
        self._count = self._oldest = 0

    def _first_step(self) -> float:
        """1/curvature along the gradient, by a difference."""
        size = float(np.linalg.norm(self._g))
        if not size > 0:
            return 1.0
        h = 1e-3 * max(1.0, float(np.linalg.norm(self._x))) / np.sqrt(self._x.size)
        _, there = self._value(self._x - h / size * self._g)
        change = float(np.linalg.norm(there - self._g))
        return h / change if change > 0 else 1.0

    def _advance(self, iteration: int) -> bool | Ended:
        assert self.step is not None  # since `_begin`
        step, residual = self._combination()
        x = self._x + step - self.step * residual
        J, g = self._value(x)
        norm = float(np.linalg.norm(g))
        if not norm <= FAR * self._norm:
            return self._anew()
        self._keep(x - self._x, g - self._g)
        self._x, self._g = x, g
        if norm < self._norm:
            self._accept(x, J, g)
        return True

    def _anew(self) -> bool | Ended:
        """Begin again at the best iterate, with a shorter step."""
        assert self.step is not None
        self.step /= 2
        if self.step < SHORTEST * self._longest:
            return Ended.STUCK
        self._count, self._x, self._g = 0, self._best, self._best_g
        return False

    def _combination(self) -> tuple[NDArray | float, NDArray]:
        """Sc and g + Yc of the least ‖g + Yc‖."""
        m = self._count
        if not m:
            return 0.0, self._g
        S, Y, gram = self._S[:m], self._Y[:m], self._gram[:m, :m]
        size = np.sqrt(np.diag(gram))
        size = np.where(size > 0, size, 1.0)
        scaled = gram / np.outer(size, size) + RIDGE[self.sweeps.dtype.char] * np.eye(m)
        right = (Y @ self._g.astype(Y.dtype)).astype(float) / size
        c = (-np.linalg.solve(scaled, right) / size).astype(Y.dtype)
        return (c @ S).astype(float), self._g + c @ Y

    def _keep(self, s: NDArray, y: NDArray) -> None:
        """Keep a difference, in place of the oldest."""
        slot = self._count % self.memory if self._count < self.memory else self._oldest
        self._oldest = (slot + 1) % self.memory
        self._count = min(self._count + 1, self.memory)
        self._S[slot], self._Y[slot] = s, y
        row = (self._Y[: self._count] @ self._Y[slot]).astype(float)
        self._gram[slot, : self._count] = self._gram[: self._count, slot] = row

    def _value(self, x: NDArray) -> tuple[float, NDArray]:
        J, gradient = self.sweeps.gradient(x.reshape(self.sweeps.shape) / self._root)
        return J, (gradient / self._root).ravel()

    def _accept(self, x: NDArray, J: float, g: NDArray) -> None:
        self._best, self._best_g, self.objective = x, g, J
        self._norm, shape = float(np.linalg.norm(g)), self.sweeps.shape
        W, G = x.reshape(shape) / self._root, g.reshape(shape) * self._root
        self.stationarity = self.sweeps.stationarity(W, G)
        self.gradient_norm = float(np.linalg.norm(G))
