"""`sensitivity`: how an optimum moves with λ, L̃, ε, targets, inputs and weights of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hamshoot.derivatives.geodesics import geodesic_sensitivity
from hamshoot.derivatives.layers import layered_sensitivity
from hamshoot.derivatives.parameters import shape_of, units_of, value_of
from hamshoot.derivatives.result import (
    Sensitivity,
    check_known,
    check_solution,
    direction_of,
    parameter,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hamshoot.solution.solution import Solution


def sensitivity(
    solution: Solution, of: str, direction: ArrayLike | float | None = None, *,
    scaled: bool = True,
) -> Sensitivity:
    """Differentiate an optimum: dJ*/dθ, dW*/dθ, dA*/dθ, dB*/dθ and d²J*/dθ².

    Parameters
    ----------
    solution : Solution
        A strict local minimum over Euler layers, of any activation, or a geodesic. A network that
        is stationary once smoothed (SMOOTHED) is differentiated as the smoothed one.
    of : {"weight_decay", "effective_depth", "epsilon", "targets", "inputs", "sample_weights"}
        θ: λ, L̃, the ε of a smooth ReLU, Y (N, d_out), X (N, d_in), or the weights ω (N,) of the
        samples' squared errors in J, which are 1.
    direction : array_like, optional
        Of θ's shape, for arrays: derivatives are those along θ + t·direction at t = 0. Without it
        there is dJ*/dθ alone, the whole array; dW*, dA* and d²J* need a direction. Numbers have the
        direction 1.
    scaled : bool
        Whether targets, inputs and their direction are in the scaled units in which the network
        works, `problem.targets`, or in the user's. Either way the scaling stays that of the
        problem: ``problem.replace(Y=...)`` standardises anew and is another problem.
        ``problem.subset(range(problem.n_samples))`` is this problem in scaled units, where θ can
        be moved by hand.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ValueError
        In a sentence, where there is no derivative: a network that is not stationary, a saddle or a
        singular Hessian by the second-order test, a ReLU network with a kink on the edge of being
        left; and for another `of`, or a direction of another shape.
    TypeError
        For what is no solution.

    Notes
    -----
    Over layers: the second-order test, one Hessian and its factor (up to 4000 controls; see
    `hamshoot.derivatives.optimum`), then 2n² flops and two sweeps for each call. With activations
    on the kink of ReLU the derivatives are those with these held, and `Sensitivity.interval` says
    how far along the direction that goes, to first order.

    The envelope theorem gives, for example, dJ*/dλ = ∫‖W‖²/(2L̃) and, on a geodesic,
    dJ*/dL̃ = −λH/L̃, (λ/2) times the bottleneck rank: see `hamshoot.derivatives.parameters`.

    Examples
    --------
    >>> import hamshoot as hs
    >>> problem = hs.teacher_problem((3, 1, 3), 8, width=3, effective_depth=1.0, weight_decay=0.01,
    ...                              activation="smooth_relu", test_samples=0)
    >>> solution = hs.solve(problem, layers=4)
    >>> by_decay = hs.sensitivity(solution, "weight_decay")
    >>> norm = solution.parameter_norm / (2 * problem.effective_depth)
    >>> abs(by_decay.along - norm) < 1e-12 * norm
    True
    """
    parameter(of)
    check_solution(solution)
    check_known(solution.problem, "sensitivity")
    if solution.steps is not None:
        return layered_sensitivity(solution, of, direction, scaled=scaled)
    return _of_geodesic(solution, of, direction, scaled)


def _of_geodesic(solution: Solution, of: str, direction: Any, scaled: bool) -> Sensitivity:
    """That of a continuous path, which is computed in scaled units, in those asked for."""
    if scaled or of not in ("targets", "inputs"):
        return geodesic_sensitivity(solution, of, direction)
    problem = solution.problem
    units, given = units_of(problem, of), direction_of(of, direction, shape_of(problem, of))
    found = geodesic_sensitivity(solution, of, None if given is None else given / units)
    return replace(found, theta=value_of(problem, of, scaled), direction=given, scaled=False,
                   objective=found.objective / units)
