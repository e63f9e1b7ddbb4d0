"""A solution simulated anew by other means: what it is off, in state and costate, along p.

*A continuous path.* SciPy's DOP853 takes the place of the compiled flow. Segment by segment it
carries (A, B) by the Hamiltonian flow from the stored node, and with the control W = L̃Bσ̂(A)ᵀ of
that very flow, without any interpolation, it runs the state equation open loop, from A_0 = PXᵀ to
the end, each segment from where the last one ended, and the costate equation back from B_1,

    ∂_p X = −L̃X + Wσ̂(X),  X_0 = PXᵀ,        ∂_p Z = L̃Z − σ′(A) ⊙ WᵀZ,  Z_1 = B_1(X_1).

X − A and Z − B are the errors along p: what comes of applying the control as it is. (The
Hamiltonian flow in one go from (A_0, B_0) would say little: it amplifies what rounding leaves by
about e^{L̃} both ways, whatever the solution.)

*Layers.* The recursion is exact but for rounding, so it is run again in extended precision, where
NumPy sums in another order than BLAS, samples reversed; and what a *continuous* network would do
with the same controls, W_ℓ held over layer ℓ, is integrated by DOP853: its distance from the layers
is the discretisation error of these controls, O(1/L) for Euler layers, no error of the solution.
(Of plain ReLU that network is integrated to 1e-4 only, which is enough to tell them apart.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.solution.solved_nodes import SolvedNodes
from hamshoot.support import verbs
from hamshoot.theory import hamiltonian as ham
from hamshoot.theory import layers as discrete
from hamshoot.theory.clarke import clarke_residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Below this SciPy's step control sees rounding alone.
LEAST_RTOL = 2.3e-14
#: Relative tolerance of the continuous network of plain ReLU layers, at most: its costate bends at
#: every crossing of a kink, which costs an integrator some ten steps for each digit and crossing.
BENT_RTOL = 1e-4
#: Evaluations at most, of all segments together: what takes more is no path anybody integrated.
MOST_EVALUATIONS, MOST_EACH = 20_000, 1_000
_NAN = float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Resimulation:
    """A solution beside itself, simulated anew. Immutable.

    Attributes
    ----------
    how : str
        By what it was simulated, in a sentence.
    rtol : float
        Relative tolerance of the integration, or the rounding unit of the recursion.
    p : ndarray, shape (M,)
    representations, momenta : ndarray, shape (M, w, N)
        As simulated.
    solved_representations, solved_momenta : ndarray, shape (M, w, N)
        Of the solution.
    state_error, costate_error : ndarray, shape (M,)
        ‖simulated − solved‖_F at every node, over the largest ‖A_p‖_F or ‖B_p‖_F of the solution;
        NaN from where the simulation was lost.
    state_defect, costate_defect : ndarray, shape (M−1,)
        The same of one segment or layer alone, begun anew at the solution's node: at its left node,
        of layers' costates at the right one.
    objective : float
        J of the simulated path.
    solved_objective : float
    continuous : Resimulation or None
        Of layers, the continuous network with the same controls, constant over each layer.
    """

    how: str
    rtol: float
    p: NDArray
    representations: NDArray
    momenta: NDArray
    solved_representations: NDArray
    solved_momenta: NDArray
    state_error: NDArray
    costate_error: NDArray
    state_defect: NDArray
    costate_defect: NDArray
    objective: float
    solved_objective: float
    continuous: Resimulation | None = None

    @property
    def largest_state_error(self) -> float:
        """Over the nodes; NaN where the simulation was lost."""
        return float(self.state_error.max())

    @property
    def largest_costate_error(self) -> float:
        """Over the nodes; NaN where the simulation was lost."""
        return float(self.costate_error.max())

    def plot(self) -> Any:
        """A Figure: the simulated states and costates over the solved ones, and the errors."""
        return verbs.plot_resimulation(self)

    def __repr__(self) -> str:
        rows = [f"Resimulation {self.how}", *self._rows()]
        if self.continuous is not None:
            rows += [f"beside it {self.continuous.how}", *self.continuous._rows()]
        return "\n".join(rows)

    def _rows(self) -> list[str]:
        return [f"  {name:<8} largest error {error.max():.2e}, at p = "
                f"{self.p[int(np.argmax(np.nan_to_num(error, nan=np.inf)))]:.3g}; of one segment "
                f"{defect.max():.2e}" for name, error, defect in (
                    ("state", self.state_error, self.state_defect),
                    ("costate", self.costate_error, self.costate_defect))] + [
            f"  J        {self.objective:.12g}, solved {self.solved_objective:.12g}"]


def resimulate(solution: SolvedNodes, sigma: Any, rtol: float = 1e-12) -> Resimulation:
    """Simulate a solution anew; see `hamshoot.Solution.resimulate`.

    Parameters
    ----------
    solution : SolvedNodes
    sigma : Activation
        That the solution obeys.
    rtol : float
        Of DOP853.

    Raises
    ------
    ValueError
        For a tolerance outside [2.3e-14, 1).
    """
    if isinstance(rtol, bool) or not isinstance(rtol, (int, float, np.number)) \
            or not LEAST_RTOL <= rtol < 1:
        raise ValueError(f"rtol: expected a number from {LEAST_RTOL:g} to 1, got {rtol!r}")
    with np.errstate(all="ignore"):
        if solution.steps is None:
            return _along_the_flow(solution, sigma, float(rtol))
        return _layers_again(solution, float(rtol))


# -- a continuous path -----------------------------------------------------------------------------


def _along_the_flow(solution: SolvedNodes, sigma: Any, rtol: float) -> Resimulation:
    problem, p = solution.problem, solution.p
    A, B = solution.representations, solution.momenta
    leak, w = problem.effective_depth, problem.width
    settings: dict[str, Any] = dict(effective_depth=leak, activation=sigma, bias=problem.bias)

    def forward(_: float, y: NDArray) -> list[NDArray]:
        W = ham.control(y[0], y[1], **settings)
        return [*ham.flow(y[0], y[1], **settings), _state_rate(problem, sigma, y[2], W)]

    def backward(_: float, y: NDArray) -> list[NDArray]:
        W = ham.control(y[0], y[1], **settings)
        return [*ham.flow(y[0], y[1], **settings),
                leak * y[2] - sigma.slope(y[0]) * (W[:, :w].T @ y[2])]

    def power(y: NDArray) -> float:
        return float(np.sum(ham.control(y[0], y[1], **settings) ** 2))

    integrated = _Integrator(rtol, 2 * len(p))
    run, ends, norm = [problem.initial_state], [], 0.0
    for k in range(len(p) - 1):
        end, squares = integrated(forward, p[k], p[k + 1], [A[k], B[k], run[-1]], power)
        ends.append(end[:2])
        run.append(end[2])
        norm += squares
    back = [_last_costate(solution, run[-1])]
    for k in range(len(p) - 2, -1, -1):
        end, _ = integrated(backward, p[k + 1], p[k], [A[k + 1], B[k + 1], back[-1]])
        back.append(end[2])
    whole = np.array(ends)
    return _beside(
        solution, f"by SciPy's DOP853 to {rtol:g}: the control applied open loop, the costate run "
        "back", rtol, np.array(run), np.array(back[::-1]), (whole[:, 0] - A[1:], whole[:, 1]
                                                            - B[1:]), norm)


def _state_rate(problem: Any, sigma: Any, X: NDArray, W: NDArray) -> NDArray:
    """−L̃X + Wσ̂(X)."""
    return W @ ham.augmented(X, sigma, problem.bias) - problem.effective_depth * X


def _last_costate(solution: SolvedNodes, end: NDArray) -> NDArray:
    """B_1 that goes with a simulated end; of a prescribed one the solution's multiplier."""
    problem = solution.problem
    if problem.hard_endpoint:
        return np.array(solution.momenta[-1], dtype=end.dtype)
    return ham.terminal_momentum(end, problem.readout, problem.targets, problem.weight_decay,
                                 problem.criterion)


class _Integrator:
    """DOP853 over one segment after another, with so many evaluations for all of them."""

    def __init__(self, rtol: float, segments: int) -> None:
        self.rtol, self.left = rtol, MOST_EVALUATIONS + MOST_EACH * segments

    def __call__(
        self, rates: Callable[[float, NDArray], list[NDArray]], start: float, end: float,
        states: list[NDArray], power: Callable[[NDArray], float] | None = None,
    ) -> tuple[NDArray, float]:
        """The states at the end of a segment, and ∫power dp over it; NaN where it is lost."""
        from scipy.integrate import solve_ivp

        y0 = np.array(states)
        shape, lost = y0.shape, (np.full(y0.shape, _NAN), _NAN)
        if not np.all(np.isfinite(y0)):
            return lost

        def field(t: float, flat: NDArray) -> NDArray:
            self.left -= 1
            y = flat[:-1].reshape(shape)
            out = np.concatenate([*(rate.ravel() for rate in rates(t, y)),
                                  [0.0 if power is None else power(y)]])
            if self.left < 0 or not np.all(np.isfinite(out)):
                raise FloatingPointError  # SciPy would try shorter steps for ever
            return out

        size = max(float(np.abs(y0).max()), 1e-300)
        try:
            run = solve_ivp(field, (start, end), np.append(y0.ravel(), 0.0), method="DOP853",
                            rtol=self.rtol, atol=0.1 * self.rtol * size, t_eval=[end])
        except FloatingPointError:
            return lost
        if not run.success:
            return lost
        return run.y[:-1, -1].reshape(shape), float(run.y[-1, -1])


# -- layers ----------------------------------------------------------------------------------------


def _layers_again(solution: SolvedNodes, rtol: float) -> Resimulation:
    """The recursion in extended precision, beside the continuous network of its controls."""
    problem, number = solution.problem, np.longdouble
    weights, steps = solution.weights.astype(number), np.asarray(solution.steps).astype(number)
    backwards = slice(None, None, -1)
    start = problem.initial_state[:, backwards].astype(number)
    A = discrete.roll_out(problem, weights, steps, solution.integrator, start)
    whole = A[:, :, backwards]
    slopes = _slopes(solution)
    B, _ = discrete.costates(problem, whole, weights, steps, solution.integrator,
                             _last_costate(solution, whole[-1]), slopes)
    rounding = float(np.finfo(number).eps)
    width = f"{np.finfo(number).nmant + 1} bits"
    norm = float(np.sum(steps * np.sum(weights**2, axis=(1, 2))))
    defects = _one_layer(solution, weights, steps, slopes)
    return _beside(
        solution, f"by the recursion again, in numbers of {width}, samples in reverse", rounding,
        whole, B, defects, norm, _held_constant(solution, rtol))


def _slopes(solution: SolvedNodes) -> NDArray | None:
    """σ′ of ReLU layers, with those of the stored momenta on the kink; None where σ has its own."""
    if not solution.problem.sigma.kinked or solution.integrator != "euler":
        return None
    if not solution.kinks:
        return solution.problem.sigma.slope(solution.representations[:-1])
    terminal = solution.momenta[-1] if solution.problem.hard_endpoint else None
    return clarke_residual(solution.problem, solution.representations, solution.weights,
                           np.asarray(solution.steps), terminal).slopes


def _one_layer(
    solution: SolvedNodes, weights: NDArray, steps: NDArray, slopes: NDArray | None
) -> tuple[NDArray, NDArray]:
    """One layer on from every node, and one back, less what the solution has there."""
    problem, A, B = solution.problem, solution.representations, solution.momenta
    on, back = np.empty_like(A[1:]), np.empty_like(B[1:])
    for k in range(len(steps)):
        one = weights[k : k + 1], steps[k : k + 1]
        node = A[k].astype(weights.dtype)
        pair = discrete.roll_out(problem, *one, solution.integrator, node)
        on[k] = pair[1] - A[k + 1]
        slope = None if slopes is None else slopes[k : k + 1]
        before, _ = discrete.costates(problem, pair, *one, solution.integrator,
                                      B[k + 1].astype(weights.dtype), slope)
        back[k] = before[0] - B[k]
    return on, back


def _held_constant(solution: SolvedNodes, rtol: float) -> Resimulation:
    """The continuous network whose control is that of the layer, all through it."""
    if solution.problem.sigma.kinked:
        rtol = max(rtol, BENT_RTOL)
    problem, p, sigma = solution.problem, solution.p, solution.problem.sigma
    leak, w, A = problem.effective_depth, problem.width, solution.representations

    def forward(k: int) -> Callable[[float, NDArray], list[NDArray]]:
        W = solution.weights[k]
        return lambda _, y: [_state_rate(problem, sigma, x, W) for x in y]

    def backward(k: int) -> Callable[[float, NDArray], list[NDArray]]:
        W = solution.weights[k]
        return lambda _, y: [_state_rate(problem, sigma, y[0], W), *(
            leak * z - sigma.slope(y[0]) * (W[:, :w].T @ z) for z in y[1:])]

    integrated = _Integrator(rtol, 2 * len(p))
    run, on = [problem.initial_state], []
    for k in range(len(p) - 1):
        end, _ = integrated(forward(k), p[k], p[k + 1], [run[-1], A[k]])
        run.append(end[0])
        on.append(end[1] - A[k + 1])
    back, before = [_last_costate(solution, run[-1])], []
    for k in range(len(p) - 2, -1, -1):
        end, _ = integrated(backward(k), p[k + 1], p[k],
                            [run[k + 1], back[-1], solution.momenta[k + 1]])
        back.append(end[1])
        before.append(end[2] - solution.momenta[k])
    norm = float(np.sum(np.asarray(solution.steps) * np.sum(solution.weights**2, axis=(1, 2))))
    return _beside(
        solution, f"by SciPy's DOP853 to {rtol:g}: the continuous network whose W is constant over "
        "each layer (its distance is the discretisation error of these controls)", rtol,
        np.array(run), np.array(back[::-1]), (np.array(on), np.array(before[::-1])), norm)


# -- both ------------------------------------------------------------------------------------------


def _beside(
    solution: SolvedNodes, how: str, rtol: float, A: NDArray, B: NDArray,
    defects: tuple[NDArray, NDArray], norm: float, continuous: Resimulation | None = None,
) -> Resimulation:
    """What was simulated beside what was solved."""
    problem = solution.problem
    solved = solution.representations, solution.momenta
    sizes = [float(np.linalg.norm(one, axis=(1, 2)).max()) or 1.0 for one in solved]
    errors = [_norms(found - own) / size
              for found, own, size in zip((A, B), solved, sizes, strict=True)]
    apart = [_norms(defect) / size for defect, size in zip(defects, sizes, strict=True)]
    loss = 0.0 if problem.hard_endpoint else \
        float(ham.loss(A[-1], problem.readout, problem.targets, problem.criterion))
    return Resimulation(
        how=how, rtol=rtol, p=solution.p, representations=np.asarray(A, dtype=float),
        momenta=np.asarray(B, dtype=float), solved_representations=solved[0],
        solved_momenta=solved[1], state_error=errors[0], costate_error=errors[1],
        state_defect=apart[0], costate_defect=apart[1],
        objective=loss + problem.weight_decay / (2 * problem.effective_depth) * norm
        + problem.map_decay,
        solved_objective=solution.objective, continuous=continuous)


def _norms(differences: NDArray) -> NDArray:
    """‖·‖_F of each; of extended numbers too, which LAPACK does not have."""
    return np.sqrt(np.sum(differences * differences, axis=(1, 2))).astype(float)
