"""`Method`: what a solver is, for `hamshoot.solve`, `hamshoot.compare` and `LeakyResNet.polish`.

A method of one's own is any object with such a `solve`; nothing is inherited or registered. The
options that a verb may want to set are attributes, set on a copy:

====================  ==============================================================================
``layers``            by ``hamshoot.solve(problem, method, layers=L)``, `compare` and `polish`
``steps``             by `polish`, which keeps the network's own layer steps
``start``, ``seed``,  by `compare`; a method without ``start`` is handed the controls that gradient
``starts``            descent starts from, as its initial guess
====================  ==============================================================================

>>> from dataclasses import dataclass
>>> from hamshoot.solution.evaluate import solution_from_weights
>>> @dataclass(frozen=True)
... class Trivial:
...     layers: int = 10
...
...     def solve(self, problem, initial_guess=None, callback=None):
...         weights = np.zeros((self.layers, *problem.control_shape))
...         return solution_from_weights(
...             problem, weights, np.full(self.layers, 1 / self.layers),
...             status=Status.STALLED, success=False, method="trivial")
>>> hamshoot.solve(problem, Trivial(), layers=12)      # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Callback, Solution


@runtime_checkable
class Method(Protocol):
    """Anything that solves problems."""

    def solve(
        self,
        problem: TrainingProblem,
        initial_guess: Any = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Find an optimal network or path.

        Parameters
        ----------
        problem : TrainingProblem
        initial_guess : Solution, LeakyResNet or array_like, optional
            Where to begin; `hamshoot.methods.common.starts.weights_of` reads it as controls on
            any mesh. The answer's objective should be at or below the guess's.
        callback : callable, optional
            Receives a `Record` per iteration; returning True stops and keeps the best iterate.

        Returns
        -------
        Solution
            Also where the method did not converge: `Solution.status` says so. From controls,
            `hamshoot.solution.evaluate.solution_from_weights` makes it.

        Raises
        ------
        ValueError
            For a problem, a guess or options that do not fit.
        """
