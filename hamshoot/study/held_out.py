"""Rows that are held out of training, to choose by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.problem.training_problem import TrainingProblem

#: Stream of the random numbers that draw them; those that draw test rows are others.
STREAM = 7


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows X (K, d_in) and Y (K, d_out), in the user's units, and where they come from.

    Attributes
    ----------
    X, Y : ndarray
    rows : ndarray of int, shape (K,), or None
        Which of the training rows they are; None where they are the problem's test rows.
    of : int
        Training rows of the problem.
    seed : int
    tested : bool
        Whether the problem has test rows besides.
    weights : ndarray, shape (K,), optional
        Of these rows, where the training rows have weights. Test rows have none.
    unweighted : bool
        Whether the training rows have weights, and these, test rows, have not.
    """

    X: NDArray
    Y: NDArray
    rows: NDArray | None
    of: int
    seed: int
    tested: bool
    weights: NDArray | None = None
    unweighted: bool = False

    def mean(self, values: NDArray) -> tuple[float, float]:
        """Mean of a number a row (K,), by the weights, and its standard error.

        NaN where one row alone counts.
        """
        s = np.ones(len(values)) if self.weights is None else self.weights
        counted = int(np.count_nonzero(s))
        middle = float(np.sum(s * values) / np.sum(s))
        if counted < 2:
            return middle, np.nan
        spread = np.sqrt(np.sum((s * (values - middle)) ** 2) * counted / (counted - 1))
        return middle, float(spread / np.sum(s))

    @property
    def caution(self) -> str:
        """What an error on these rows is not."""
        if self.rows is None:
            alike = " They count alike here, as test rows have no weights." if self.unweighted \
                else ""
            return ("The test error of what was chosen is that of these same rows: it is "
                    f"lower than new rows will show.{alike}")
        tail = "; the test rows had no part in the choice" if self.tested else ""
        return f"The least of many errors is lower than new rows will show{tail}."

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `from` "training" or "test", `count`, `seed`, and `rows` by number."""
        return {"from": "test" if self.rows is None else "training", "count": len(self.X),
                "seed": self.seed, "rows": None if self.rows is None else self.rows.tolist()}

    def __str__(self) -> str:
        if self.rows is None:
            return f"the {len(self.X)} test rows"
        weighted = "" if self.weights is None else ", by their weights"
        return f"{len(self.X)} of the {self.of} training rows (seed {self.seed}{weighted})"


def held_out_rows(
    problem: TrainingProblem, held_out: float | str, seed: int
) -> tuple[TrainingProblem, HeldOut]:
    """The problem of the rows that are left to train on, and those held out.

    Parameters
    ----------
    problem : TrainingProblem
    held_out : float or "test"
        A share of the training rows in (0, 1), or the problem's own test rows, which leave all
        training rows.
    seed : int

    Returns
    -------
    TrainingProblem
        With the scaling of its own rows: nothing of the others is in it. Columns that are constant
        in these rows alone are centred only.
    HeldOut

    Raises
    ------
    ValueError
        Without test rows where they are asked for, for a share out of range or one that leaves
        fewer than two rows, and for memory-mapped data, which would be copied.
    """
    n = problem.n_samples
    if held_out == "test":
        if problem.X_test is None or problem.Y_test is None:
            raise ValueError("held_out: expected a problem with test rows for 'test', it has none")
        return problem, HeldOut(problem.X_test, problem.Y_test, None, n, seed, True,
                                unweighted=problem.sample_weights is not None)
    if isinstance(held_out, (bool, str)) or not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share in (0, 1) or 'test', got {held_out!r}")
    if problem.mapped:
        raise ValueError("held_out: a share of rows that stay in their files would be copied; give "
                         "the problem test rows and use held_out='test'")
    k = max(1, round(held_out * n))
    if n - k < 2:
        raise ValueError(f"held_out: {held_out} of {n} rows leaves {n - k} to train on, "
                         "expected at least 2")
    order = np.random.default_rng([seed, STREAM]).permutation(n)
    out, left = np.sort(order[:k]), np.sort(order[k:])
    X, Y = np.asarray(problem.X), np.asarray(problem.Y)
    columns = problem.standardize in (True, "columns")
    s = problem.sample_weights
    for which, chosen in (("held out", out), ("left", left)):
        if s is not None and not s[chosen].any():
            raise ValueError(f"held_out: the {len(chosen)} rows {which} by the seed {seed} all "
                             "have the weight 0; take another seed or share")
    part = problem.replace(X=X[left], Y=Y[left], X_test=None, Y_test=None,
                           sample_weights=None if s is None else s[left],
                           standardize="varying" if columns else problem.standardize)
    return part, HeldOut(X[out], Y[out], out, n, seed, problem.X_test is not None,
                         None if s is None else s[out])
