"""The problems that tests share: small, fixed by their seeds, every setting a keyword.

A test file whose problems differ from the defaults in the same way says so once, by
`teacher = partial(problems.teacher, seed=0)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import hamshoot as hs
from hamshoot.problem.activations import CODES, WITH_EPSILON, WITH_SLOPE, Activation

#: All that there are, by name; those without a kink; and as objects, with constants that show.
ACTIVATIONS = tuple(CODES)
SMOOTH = tuple(name for name in CODES if name not in ("relu", "leaky_relu"))
SIGMAS = tuple(Activation(name, 0.1 * (name in WITH_EPSILON), 0.2 * (name in WITH_SLOPE))
               for name in CODES)


def constants(activation: str, epsilon: float) -> dict[str, float]:
    """ε where the activation has one, and the slope 0.2 where it leaks."""
    return {
        **({"epsilon": epsilon} if activation in WITH_EPSILON else {}),
        **({"negative_slope": 0.2} if activation in WITH_SLOPE else {})}


def teacher(
    activation: str = "relu",
    *,
    dims: Sequence[int] | None = None,
    samples: int = 12,
    width: int = 4,
    effective_depth: float = 3.0,
    weight_decay: float = 3e-3,
    test_samples: int = 0,
    epsilon: float = 0.1,
    seed: int = 1,
    **options: Any,
) -> hs.TrainingProblem:
    """The paper's synthetic problem: targets from a network with a narrow middle.

    The teacher's dimensions `dims` are (width, 2, width) unless given; `epsilon` counts for the
    smooth ReLU alone.
    """
    return hs.teacher_problem(
        (width, 2, width) if dims is None else dims, samples, effective_depth=effective_depth,
        width=width, weight_decay=weight_decay, test_samples=test_samples, seed=seed,
        activation=activation, **constants(activation, epsilon), **options)


def random_data(
    activation: str = "smooth_relu",
    *,
    sizes: tuple[int, int, int],
    data_seed: int,
    units: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0)),
    test_samples: int = 0,
    epsilon: float = 0.2,
    **options: Any,
) -> hs.TrainingProblem:
    """Inputs and targets that have nothing to do with each other, so that no term is small.

    `sizes` are samples, inputs and targets; `units` the mean and deviation of inputs and of
    targets; `epsilon` counts for the smooth ReLU alone.
    """
    samples, *columns = sizes
    rng = np.random.default_rng(data_seed)
    X, Y = (mean + deviation * rng.standard_normal((samples, n))
            for n, (mean, deviation) in zip(columns, units, strict=True))
    held_out = {name: rng.standard_normal((test_samples, n))
                for name, n in zip(("X_test", "Y_test"), columns, strict=True) if test_samples}
    return hs.TrainingProblem(X, Y, activation=activation,
                              **{**constants(activation, epsilon), **held_out, **options})


def one_neuron(
    y: float,
    activation: str = "linear",
    *,
    start: float = 1.0,
    effective_depth: float = 2.0,
    weight_decay: float = 0.05,
    **options: Any,
) -> hs.TrainingProblem:
    """One neuron without bias and one sample, from a_0 = `start` towards y: all in closed form."""
    return hs.TrainingProblem([[start]], [[y]], effective_depth=effective_depth, width=1,
                              weight_decay=weight_decay, activation=activation, bias=False,
                              **options)


def between(
    A0: ArrayLike,
    A1: ArrayLike,
    activation: str = "linear",
    *,
    effective_depth: float = 2.0,
    weight_decay: float = 0.1,
    **options: Any,
) -> hs.TrainingProblem:
    """From the given states A_0 to the given A_1, (w, N) or (w,) of one sample, without bias."""
    start, end = (np.reshape(A, (len(A), -1)) for A in (A0, A1))
    return hs.TrainingProblem(start.T, endpoint=end, effective_depth=effective_depth,
                              weight_decay=weight_decay, width=len(start), activation=activation,
                              bias=False, **options)
