"""Sweeps of a network whose lift and readout are learned, for stacked controls."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hamshoot.dynamics.sweeps import EulerSweeps
from hamshoot.problem.activations import Activation
from hamshoot.problem.maps import check_fixed
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.theory import learned

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class LearnedSweeps(EulerSweeps):
    """J and its gradient in stacked controls, (L + a + b, w, c); see `hamshoot.theory.learned`.

    `steps` are given as layer steps ρ (L,), and are those of the stack. For the rest what is said
    of `EulerSweeps` holds; a gradient costs 2w(w + d_in + d_out)N flops more.

    Raises
    ------
    ValueError
        For a hard endpoint, for an activation that is made of functions.
    """

    def __init__(
        self, problem: TrainingProblem, steps: ArrayLike, activation: Activation | None = None
    ):
        if not problem.sigma.compiled:
            check_fixed(problem, f"the activation {problem.sigma.name!r}, made of functions, is",
                        "those that are known by name learn them")
        super().__init__(problem, steps, activation)
        self.sizes = learned.sizes_of(problem)
        self._inputs = np.array(problem.scaled_inputs, dtype=float, order="C")
        self._plain = self._G
        self._G = np.empty((self.layers + self.sizes.maps, *problem.control_shape))
        self.steps = self._steps

    def _checked_steps(self, steps: ArrayLike) -> NDArray:
        """Those of the stack, (L + a + b,), of layer steps ρ, (L,)."""
        plain = super()._checked_steps(steps)
        return learned.stacked_steps(self.problem, plain) if hasattr(self, "sizes") else plain

    @property
    def layers(self) -> int:
        """L, without those that hold the maps."""
        return len(self._A) - 1

    @cached_property
    def _inner(self) -> tuple[int, int]:
        """Where the compiled gradient in the controls is."""
        from hamshoot.dynamics import _compiling, _kernels

        L = self.layers
        plain = list(super().arguments)
        plain[1], plain[-1] = self._steps[:L], self._plain
        return _compiling.place_of(_kernels.gradient, self._plain, *plain)

    @property
    def arguments(self) -> tuple:
        """What the kernels take after the stack."""
        plain = list(super().arguments)
        problem, sizes = self.problem, self.sizes
        plain[7] = (self._inner, self._Q, self._inputs, sizes.lift, sizes.readout,
                    problem.lift_decay or 0.0, problem.readout_decay or 0.0)
        return tuple(plain)

    @cached_property
    def place(self) -> tuple[int, int]:
        """Where the compiled gradient in the stack is."""
        from hamshoot.dynamics import _compiling, _learned_kernels

        return _compiling.place_of(_learned_kernels.gradient, self._G, *self.arguments)

    def objective(self, W: NDArray) -> float:
        """J of a stack, by one forward sweep."""
        from hamshoot.dynamics import _learned_kernels

        W = self._controls(W)
        self.evaluations += 1
        return _learned_kernels.gradient(W, *self.arguments[:-1], self._G[:0])

    def gradient(self, W: NDArray) -> tuple[float, NDArray]:
        """J and its gradient in the stack; overwritten by the next call."""
        from hamshoot.dynamics import _learned_kernels

        W = self._controls(W)
        self.evaluations += 1
        return _learned_kernels.gradient(W, *self.arguments), self._G


def sweeps_of(problem: TrainingProblem, steps: ArrayLike) -> EulerSweeps:
    """The sweeps that a problem asks for."""
    return LearnedSweeps(problem, steps) if problem.learns else EulerSweeps(problem, steps)
