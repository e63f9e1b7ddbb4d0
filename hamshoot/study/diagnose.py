"""`diagnose(solution)`: the CasADi program of a layered solution, and its KKT conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hamshoot.methods.multiple_shooting.method import DirectMultipleShooting
from hamshoot.solution.mistakes import check_solution

if TYPE_CHECKING:
    from hamshoot.methods.multiple_shooting.diagnostics import Diagnostics
    from hamshoot.solution.solution import Solution


def diagnose(solution: Solution) -> Diagnostics:
    """Sparsity of the nonlinear program, and where a solution violates which of its conditions.

    Parameters
    ----------
    solution : Solution
        Over layers, Euler or RK4, by any method; it need not have converged.

    Returns
    -------
    Diagnostics
        Residuals by layer and block, patterns of Jacobian, Hessian and KKT matrix with nonzeros and
        bandwidth, costates B = −(1/λ) ∂C/∂A. Prints as a table; `hamshoot.plot.plot_diagnostics`
        draws it. See `hamshoot.methods.multiple_shooting.diagnostics`.

    Raises
    ------
    TypeError
        For what is no solution.
    ValueError
        For a continuous path.

    Examples
    --------
    >>> print(hamshoot.diagnose(solution))      # doctest: +SKIP
    """
    check_solution("diagnose", solution)
    if solution.steps is None:
        raise ValueError("solution: expected one over layers, got a continuous path; solve it with "
                         "layers=L, or see hs.certify")
    integrator: Any = solution.integrator  # of layers it is one that the method has
    method = DirectMultipleShooting(layers=len(solution.steps), steps=solution.steps,
                                    integrator=integrator)
    return method.diagnostics(solution.problem, solution)
