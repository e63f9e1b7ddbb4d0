"""Sweeps over the samples in blocks: J, its gradient, Gauss–Newton and Hessian products.

The samples meet only in sums, so a sweep is a map over blocks of them and a sum. The map goes
through one small interface, ``executor.map(function, items)`` as in `concurrent.futures`; threads
by default, because the kernels release the GIL. Pools of processes and clusters of Dask keep their
blocks, see `hamshoot.dynamics.block_executors`. What a block's forward sweep leaves behind is kept
for the products that follow, as far as the memory allowed goes, and computed anew otherwise: a
block runs through all layers at once, so that costs one forward sweep and no storage.

Costs: a gradient takes 6Lw²N flops, a Gauss–Newton product 8Lw²N, a Hessian product 14Lw²N, and 2
or 6 more where nothing was kept. Memory: wN numbers for A_0, 3wTL a thread for blocks of T samples,
and LwN for what products keep (2LwN for Hessians, and LwN more for an activation beyond the ReLUs)
where `KEEP_BYTES` allows it. Where A_0 is larger
than `hamshoot.problem.memory_map.MEMORY_BYTES` it is not held either: every sweep scales and lifts
the rows of a block anew, 2wd_in flops a sample, from the file if they are mapped.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from hamshoot.dynamics.block_executors import runner
from hamshoot.dynamics.sweeps import check_loss, stationarity
from hamshoot.problem import memory_map as mapped
from hamshoot.problem.activations import SMOOTH_RELU, Activation
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.blas import load_blas

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Numbers of one layer of a block, w·T: a block's layer, next to the weights, fits a core's cache.
BLOCK_NUMBERS = 25_600
#: Samples of a block at least: products of fewer columns are slow whatever the width.
LEAST_BLOCK = 128
#: Items the map is given: enough for a machine's threads, few enough that the sum costs nothing.
SHARDS = 16
#: So many where there are `MANY_BLOCKS`: for the workers of a cluster.
MANY_SHARDS, MANY_BLOCKS = 128, 2048
#: Bytes of controls up to which every shard has its own sum and uses it again: fresh memory at each
#: gradient costs page faults, and sums held for good cost up to `SHARDS` times this much.
REUSED_BYTES = 4_000_000
#: Bytes of features that products may keep, over all blocks.
KEEP_BYTES = 1_500_000_000


class Executor(Protocol):
    """What runs the blocks: `concurrent.futures` executors have it, and so has a cluster's pool."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterable[Any]:
        """Results of the function in the order of the items."""


class _Serial:
    """The plain loop."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterable[Any]:
        return map(function, items)


class _Task(NamedTuple):
    """One sweep over a shard: what to do, where, and which way."""

    kind: str
    stamp: int
    W: NDArray
    V: NDArray | None
    numbers: tuple  # steps, leak, code, constants, Q
    two_scale: float
    seed: int


class Shard:
    """Consecutive blocks of samples that one call works through; pickles without what it keeps.

    Parameters
    ----------
    samples : Samples
        Of all its blocks.
    cuts : list of (int, int)
        The blocks among these samples.
    blocks : list of (A0, Y), optional
        The blocks themselves, where they are in memory to begin with.
    index : int
    dtype : numpy dtype
    keep : bool
        Whether features are kept for products.
    hold : bool
        Whether blocks that were read are held.
    reuse : bool
        Whether a sum is held, to be written to again.
    """

    def __init__(self, samples: mapped.Samples, cuts: list[tuple[int, int]],
                 blocks: list[tuple[NDArray, NDArray]] | None, index: int, dtype: np.dtype,
                 keep: bool, hold: bool, reuse: bool = True):
        self.samples = samples if blocks is None else None
        self.reuse = reuse
        self.cuts, self.index, self.dtype, self.keep, self.hold = cuts, index, dtype, keep, hold
        self.blocks: list[Any] = [None] * len(cuts) if blocks is None else blocks
        self.kept: list[Any] = [None] * len(cuts)
        self.sum: NDArray | None = None
        self.stamp: tuple[int, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        none = [None] * len(self.cuts)
        blocks = self.blocks if self.samples is None else none
        return {**vars(self), "blocks": blocks, "kept": list(none), "sum": None, "stamp": None}

    def with_blocks(self, blocks: Any) -> Shard:
        """The same shard with its blocks in another place."""
        other = copy.copy(self)
        other.blocks = blocks
        return other

    def block(self, b: int) -> tuple[NDArray, NDArray]:
        """A_0 (w, T) and Yᵀ (d_out, T) of a block."""
        if self.blocks[b] is not None:
            return self.blocks[b]
        assert self.samples is not None  # blocks are given or read
        A0, Y = self.samples.read(*self.cuts[b])
        block = (np.ascontiguousarray(A0, dtype=self.dtype),
                 np.ascontiguousarray(Y, dtype=self.dtype))
        if self.hold:
            self.blocks[b] = block
        return block

    def run(self, task: _Task) -> Any:
        """Square sum of the misfit, and what was asked for, summed over the blocks."""
        from hamshoot.dynamics import _block_kernels as kernels

        W, numbers = task.W, task.numbers
        total, out = 0.0, self._outputs(task)
        for b in range(len(self.cuts)):
            A0, Y = self.block(b)
            scratch = _scratch(W, Y, numbers[2])
            S, D = self._features(b, task, scratch)
            if task.kind in ("loss", "features"):
                total += kernels.loss(W, *numbers, A0, Y, S, scratch.work, scratch.R)
            elif task.kind in ("gradient", "expansion"):
                total += kernels.gradient(W, *numbers, A0, Y, task.two_scale, S, D, scratch.work,
                                          scratch.R, b == 0, scratch.grad, out[0])
            else:
                self._again(b, task, scratch, S, D, A0, Y)
                self._product(kernels, b, task, scratch, S, D, out)
        if task.kind in ("features", "expansion") and self.keep:
            self.stamp = (task.stamp, task.kind)
        return total, *out

    def _outputs(self, task: _Task) -> tuple[NDArray, ...]:
        """Where sums go; the shard's own until its next call."""
        L, w, c = task.W.shape
        if task.kind in ("loss", "features"):
            return ()
        if task.kind == "factors":
            return np.zeros((L, c, c), task.W.dtype), np.zeros((L, w, w), task.W.dtype)
        if not self.reuse or task.W.nbytes > REUSED_BYTES:
            return (np.empty_like(task.W),)
        if self.sum is None:
            self.sum = np.empty_like(task.W)
        return (self.sum,)

    def _features(self, b: int, task: _Task, scratch: _Scratch) -> tuple[NDArray, NDArray]:
        """Where S and D of a block go: kept for the products to come, or scratch."""
        asked = task.kind in ("features", "expansion")
        if not self.keep or not (asked or self.kept[b] is not None):
            return scratch.S, scratch.D if task.kind == "hessian" else scratch.pair
        if task.kind in ("loss", "gradient"):
            return scratch.S, scratch.pair
        S, D = self.kept[b] or (None, None)
        if S is None:
            S = np.ones_like(scratch.S)
        if D is None and task.kind == "expansion":
            D = np.empty_like(scratch.D)
        self.kept[b] = (S, D)
        if task.kind in ("expansion", "hessian"):
            return S, scratch.D if D is None else D
        return S, scratch.pair

    def _again(
        self, b: int, task: _Task, scratch: _Scratch, S: NDArray, D: NDArray, A0: NDArray,
        Y: NDArray,
    ) -> None:
        """Repeat the forward (and adjoint) sweep where it was not kept."""
        from hamshoot.dynamics import _block_kernels as kernels

        needed = "expansion" if task.kind == "hessian" else "features"
        if self.stamp in ((task.stamp, needed), (task.stamp, "expansion")):
            return
        if needed == "features":
            kernels.forward(task.W, *task.numbers[:-1], A0, S, scratch.work)
        else:
            kernels.gradient(task.W, *task.numbers, A0, Y, task.two_scale, S, D, scratch.work,
                             scratch.R, True, scratch.grad, scratch.spare)

    def _product(
        self, kernels: Any, b: int, task: _Task, scratch: _Scratch, S: NDArray, D: NDArray,
        out: tuple[NDArray, ...],
    ) -> None:
        if task.kind == "factors":
            signs = np.random.default_rng([task.seed, self.index, b]).integers(
                0, 2, size=scratch.R.shape)
            signs = (2 * signs - 1).astype(task.W.dtype)
            kernels.factors(task.W, *task.numbers, signs, S, scratch.work, scratch.square, *out)
            return
        gauss_newton = task.kind == "gauss_newton"
        function = kernels.gauss_newton if gauss_newton else kernels.hessian
        P = scratch.P[:1] if gauss_newton else scratch.P
        function(task.W, task.V, *task.numbers, task.two_scale, S, D, P, scratch.work, scratch.R,
                 b == 0, scratch.grad, out[0])


class _Scratch(NamedTuple):
    S: NDArray
    D: NDArray
    pair: NDArray
    P: NDArray
    work: NDArray
    R: NDArray
    grad: NDArray
    square: NDArray
    spare: NDArray


_local = threading.local()


def _scratch(W: NDArray, Y: NDArray, code: int) -> _Scratch:
    """Arrays of this thread, for the shapes at hand; a few of them are remembered."""
    rows = (1 + (code > SMOOTH_RELU)) * len(W)  # of S: beyond the ReLUs with the states
    key = (W.shape, Y.shape, W.dtype.char, rows)
    pool = _local.__dict__.setdefault("pool", {})
    if key not in pool:
        if len(pool) >= 4:
            pool.pop(next(iter(pool)))
        (L, w, c), (d_out, T), kind = W.shape, Y.shape, W.dtype
        P = np.zeros((L, c, T), kind)
        pool[key] = _Scratch(
            np.ones((rows, c, T), kind), np.empty((L, c, T), kind), np.empty((2, c, T), kind), P,
            np.empty((3, c, T), kind),
            np.empty((d_out, T), kind), np.empty((w, c), kind), np.empty((c + w, c), kind),
            np.empty((L, w, c), kind))
    return pool[key]


class BlockSweeps:
    """J, ∂J/∂W and products of its second derivatives, for an Euler network on a fixed mesh.

    Parameters
    ----------
    problem : TrainingProblem
        With a loss.
    steps : array_like, shape (L,)
        Layer steps ρ.
    activation : Activation, optional
        In place of the problem's, for the ε ladder.
    dtype : numpy dtype
        float64, or float32 for products at twice the speed.
    executor : Executor, optional
        Anything with `map`, a `distributed.Client` among it; by default a plain loop (see
        `threads`). The numbers do not depend on it.
    block : int, optional
        Samples in a block.
    keep_bytes : int
        Bytes of features that products may keep.

    Attributes
    ----------
    gradients, products : int
        Counted so far.
    """

    def __init__(
        self,
        problem: TrainingProblem,
        steps: ArrayLike,
        activation: Activation | None = None,
        *,
        dtype: Any = np.float64,
        executor: Executor | None = None,
        block: int | None = None,
        keep_bytes: int = KEEP_BYTES,
    ):
        check_loss(problem)
        (activation or problem.sigma).check_compiled("sweeps over blocks of samples")
        problem.criterion.check_plain("sweeps over blocks of samples, for large networks,")
        self.problem, self.dtype = problem, np.dtype(dtype)
        self.steps = np.array(steps, dtype=float)
        self.activation = problem.sigma if activation is None else activation
        self.executor = executor if executor is not None else _Serial()
        self.shape = (len(self.steps), *problem.control_shape)
        self.gradients = self.products = 0
        self._Q = np.ascontiguousarray(problem.readout, dtype=self.dtype)
        N, c = problem.n_samples, problem.control_shape[1]
        T = block_size(problem) if block is None else int(block)
        layers = (2 + (self.activation.code > SMOOTH_RELU)) * len(self.steps)
        keep = layers * self.dtype.itemsize * c * N <= keep_bytes
        self._shards = _shards(problem, T, self.dtype, keep)
        L, w, cols = self.shape
        self._run = runner(self.executor, self._shards, 6.0 * L * w * cols * N, self)
        self._stamp = 0
        self._W: NDArray | None = None

    def objective(self, W: NDArray) -> float:
        """J of the controls, by one forward sweep."""
        return self._loss(self._map("loss", W)) + self._decay(W)

    def gradient(self, W: NDArray) -> tuple[float, NDArray]:
        """J and ∂J/∂W (a fresh float64 array)."""
        self.gradients += 1
        return self._with_decay(self._map("gradient", W), W)

    def linearise(self, W: NDArray) -> None:
        """Take W as the point of the Gauss–Newton products to come: one forward sweep."""
        self._stamp += 1
        self._W = W = self._cast(W)
        self._map("features", W)

    def expand(self, W: NDArray) -> tuple[float, NDArray]:
        """Take W as the point of all products to come; J and ∂J/∂W there."""
        self._stamp += 1
        self.gradients += 1
        self._W = self._cast(W)
        return self._with_decay(self._map("expansion", self._W), W)

    def gauss_newton(self, V: NDArray) -> NDArray:
        """Gauss–Newton matrix of J times V, of the weight decay too, at the point taken."""
        self.products += 1
        return self._product("gauss_newton", V)

    def hessian(self, V: NDArray) -> NDArray:
        """Hessian of J times V, at the point taken by `expand`."""
        self.products += 1
        return self._product("hessian", V)

    def factors(self, seed: int = 0) -> tuple[NDArray, NDArray]:
        """Kronecker factors of the loss's Gauss–Newton blocks, at the point taken.

        Returns
        -------
        grams : ndarray, shape (L, w+1, w+1)
            σ̂σ̂ᵀ/N of every layer.
        metrics : ndarray, shape (L, w, w)
            Estimate of the mean of JᵀQᵀQJ, J = ∂A_L/∂A_ℓ, from one random probe a sample. The block
            of layer ℓ is about 2ρ² metrics ⊗ grams.
        """
        _, grams, metrics = self._map("factors", self._point(), seed=seed)
        N = self.problem.n_samples
        return grams.astype(float) / N, metrics.astype(float) / N

    def stationarity(self, W: NDArray, gradient: NDArray) -> float:
        """`hamshoot.dynamics.sweeps.stationarity` of a gradient, taken at W."""
        return stationarity(self.problem, self.steps, W, gradient)

    # -- the map and the sum -----------------------------------------------------------------------

    def _map(self, kind: str, W: NDArray, V: NDArray | None = None, seed: int = 0) -> list[Any]:
        problem, sigma, real = self.problem, self.activation, self.dtype.type
        constants = real(sigma.epsilon**2 / 4), real(sigma.negative_slope)
        numbers = (self.steps.astype(self.dtype), real(problem.effective_depth), sigma.code,
                   constants, self._Q)
        task = _Task(kind, self._stamp, self._cast(W), None if V is None else self._cast(V),
                     numbers, real(2 / problem.n_samples), seed)
        return self._run(task, V is not None or kind == "factors")

    def _point(self) -> NDArray:
        """The controls taken last by `linearise` or `expand`."""
        assert self._W is not None
        return self._W

    def _cast(self, W: NDArray) -> NDArray:
        if np.shape(W) != self.shape:  # the kernels check no bounds
            raise ValueError(f"W: expected shape {self.shape}, got {np.shape(W)}")
        return np.ascontiguousarray(W, dtype=self.dtype)

    def _product(self, kind: str, V: NDArray) -> NDArray:
        if self._W is None:
            raise ValueError("V: products need a point first; call linearise or expand")
        return self._decayed(self._map(kind, self._W, V)[1], V)[0]

    def _share(self) -> float:
        return self.problem.weight_decay / self.problem.effective_depth

    def _loss(self, parts: list[Any]) -> float:
        return float(parts[0]) / self.problem.n_samples

    def _decay(self, W: NDArray) -> float:
        squares = np.sum(np.square(W, dtype=float), axis=(1, 2))
        return 0.5 * self._share() * float(self.steps @ squares)

    def _with_decay(self, parts: list[Any], W: NDArray) -> tuple[float, NDArray]:
        gradient, decay = self._decayed(parts[1], W)
        return self._loss(parts) + decay, gradient

    def _decayed(self, total: NDArray, W: NDArray) -> tuple[NDArray, float]:
        """The sum over the blocks with the weight decay's part, in double precision; its value."""
        from hamshoot.dynamics import _block_kernels as kernels

        out = np.empty(self.shape)
        W = np.ascontiguousarray(W, dtype=None if np.asarray(W).dtype == self.dtype else float)
        return out, kernels.add_decay(total, W, self.steps, self._share(), out)


def block_size(problem: TrainingProblem) -> int:
    """Samples in a block; a function of the problem alone, so that the sums always are the same."""
    N = problem.n_samples
    count = min(-(-N * problem.width // BLOCK_NUMBERS), -(-N // LEAST_BLOCK))
    if count > 1:
        count = 4 * -(-count // 4)
    return -(-N // count)


def _shards(problem: TrainingProblem, T: int, dtype: np.dtype, keep: bool) -> list[Shard]:
    """Blocks of at most T samples, in at most SHARDS shards."""
    N = problem.n_samples
    cuts = np.linspace(0, N, -(-N // T) + 1).astype(int).tolist()
    blocks = list(pairwise(cuts))
    hold = 8 * problem.width * N <= mapped.MEMORY_BYTES
    shards: list[Shard] = []
    most = SHARDS if len(blocks) < MANY_BLOCKS else MANY_SHARDS
    for index, group in enumerate(np.array_split(np.arange(len(blocks)), min(len(blocks), most))):
        mine = [blocks[i] for i in group]
        first, last = mine[0][0], mine[-1][1]
        ready = None
        if problem.in_memory:
            ready = [(np.ascontiguousarray(A0, dtype=dtype), np.ascontiguousarray(Y, dtype=dtype))
                     for A0, Y in (problem.block(a, b) for a, b in mine)]
        shards.append(Shard(problem.samples(first, last), [(a - first, b - first) for a, b in mine],
                            ready, index, dtype, keep, hold, most == SHARDS))
    return shards


@contextmanager
def threads(problem: TrainingProblem) -> Iterator[Executor]:
    """An executor over as many threads as BLAS would use, with BLAS held to one each.

    A problem of one block gets the plain loop.
    """
    load_blas()
    count = max([lib["num_threads"] for lib in threadpool_info()
                 if lib.get("user_api") == "blas"], default=1)
    with threadpool_limits(limits=1, user_api="blas"):
        if count == 1 or problem.n_samples <= block_size(problem):
            yield _Serial()
        else:
            with ThreadPoolExecutor(count) as pool:
                yield pool
