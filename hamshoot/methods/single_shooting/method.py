"""`DirectSingleShooting`: search over the controls alone, for what multiple shooting cannot hold.

The roll-out eliminates the representations and the adjoint sweep gives ∂J/∂W exactly, so memory and
work grow only linearly in the number of samples. Two searches stand behind it:

* networks that can be carried to their exact optimum
  (`hamshoot.methods.newton.active_set.affordable`, or a smooth activation of that size) take
  `hamshoot.methods.single_shooting.ladder_search`: the search for a basin that all methods share,
  Newton to the tolerance, and for ReLU the polish;
* larger ones take the levels of `hamshoot.methods.single_shooting.multilevel`: few samples and
  layers first, then all, by L-BFGS around a Kronecker preconditioner, over blocks of samples on all
  threads. They end where J hardly falls any more and the gradient is small against the one at the
  start; a ReLU network goes on from there with activations held on the kink
  (`hamshoot.methods.single_shooting.held`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hamshoot.dynamics.block_sweeps import Executor, threads
from hamshoot.dynamics.sweeps import blas_threads
from hamshoot.methods.common.options import picked
from hamshoot.methods.common.starts import weights_of
from hamshoot.methods.newton.active_set import MAX_CONTROLS, affordable
from hamshoot.methods.search.basins import check_search_options
from hamshoot.methods.single_shooting.ladder_search import LadderOptions, LadderSearch
from hamshoot.methods.single_shooting.level_search import (
    LevelOptions,
    LevelSearch,
    checkpoint_file,
)
from hamshoot.network.layer_steps import steps_of
from hamshoot.problem.maps import check_fixed
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.solution.mistakes import check_problem
from hamshoot.solution.solution import Callback, Solution
from hamshoot.support.checks import (
    check_choice,
    check_count,
    check_layers,
    check_options,
    check_positive,
)
from hamshoot.support.cluster import client_of

if TYPE_CHECKING:
    from hamshoot.support.names import EffortName, OptimizerName, StartName

#: Hidden activations up to which "auto" takes the ladder for a network that is not to be polished.
LADDER_ACTIVATIONS = 2_000_000
OPTIMIZERS = ("auto", "lbfgs", "kronecker", "gauss_newton")


@dataclass(frozen=True, kw_only=True)
class DirectSingleShooting:
    """Optimal L-layer network by single shooting, matrix-free.

    Parameters
    ----------
    layers : int
        L > L̃.
    steps : {"equidistant", "irregular"} or array_like, shape (L,)
        Layer steps ρ, sum 1, every ρL̃ < 1.
    tol : float
        Bound on the stationarity of the smooth network at the last ε,
        max_ℓ ‖(L̃/(λρ_ℓ)) ∂J/∂W_ℓ‖_F / max(1, ‖W_ℓ‖_F) = max_ℓ ‖W_ℓ − L̃Bσ̂ᵀ‖_F / max(1, ‖W_ℓ‖_F),
        what `Solution.stationarity` reports. Unlike a relative gradient, ‖∇J‖/‖∇J at the start‖,
        it does not grow looser with a worse start (measured: 1e-5 of that ratio can leave a
        stationarity of 0.8).
    gradient_tol : float
        Bound on the relative gradient, ‖∇J‖/‖∇J of the path fit‖, for large networks (a gradient
        above 2e8 flops), whose valley is too long and shallow to be walked to `tol`: reached, with
        J falling by less than a millionth an iteration, the search ends with the status FLAT.
        Where it ends in the valley is a matter of `effort`.
    max_iter : int
        Iterations of all starts and stages together.
    time_limit : float, optional
        Seconds.
    seed : int
    start : {"path", "identity", "random"}, optional
        A single local solve from this start, or so many with `starts`, in place of the search of
        `hamshoot.methods.search.basins`, which begins at path fits and identities in turn.
    starts : int, optional
        Best of so many starts; by default by `effort`. Large networks compare them after the
        coarse levels, and take one by default.
    noise : float, optional
        Of the start, see `hamshoot.methods.common.starts`.
    effort : {"quick", "default", "thorough"}
        How long the search goes on. For large networks, how slowly J has to fall along the valley
        before the gradient is made small: by 1e-5, 3e-6 or 1e-6 of it an iteration.
    workers : int or distributed.Client, optional
        Threads of the search, by default a core each, or a cluster of Dask (extra ``dask``) whose
        workers make the walks. The answer does not depend on it.
    epsilon : tuple of float
        First and last ε of the ladder, and the factor between stages. Without the polish the answer
        for ReLU is the optimum at the last ε. A smooth ReLU uses the ladder down to its own ε, a
        linear network none. Large networks use the last alone (see
        `hamshoot.methods.single_shooting.multilevel`).
    reheats : int, optional
        Rounds of reheats from the best of the starts; by default by `effort`.
    stage_iter : int
        Most iterations of a stage or, for large networks, a level of the whole problem; the
        convergence at the last ε is excepted.
    memory : int, optional
        Pairs the quasi-Newton method keeps; by default 30, and 20 for large networks.
    optimizer : {"auto", "lbfgs", "kronecker", "gauss_newton"}
        "lbfgs" is the ladder search, the others the levels: "kronecker" is L-BFGS around a
        Kronecker preconditioner, "gauss_newton" a trust-region method by preconditioned conjugate
        gradients. "auto" takes "lbfgs" where the exact optimum is in reach, else "kronecker".
    polish : bool
        Whether ReLU is carried to its exact optimum where the size allows it
        (`hamshoot.methods.newton.active_set.affordable`), and a large network, from a FLAT end of
        its levels, to near its own stationary point, with its activations held on the kink.
    kink_tol : float
        Bound on the stationarity of the ReLU network itself, with the best slopes on the kink, at
        which that ends for large networks. Where it is not reached the message says what was.
    executor : Executor, optional
        Runs blocks of samples, for large networks: a `distributed.Client` (extra ``dask``), a
        `concurrent.futures` executor, or anything with ``map(function, items)``. By default
        threads. Pools of processes and clusters keep their blocks, and read those of
        memory-mapped data from the file themselves; the answer is the same by any of them.
    checkpoint : path, optional
        For large networks: an .npz file that holds the best network so far, rewritten every
        `checkpoint_every` seconds once the coarse levels are over;
        ``initial_guess=Solution.load(path)`` goes on from it.
    checkpoint_every : float

    Raises
    ------
    ValueError
        For an option out of range.

    Notes
    -----
    Costs of an iteration are those of `hamshoot.methods.single_shooting.ladder_search` and
    `hamshoot.methods.single_shooting.kronecker`.
    """

    layers: int = 20
    steps: Any = "equidistant"
    tol: float = 1e-6
    gradient_tol: float = 1e-4
    max_iter: int = 10_000_000
    time_limit: float | None = None
    seed: int = 0
    start: StartName | None = None
    starts: int | None = None
    noise: float | None = None
    epsilon: tuple[float, float, float] = (0.5, 1e-3, 0.5)
    effort: EffortName = "default"
    workers: Any = None
    reheats: int | None = None
    stage_iter: int = 5000
    memory: int | None = None
    optimizer: OptimizerName = "auto"
    polish: bool = True
    kink_tol: float = 1e-2
    executor: Executor | None = None
    checkpoint: Any = None
    checkpoint_every: float = 60.0

    def __post_init__(self) -> None:
        check_options(self)
        check_count("layers", self.layers, 1)
        check_search_options(self)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_count("stage_iter", self.stage_iter, 1)
        if self.memory is not None:
            check_count("memory", self.memory, 1)
        for name in ("gradient_tol", "kink_tol", "checkpoint_every"):
            check_positive(name, getattr(self, name))
        if not isinstance(self.polish, bool):
            raise ValueError(f"polish: expected True or False, got {self.polish!r}")
        if self.checkpoint is not None:
            if not isinstance(self.checkpoint, (str, os.PathLike)):
                raise ValueError(f"checkpoint: expected a path, got {self.checkpoint!r}")
            folder = checkpoint_file(self.checkpoint).parent
            if not folder.is_dir():
                raise ValueError(f"checkpoint: no directory {folder}")
        if self.executor is not None and not callable(getattr(self.executor, "map", None)):
            raise ValueError(f"executor: expected an object with a map, got {self.executor!r}")

    # Trial steps beyond all numbers are told by their J, which is compared, not by warnings.
    @np.errstate(over="ignore", invalid="ignore")
    def solve(
        self,
        problem: TrainingProblem,
        initial_guess: Any = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Solve `problem` for its optimal L-layer network.

        Parameters
        ----------
        problem : TrainingProblem
            With a loss; a hard endpoint needs `DirectMultipleShooting`.
        initial_guess : Solution, LeakyResNet or array_like, optional
            In place of the starts. The ladder then begins at a small ε, and the answer's objective
            is at or below the guess's.
        callback : callable, optional
            Receives a `Record` per iteration; returning True stops the solve.

        Returns
        -------
        Solution
            Status CONVERGED, or SMOOTHED for a ReLU network too large for the polish (the
            stationary point is that of the network at the last ε); FLAT for large networks;
            UNSETTLED where the polish failed; else the best iterate and why it ended. In
            `residuals`, of the smoothed network at the last ε: `smooth_stationarity`,
            `smooth_objective`, and `relative_gradient`, ‖∇J‖ over that of the first start (for
            large networks, of the path fit); where activations were held on the kink afterwards,
            of the network that was left for that.

        Raises
        ------
        ValueError
            For a hard endpoint, too few layers, or a guess that does not fit.
        """
        check_problem("solve", problem)
        if problem.hard_endpoint:
            raise ValueError(
                "problem: single shooting has no way to hold a hard endpoint; "
                "use DirectMultipleShooting"
            )
        if isinstance(self.steps, str):
            check_layers(self.layers, problem.effective_depth)
        steps = steps_of(self.steps, self.layers, problem.effective_depth)
        self._check_learned(problem)
        guess = None if initial_guess is None else weights_of(initial_guess, problem, steps)
        if self.optimizer_for(problem) == "lbfgs":
            with blas_threads(problem):
                far = client_of(self.executor) if self.workers is None else None
                options = replace(picked(LadderOptions, self), workers=far or self.workers)
                search = LadderSearch(options, problem, steps, callback)
                return search.run(guess)
        with threads(problem) as pool:
            levels = LevelSearch(picked(LevelOptions, self), problem, steps, callback,
                                 self.executor or client_of(self.workers) or pool,
                                 self.optimizer_for(problem), pool)
            return levels.run(guess)

    def _check_learned(self, problem: TrainingProblem) -> None:
        """Raise ValueError where maps are learned and the network is one for levels of samples."""
        activations = self.layers * problem.width * problem.n_samples
        if self.optimizer in ("kronecker", "gauss_newton"):
            check_fixed(problem, f"optimizer {self.optimizer!r} is", "'lbfgs' learns them")
        if activations > LADDER_ACTIVATIONS:
            check_fixed(problem, f"networks of more than {LADDER_ACTIVATIONS} activations, layers "
                        f"times width times samples, here {activations}, are", "use fewer samples")

    def optimizer_for(self, problem: TrainingProblem) -> str:
        """The optimiser that "auto" stands for: the ladder up to the size of the exact methods."""
        if self.optimizer != "auto":
            return self.optimizer
        if not problem.sigma.compiled or not problem.criterion.plain or problem.learns:
            return "lbfgs"
        if problem.sigma.kinked and self.polish:
            exact = affordable(problem, self.layers)
        else:
            controls = self.layers * int(np.prod(problem.control_shape))
            activations = self.layers * problem.width * problem.n_samples
            exact = controls <= MAX_CONTROLS and activations <= LADDER_ACTIVATIONS
        return "lbfgs" if exact else "kronecker"
