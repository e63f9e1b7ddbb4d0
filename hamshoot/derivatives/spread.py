"""`predictive_spread`: how far predictions are determined, by the linearised Laplace approximation.

Take the noise of the targets as Gaussian with variance s², and the weight decay as a Gaussian
prior: then NJ/(2s²) is the negative logarithm of the posterior of the controls, up to a constant.
Its quadratic approximation at a minimum is a Gaussian of covariance

    Σ = (2s²/N) Z (ZᵀHZ)⁻¹ Zᵀ,

H the Hessian of J itself, and no Gauss–Newton stand-in, as the point is a minimum; with activations
held on the kink of ReLU, Z spans the directions that leave them there. A prediction f(x), linear in
the controls near by, then has the variance ∇f Σ ∇fᵀ, and a new target s² more. Without a noise
given,

    s² = Σ‖error‖² / (N d_out − p),   p = (2/N) Σ ∇f Z(ZᵀHZ)⁻¹Zᵀ ∇fᵀ  over the training outputs,

p the number of parameters that the data determine: N d_out for a fit that interpolates.

What it leaves out: other minima, permuted or not; what the controls do beyond the linear; and
activations that would leave the kink. It is as good as this picture of one basin is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.derivatives.optimum import Optimum, optimum_of
from hamshoot.derivatives.outputs import gradients
from hamshoot.derivatives.result import NoDerivative, check_known, plain
from hamshoot.problem.arguments import matrix, positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from hamshoot.solution.solution import Solution

#: Numbers of derivatives of predictions held at a time.
BLOCK_NUMBERS = 20_000_000
#: What of the degrees of freedom has to be left to estimate the noise from.
LEAST_FREEDOM = 0.02


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveSpread:
    """Predictions with their standard deviations, in the user's units.

    Attributes
    ----------
    mean : ndarray, shape (K, d_out)
        What the network predicts.
    network : ndarray, shape (K, d_out)
        Standard deviation of that, as the data do not determine the network.
    noise : ndarray, shape (d_out,)
        Standard deviation s of the targets' noise.
    effective_parameters : float
        p, of the controls.
    parameters, observations : int
        Controls, and numbers of targets, N d_out.
    """

    mean: NDArray
    network: NDArray
    noise: NDArray
    effective_parameters: float
    parameters: int
    observations: int

    @property
    def total(self) -> NDArray:
        """Standard deviation of a new target, √(network² + noise²), (K, d_out)."""
        return np.sqrt(self.network**2 + self.noise**2)

    def interval(self, level: float = 0.9, *, noise: bool = True) -> tuple[NDArray, NDArray]:
        """Ends between which a new target lies with a probability, (K, d_out) each.

        Parameters
        ----------
        level : float
            In (0, 1).
        noise : bool
            False for where the noise-free value lies.

        Raises
        ------
        ValueError
            For another level.
        """
        from scipy.special import ndtri

        if isinstance(level, bool) or not 0 < level < 1:
            raise ValueError(f"level: expected a probability in (0, 1), got {level!r}")
        reach = ndtri(0.5 + 0.5 * level) * (self.total if noise else self.network)
        return self.mean - reach, self.mean + reach

    def coverage(self, Y: ArrayLike, level: float = 0.9) -> float:
        """The share of targets (K, d_out) that the interval holds: `level`, if it is calibrated."""
        Y = matrix("Y", Y)
        if Y.shape != self.mean.shape:
            raise ValueError(f"Y: expected shape {self.mean.shape}, got {Y.shape}")
        low, high = self.interval(level)
        return float(np.mean((low <= Y) & (high >= Y)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: plain(value) for name, value in {**vars(self), "total": self.total}.items()}

    def __repr__(self) -> str:
        rows, outputs = self.mean.shape
        return (f"PredictiveSpread of {rows} rows, {outputs} output{'s' * (outputs > 1)}\n"
                f"  network  median deviation {np.median(self.network):.4g}, largest "
                f"{self.network.max():.4g}\n"
                f"  noise    {', '.join(f'{one:.4g}' for one in self.noise)}\n"
                f"  the data determine {self.effective_parameters:.1f} of {self.parameters} "
                f"controls, from {self.observations} targets")


def predictive_spread(
    solution: Solution, X: ArrayLike, *, noise: float | None = None
) -> PredictiveSpread:
    """Standard deviations of predictions by the linearised Laplace approximation at a minimum.

    Parameters
    ----------
    solution : Solution
        As of `hamshoot.sensitivity`, over layers; of a regression.
    X : array_like, shape (K, d_in)
        Rows, in the user's units.
    noise : float, optional
        Standard deviation of the targets' noise, in scaled units; by default estimated.

    Returns
    -------
    PredictiveSpread

    Raises
    ------
    ValueError
        As `hamshoot.sensitivity`; for classes; and where targets are too few to estimate the noise.

    Notes
    -----
    Costs, after those of `hamshoot.sensitivity`, d_out sweeps and 2n² flops for each number
    predicted, for training rows too. Measured by ``python demos/15_what_the_data_do.py``: intervals
    for new targets are calibrated there, to 3 % at tables of 30 to 300 samples; those of `network`
    alone, for values without noise, are not: they are too narrow, and the more so the more samples
    there are, as they know nothing of the bias of the weight decay, nor of other minima. On a table
    of one's own `PredictiveSpread.coverage` of held-out rows tells.
    """
    problem = solution.problem
    check_known(problem, "predictive_spread")
    if solution.steps is None:
        raise NoDerivative("predictive_spread: expected a layered solution, got a continuous path; "
                           "give hs.solve a number of layers")
    if problem.classes is not None:
        raise ValueError("predictive_spread: expected a regression, got classes, whose outputs are "
                         "no measurements with noise")
    X = matrix("X", X)
    if X.shape[1] != problem.d_in:
        raise ValueError(f"X: expected {problem.d_in} columns, as in training, got {X.shape[1]}")
    known = None if noise is None else positive("noise", noise)
    optimum = optimum_of(solution, "predictive_spread")
    _, shares = _spread(optimum, optimum.at.setting.start)
    count = problem.n_samples * problem.d_out
    effective = float(2 / problem.n_samples * shares.sum())
    deviation = _noise(optimum, count, effective) if known is None else known
    outputs, variances = _spread(optimum, problem.lift @ problem.input_scaling.apply(X).T)
    scale = problem.target_scaling.scale
    factor = 2 * deviation**2 / problem.n_samples
    return PredictiveSpread(
        problem.target_scaling.invert(outputs.T), np.sqrt(factor * variances.T) * scale,
        deviation * scale, effective, optimum.at.weights.size, count)


def _noise(optimum: Optimum, count: int, effective: float) -> float:
    """s, in scaled units."""
    problem, end = optimum.problem, optimum.sweep.A[-1]
    left = count - effective
    if left < LEAST_FREEDOM * count:
        raise NoDerivative(
            f"predictive_spread: {count} targets determine {effective:.1f} parameters, and leave "
            "nothing to estimate the noise from; give it, or use a larger weight_decay")
    return float(np.sqrt(np.sum((problem.readout @ end - problem.targets) ** 2) / left))


def _spread(optimum: Optimum, start: NDArray) -> tuple[NDArray, NDArray]:
    """Outputs (d_out, K) for states A_0 (w, K), and ∇f Z(ZᵀHZ)⁻¹Zᵀ ∇fᵀ of each, (d_out, K)."""
    from scipy.linalg import solve_triangular

    at = optimum.at
    outputs, variances = [], []
    block = max(1, BLOCK_NUMBERS // (at.weights.size * len(at.setting.readout)))
    for first in range(0, start.shape[1], block):
        some = at.setting._replace(start=start[:, first : first + block])
        A, rows = gradients(some, at.weights, at.steps)
        outputs.append(some.readout @ A)
        reduced = at.free.coordinates(rows.reshape(-1, at.weights.size).T)
        half = solve_triangular(optimum.factor, reduced, lower=True, check_finite=False)
        variances.append(np.sum(half**2, axis=0).reshape(rows.shape[:2]))
    return np.concatenate(outputs, axis=1), np.concatenate(variances, axis=1)
