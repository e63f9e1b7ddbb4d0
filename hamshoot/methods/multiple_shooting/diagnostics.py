"""What the program of direct multiple shooting looks like, and where a solution violates it.

Sparsity: the Jacobian of the constraints and the Hessian of the Lagrangian in the order of x
(`hamshoot.methods.multiple_shooting.layout`), and the KKT matrix with unknowns and multipliers of a
layer side by side, W_ℓ, λ_ℓ, A_ℓ, in which it is a band.

Residuals: with f = J/λ, the constraints g and lam_g = −B (IPOPT's order of the defects), the
gradient of f + lam_gᵀg is, block by block,

    W_ℓ   (ρ_ℓ/L̃)(W_ℓ − L̃ B_ℓ σ̂(A_{ℓ−1})ᵀ)                         stationarity
    A_ℓ   B_ℓ − (1 − ρ_{ℓ+1}L̃) B_{ℓ+1} − ρ_{ℓ+1} σ′ ⊙ (W_{ℓ+1}ᵀ B_{ℓ+1})    costate; A_L: B_1

and g itself are the defects. All three are evaluated by CasADi, whose derivatives are automatic.
Where an activation of ReLU is on its kink σ′ may be any number in [0, 1], of a leaky one in [α, 1],
and the residual is the distance from what these allow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hamshoot.methods.multiple_shooting.layout import (
    Block,
    constraint_blocks,
    variable_blocks,
)
from hamshoot.solution.status import Status
from hamshoot.theory import layers as discrete

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hamshoot.methods.multiple_shooting.nlp import MultipleShootingNLP
    from hamshoot.problem.training_problem import TrainingProblem
    from hamshoot.solution.solution import Solution

#: Entries this close to 0, relative to the largest (or 1), are on the kink, as for certificates.
ON_KINK = 1e-9
#: Residuals that `str` lists.
LISTED = 6


@dataclass(frozen=True, eq=False)
class Structure:
    """Where a sparse matrix of the program may differ from 0.

    Attributes
    ----------
    name : {"jacobian", "hessian", "kkt"}
    shape : tuple of int
    rows, columns : ndarray of int, shape (nonzeros,)
    row_blocks, column_blocks : tuple of Block
        Which matrices the rows and the columns belong to, with their layers.
    """

    name: str
    shape: tuple[int, int]
    rows: NDArray
    columns: NDArray
    row_blocks: tuple[Block, ...]
    column_blocks: tuple[Block, ...]

    @property
    def nonzeros(self) -> int:
        """Entries that may differ from 0; of a symmetric matrix both halves."""
        return len(self.rows)

    @property
    def density(self) -> float:
        """Their share of all entries."""
        return self.nonzeros / (self.shape[0] * self.shape[1])

    @property
    def bandwidth(self) -> tuple[int, int]:
        """Largest distance below and above the diagonal."""
        apart = self.rows - self.columns
        return int(apart.max(initial=0)), int((-apart).max(initial=0))

    @cached_property
    def block_nonzeros(self) -> dict[tuple[str, str], int]:
        """Nonzeros by names of row block and column block; pairs with none are left out."""
        row = _owners(self.row_blocks, self.rows)
        column = _owners(self.column_blocks, self.columns)
        counts = Counter(zip(row.tolist(), column.tolist(), strict=True))
        return {(self.row_blocks[i].name, self.column_blocks[j].name): count
                for (i, j), count in sorted(counts.items())}

    @property
    def reach(self) -> int:
        """How many layers apart row and column of a nonzero are at most."""
        layers = [np.array([block.layer for block in blocks])[_owners(blocks, entries)]
                  for blocks, entries in ((self.row_blocks, self.rows),
                                          (self.column_blocks, self.columns))]
        return int(np.abs(layers[0] - layers[1]).max(initial=0))

    def to_scipy(self) -> Any:
        """The pattern as a `scipy.sparse.csr_array` of ones."""
        from scipy.sparse import csr_array

        return csr_array((np.ones(self.nonzeros), (self.rows, self.columns)), shape=self.shape)


class BlockResidual(NamedTuple):
    """How far one block of the KKT conditions is from 0.

    Attributes
    ----------
    name : str
        Of the block: "W_3", "A_3", "defect 3" or "endpoint".
    layer : int
    kind : {"stationarity", "costate", "defect", "endpoint"}
    norm : float
        ‖·‖_F of the block as it stands in the program.
    relative : float
        Of W_ℓ ‖W_ℓ − L̃Bσ̂ᵀ‖_F / max(1, ‖W_ℓ‖_F), whose largest is the stationarity of a solution;
        else ‖·‖_F against that of B_ℓ, A_ℓ or the endpoint, or 1.
    largest : float
        Of the entries, with its sign.
    entry : tuple of int
        Where: neuron and column, the sample but for W.
    """

    name: str
    layer: int
    kind: str
    norm: float
    relative: float
    largest: float
    entry: tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Diagnostics:
    """The program of a problem, and of a solution where its KKT conditions stand.

    Attributes
    ----------
    problem : TrainingProblem
    layers : int
    integrator : str
    epsilon : float
        Of the activation of the program; 0 for ReLU and linear networks themselves.
    jacobian, hessian, kkt : Structure
        ∂g/∂x, ∂²(f + lam_gᵀg)/∂x², and both in the KKT matrix in the order of the layers.
    residuals : tuple of BlockResidual
        Of a solution: W_1, A_1, defect 1, W_2, …; empty without one.
    costates : ndarray, shape (L, w, N), or None
        B_ℓ = −(1/λ) ∂C/∂A_ℓ at the nodes 1 … L: lam_g = −B by IPOPT and sqpmethod, +B by fatrop,
        for which the program has the defects the other way round.
    kinks : int
        Entries taken to be on the kink.
    sign : float
        lam_g = sign·B.
    """

    problem: TrainingProblem
    layers: int
    integrator: str
    epsilon: float
    jacobian: Structure
    hessian: Structure
    kkt: Structure
    residuals: tuple[BlockResidual, ...] = ()
    costates: NDArray | None = field(default=None)
    kinks: int = 0
    sign: float = -1.0

    def worst(self, count: int = LISTED) -> list[BlockResidual]:
        """The blocks of largest relative residual, NaN first."""
        return sorted(self.residuals, reverse=True, key=lambda one: (
            np.isnan(one.relative), one.relative))[:count]

    def __repr__(self) -> str:
        lines = [f"Program of {self.problem!r}, {self.layers} layers, {self.integrator}",
                 "  matrix    shape           nonzeros  density  bandwidth  layers apart"]
        for one in (self.jacobian, self.hessian, self.kkt):
            shape, band = "{} × {}".format(*one.shape), "{}, {}".format(*one.bandwidth)
            lines.append(f"  {one.name:<9} {shape:<15} {one.nonzeros:<9} {one.density:<8.2%} "
                         f"{band:<10} {one.reach}")
        if self.costates is not None:
            lines.append(f"  costates  B = −(1/λ) ∂C/∂A, so that lam_g = "
                         f"{'−' if self.sign < 0 else '+'}B; the largest |B| is "
                         f"{np.abs(self.costates).max():.4g}"
                         + (f"; {self.kinks} entries on the kink" if self.kinks else ""))
            lines.append("  KKT       block        relative  largest entry")
            lines += [f"  {'':<9} {one.name:<12} {one.relative:<9.1e} {one.largest:+.1e} of "
                      f"{one.kind} at {one.entry}" for one in self.worst()]
        return "\n".join(lines)


def diagnostics_of(
    nlp: MultipleShootingNLP, problem: TrainingProblem, integrator: str, steps: NDArray,
    solution: Solution | None = None,
) -> Diagnostics:
    """Look at a program, and at a solution on its layers.

    Patterns cost what CasADi takes to propagate them, some seconds for 10⁵ variables; the residuals
    one evaluation.
    """
    epsilon = problem.sigma.epsilon
    if solution is not None and solution.status is Status.SMOOTHED:
        epsilon = solution.residuals.get("epsilon", epsilon)
    jacobian, hessian = _jacobian(nlp), _hessian(nlp)
    found: dict[str, Any] = {"sign": nlp.sign}
    if solution is not None:
        A, B = _states(solution, problem, integrator, steps, epsilon)
        residuals, kinks = _residuals(nlp, problem, integrator, steps, epsilon, A, B,
                                      solution.weights)
        found |= {"residuals": residuals, "costates": B[1:], "kinks": kinks}
    return Diagnostics(problem, nlp.layers, integrator, epsilon, jacobian, hessian,
                       _kkt(nlp, jacobian, hessian), **found)


# -- patterns --------------------------------------------------------------------------------------


def _jacobian(nlp: MultipleShootingNLP) -> Structure:
    rows, columns = nlp.program.jac_sparsity(1, 0).get_triplet()
    return _structure("jacobian", constraint_blocks(nlp), variable_blocks(nlp), rows, columns)


def _hessian(nlp: MultipleShootingNLP) -> Structure:
    rows, columns = nlp.lagrangian.jac_sparsity(0, 0).get_triplet()
    return _structure("hessian", variable_blocks(nlp), variable_blocks(nlp), rows, columns)


def _structure(name: str, row_blocks: tuple[Block, ...], column_blocks: tuple[Block, ...],
               rows: Any, columns: Any) -> Structure:
    return Structure(name, (row_blocks[-1].stop, column_blocks[-1].stop), np.asarray(rows, int),
                     np.asarray(columns, int), row_blocks, column_blocks)


def _kkt(nlp: MultipleShootingNLP, jacobian: Structure, hessian: Structure) -> Structure:
    """[H Jᵀ; J 0] with the multipliers of a layer between its control and its node."""
    variables, constraints = variable_blocks(nlp), constraint_blocks(nlp)
    order = {"P": 0, "Q": 1, "W": 0, "d": 1, "A": 2, "e": 3}
    blocks = sorted([(block.layer, order[block.name[0]], offset, block)
                     for offset, group in ((0, variables), (variables[-1].stop, constraints))
                     for block in group], key=lambda item: item[:2])
    place, placed, start = np.empty(variables[-1].stop + constraints[-1].stop, int), [], 0
    for _, _, offset, block in blocks:
        size = block.stop - block.start
        place[offset + block.start : offset + block.stop] = np.arange(start, start + size)
        name = block.name if offset == 0 else f"multiplier of {block.name}"
        placed.append(block._replace(name=name, start=start, stop=start + size))
        start += size
    below = jacobian.rows + variables[-1].stop
    rows = place[np.concatenate([hessian.rows, below, jacobian.columns])]
    columns = place[np.concatenate([hessian.columns, jacobian.columns, below])]
    return _structure("kkt", tuple(placed), tuple(placed), rows, columns)


def _owners(blocks: tuple[Block, ...], entries: NDArray) -> NDArray:
    """Index of the block that each entry of a vector lies in."""
    return np.searchsorted([block.stop for block in blocks], entries, side="right")


# -- residuals -------------------------------------------------------------------------------------


def _states(solution: Solution, problem: TrainingProblem, integrator: str, steps: NDArray,
            epsilon: float) -> tuple[NDArray, NDArray]:
    """States and costates as stored; of a smoothed network those of the smooth one, computed."""
    if solution.status is not Status.SMOOTHED or not problem.sigma.kinked or epsilon == 0:
        return solution.representations, solution.momenta
    smooth = problem.replace(activation=problem.sigma.smoothed(epsilon))
    A = discrete.roll_out(smooth, solution.weights, steps, integrator)
    end = solution.momenta[-1] if problem.hard_endpoint else None
    return A, discrete.costates(smooth, A, solution.weights, steps, integrator, end)[0]


def _residuals(
    nlp: MultipleShootingNLP, problem: TrainingProblem, integrator: str, steps: NDArray,
    epsilon: float, A: NDArray, B: NDArray, W: NDArray,
) -> tuple[tuple[BlockResidual, ...], int]:
    """All blocks in the order of the layers, and how many entries are on the kink."""
    gradient, g = (np.asarray(part.full()).ravel() for part in nlp.lagrangian(
        nlp.pack(W, A, problem.lift, problem.readout), nlp.parameters(problem, steps, epsilon),
        1.0, nlp.multipliers(B)))
    parts = {block.name: vector[block.start : block.stop].reshape(block.shape, order="F")
             for blocks, vector in ((variable_blocks(nlp), gradient), (constraint_blocks(nlp), g))
             for block in blocks}
    kinks = 0
    if problem.sigma.kinked and epsilon == 0 and integrator == "euler":
        kinks = _within_slopes(problem, steps, A, B, W, parts)
        if "P" in parts and problem.lift_decay:  # by the slopes that B_0 was computed with
            parts["P"] = problem.lift_decay / problem.weight_decay * problem.lift \
                - B[0] @ problem.scaled_inputs.T
    found = []
    for k in range(1, nlp.layers + 1):
        scale = problem.effective_depth / steps[k - 1]
        found += [_block(f"W_{k}", k, "stationarity", parts, scale, W[k - 1]),
                  _block(f"A_{k}", k, "costate", parts, 1.0, B[k]),
                  _block(f"defect {k}", k, "defect", parts, 1.0, A[k])]
    for name, mu, M in (("P", problem.lift_decay, problem.lift),
                        ("Q", problem.readout_decay, problem.readout)):
        if mu is not None:
            found.append(_block(name, 0, "stationarity", parts, problem.weight_decay / mu, M))
    if problem.endpoint is not None:
        found.append(_block("endpoint", nlp.layers, "endpoint", parts, 1.0, problem.endpoint))
    return tuple(found), kinks


def _within_slopes(problem: TrainingProblem, steps: NDArray, A: NDArray, B: NDArray, W: NDArray,
                   parts: dict[str, NDArray]) -> int:
    """Of entries on the kink put the distance from all slopes in place of the residual of one."""
    kink, count = ON_KINK * max(1.0, float(np.abs(A).max())), 0
    force = discrete.pulled(W, steps, B)
    for k in range(1, len(W)):
        on = np.abs(A[k]) <= kink
        passed = B[k] - (1 - steps[k] * problem.effective_depth) * B[k + 1]
        least = problem.sigma.negative_slope * force[k]
        allowed = np.clip(passed, np.minimum(force[k], least), np.maximum(force[k], least))
        parts[f"A_{k}"] = np.where(on, passed - allowed, parts[f"A_{k}"])
        count += int(on.sum())
    return count


def _block(name: str, layer: int, kind: str, parts: dict[str, NDArray], scale: float,
           size: NDArray) -> BlockResidual:
    part = parts[name]
    norm = float(np.linalg.norm(part))
    at = np.unravel_index(np.argmax(np.abs(part)), part.shape)
    return BlockResidual(name, layer, kind, norm,
                         float(scale * norm) / max(1.0, float(np.linalg.norm(size))),
                         float(part[at]), (int(at[0]), int(at[1])))
