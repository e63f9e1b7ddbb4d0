"""`influence`: what each sample does to an optimum, by leaving it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.derivatives.left_out import LeftOut
from hamshoot.derivatives.optimum import Optimum, optimum_of, problem_solved
from hamshoot.derivatives.result import NoDerivative, check_known, check_solution, plain
from hamshoot.methods.single_shooting.method import DirectSingleShooting
from hamshoot.network.leaky_resnet import LeakyResNet
from hamshoot.problem.arguments import matrix
from hamshoot.support.checks import brief

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.solution.solution import Solution

#: Of the largest control: the step of central differences along first-order changes.
STEP = 1e-5
#: Rows of the table that is printed.
SHOWN = 8

Measure = Callable[[LeakyResNet], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Influence:
    """What leaving out each of some samples changes, to first and second order.

    Attributes
    ----------
    on : str
        What is measured.
    value : float or ndarray
        It, at the optimum with all samples.
    samples : ndarray of int, shape (K,)
        Which were left out.
    first, second : ndarray, shape (K,) or (K, …)
        Its change when a sample is left out, by the derivative of the optimum, and after a Newton
        step of the problem without the sample (of J an upper bound, as long as no other minimum is
        near).
    changes : ndarray of int, shape (K,)
        Activations of other samples that would change sides on that step, to first order: 0 where
        the active set of a ReLU network holds.
    whole : ndarray of bool, shape (K,)
        Whether it is Newton's own step. Where not, the minimum does not survive the removal, or
        lies further off than a quadratic model reaches.
    solution : Solution
    measure : callable or None
        Of a network; None for the objective.
    """

    on: str
    value: float | NDArray
    samples: NDArray
    first: NDArray
    second: NDArray
    changes: NDArray
    whole: NDArray
    solution: Solution
    measure: Measure | None

    @property
    def holds(self) -> NDArray:
        """Where the active set stays, to first order, and the step is Newton's own, (K,)."""
        return (self.changes == 0) & self.whole

    def resolve(self, samples: Sequence[int] | None = None) -> NDArray:
        """The true changes: each problem without a sample is solved, going on from the optimum.

        Parameters
        ----------
        samples : sequence of int, optional
            Some of `samples`; by default all. A solve each.

        Returns
        -------
        ndarray, shape (K,) or (K, …)
            NaN where the solve without the sample did not converge.
        """
        chosen = self.samples if samples is None else _rows(samples, self.solution)
        whole = self._solved(np.arange(self.solution.problem.n_samples))
        return np.array([self._change(int(s), whole) for s in chosen])

    def _change(self, s: int, whole: Solution) -> NDArray:
        N = self.solution.problem.n_samples
        end = self._solved(np.delete(np.arange(N), s))
        if not end.success:
            return np.full(np.shape(self.value), np.nan)
        if self.measure is None:
            return np.asarray(end.objective - whole.objective)
        return np.asarray(self.measure(_network(self.solution, end.weights))) - self.value

    def _solved(self, rows: NDArray) -> Solution:
        """The optimum of some rows, with everything else as it is."""
        solution = self.solution
        method = DirectSingleShooting(layers=len(solution.weights), steps=solution.steps, tol=1e-9)
        return method.solve(_problem(solution).subset(rows), initial_guess=solution)

    def table(self, rows: int = SHOWN) -> str:
        """The samples of the largest second-order changes."""
        sizes = np.abs(self.second).reshape(len(self.second), -1).max(axis=1)
        order = np.argsort(-sizes, kind="stable")[:rows]
        lines = [f"  {'sample':>7} {'first order':>13} {'second order':>13}  active set"]
        for k in order:
            first, second = (_number(value[k]) for value in (self.first, self.second))
            lines.append(f"  {int(self.samples[k]):>7} {first:>13} {second:>13}  {self._set(k)}")
        return "\n".join(lines)

    def _set(self, k: int) -> str:
        words = [] if self.changes[k] == 0 else [f"{int(self.changes[k])} change sides"]
        return ", ".join([*words, *([] if self.whole[k] else ["step cut or shifted"])]) or "holds"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what is not finite is None."""
        return {"on": self.on, "value": plain(self.value), "samples": self.samples.tolist(),
                "first": plain(self.first), "second": plain(self.second),
                "changes": self.changes.tolist(),
                "whole": self.whole.tolist(), "holds": self.holds.tolist()}

    def __repr__(self) -> str:
        held = int(self.holds.sum())
        what = _number(self.value) if np.ndim(self.value) == 0 else f"shape {np.shape(self.value)}"
        norm = "" if np.ndim(self.value) == 0 else " (largest entries)"
        more = f"\n  … and {len(self.samples) - SHOWN} more" if len(self.samples) > SHOWN else ""
        return (f"Influence of {len(self.samples)} samples on {self.on} ({what}), each left out"
                f"{norm}\n{self.table()}{more}\n  the active set holds, to first order, for {held} "
                f"of them")


def influence(
    solution: Solution, on: str | ArrayLike | Measure = "objective", *,
    samples: Sequence[int] | None = None,
) -> Influence:
    """Tell what each training sample does to an optimum, without solving again.

    A sample is left out of the mean over the N samples; the others, λ, L̃ and the scaling of the
    columns stay: ``solution.problem.subset(rows)`` is that problem.

    Parameters
    ----------
    solution : Solution
        As of `hamshoot.sensitivity`, over layers.
    on : {"objective", "test_error"}, array_like or callable
        What is measured: J (of the N − 1 samples that are left), the mean squared error on the
        problem's test samples in scaled units, the predictions in the user's units for rows
        (K, d_in), or ``on(network)``, a number or array of a `LeakyResNet`.
    samples : sequence of int, optional
        Which to leave out, by default each.

    Returns
    -------
    Influence
        `Influence.holds` says of each sample whether, to first order, a ReLU network keeps its
        active set without it; where it does not, an estimate of either order is that of a piece
        which is left. `Influence.resolve` solves without the samples, to see.

    Raises
    ------
    ValueError
        As `hamshoot.sensitivity`; for a geodesic; and for another `on`.

    Notes
    -----
    Costs, after those of `hamshoot.sensitivity`, 2n² flops a sample for the first order and a
    Hessian with its Cholesky factor, n³/3, a sample for the second. See
    `hamshoot.derivatives.left_out`; ``python demos/15_what_the_data_do.py`` compares with true
    removals.
    """
    check_solution(solution)
    check_known(solution.problem, "influence")
    if solution.steps is None:
        raise NoDerivative("influence: expected a layered solution, got a continuous path; give "
                           "hs.solve a number of layers")
    name, measure = _measure(solution, on)
    rows = np.arange(solution.problem.n_samples) if samples is None else _rows(samples, solution)
    optimum = optimum_of(solution, "influence")
    without = LeftOut(optimum)
    steps = [without.step(int(s)) for s in rows]
    changes, whole = (np.array([getattr(one, name) for one in steps])
                      for name in ("changes", "whole"))
    if measure is None:
        first = without.first_objective[rows]
        value: Any = optimum.at.objective
        second = np.array([one.objective for one in steps]) - value
    else:
        value = np.asarray(measure(_network(solution, optimum.at.weights)), dtype=float)
        first = np.array([_along(solution, optimum, measure, without.first[:, s]) for s in rows])
        second = np.array([measure(_network(solution, one.weights)) for one in steps]) - value
        value = float(value) if value.ndim == 0 else value
    return Influence(name, value, rows, first, second, changes, whole, solution, measure)


def _measure(solution: Solution, on: Any) -> tuple[str, Measure | None]:
    """A name, and the function of a network; None for the objective."""
    problem = solution.problem
    if isinstance(on, str):
        if on == "objective":
            return on, None
        if on != "test_error":
            raise ValueError(f"on: expected 'objective', 'test_error', rows of inputs or a "
                             f"function of a network, got {brief(on)}")
        if problem.X_test is None:
            raise ValueError("on: expected a problem with test samples for 'test_error', it has "
                             "none")
        return on, lambda network: network.test_error(problem)
    if callable(on):
        return getattr(on, "__name__", "a function of the network"), on
    X = matrix("on", on)
    if X.shape[1] != problem.d_in:
        raise ValueError(f"on: expected rows of {problem.d_in} inputs, got {X.shape[1]}")
    return f"predictions of {len(X)} rows", lambda network: network.predict(X)


def _rows(samples: Sequence[int], solution: Solution) -> NDArray:
    """Numbers of samples, checked."""
    rows, count = np.asarray(samples), solution.problem.n_samples
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or \
            rows.min() < 0 or rows.max() >= count:
        raise ValueError(f"samples: expected numbers from 0 to {count - 1}, got {brief(samples)}")
    return rows


def _problem(solution: Solution) -> Any:
    """The problem that the network is an optimum of."""
    return problem_solved(solution, "influence")


def _network(solution: Solution, weights: NDArray) -> LeakyResNet:
    return LeakyResNet.from_weights(_problem(solution), weights, solution.steps)


def _along(solution: Solution, optimum: Optimum, measure: Measure, change: NDArray) -> NDArray:
    """The derivative of a measure along a change of the controls, by a central difference."""
    W, change = optimum.at.weights, change.reshape(optimum.at.weights.shape)
    h = STEP * float(np.abs(W).max()) / max(float(np.abs(change).max()), 1e-300)
    up, down = (np.asarray(measure(_network(solution, W + sign * h * change))) for sign in (1, -1))
    return np.asarray((up - down) / (2 * h))


def _number(value: Any) -> str:
    """A number, or of an array the entry of largest size."""
    flat = np.ravel(value)
    largest = flat[int(np.argmax(np.abs(flat)))]
    return f"{largest:.5g}"
