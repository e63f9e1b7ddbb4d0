"""Where things stand in the vectors of the program: x, g and p, block by block.

With w neurons, N samples, L layers, c = w + 1 columns of a control (w without bias), and every
matrix column by column, one column after the other::

    x      W_1 (w, c) | A_1 (w, N) | W_2 | A_2 | … | W_L | A_L
    g      defect 1 (w, N) | … | defect L          | endpoint (w, N)     the last of a hard endpoint
    p      λ | L̃ | ε | ρ_1 … ρ_L | A_0 (w, N) | Y (d_out, N) | Q (d_out, w)
                                            or | A_1 (w, N) of a hard endpoint in place of Y and Q

A learned lift P (w, d_in), and then a learned readout Q, stand at the end of x; p has X (d_in, N)
in place of A_0 for the former, no Q for the latter, and at its end μ of each that is learned::

    x      … | W_L | A_L | P | Q
    p      λ | L̃ | ε | ρ_1 … ρ_L | X (d_in, N) | Y (d_out, N) | s (1, N) of samples | μ_P | μ_Q
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hamshoot.methods.multiple_shooting.nlp import MultipleShootingNLP


class Block(NamedTuple):
    """A matrix within a vector, column by column.

    Attributes
    ----------
    name : str
        As "W_3", "A_3", "defect 3", "endpoint", "lambda", "Q".
    layer : int
        1 … L; 0 for what belongs to none.
    start, stop : int
        ``vector[start:stop].reshape(shape, order="F")`` is the matrix.
    shape : tuple of int
    """

    name: str
    layer: int
    start: int
    stop: int
    shape: tuple[int, ...]


def variable_blocks(nlp: MultipleShootingNLP) -> tuple[Block, ...]:
    """The blocks of x."""
    node, control = (nlp.width, nlp.samples), (nlp.width, nlp.columns)
    maps = {"P": (nlp.width, nlp.inputs), "Q": (nlp.outputs, nlp.width)}
    return _stacked([*((f"{name}_{k}", k, shape) for k in range(1, nlp.layers + 1)
                       for name, shape in (("W", control), ("A", node))),
                     *((name, 0, maps[name]) for name in nlp.learned)])


def constraint_blocks(nlp: MultipleShootingNLP) -> tuple[Block, ...]:
    """The blocks of g, and of lam_g."""
    node = (nlp.width, nlp.samples)
    defects = [(f"defect {k}", k, node) for k in range(1, nlp.layers + 1)]
    ends = [("endpoint", nlp.layers, node)] if nlp.hard_endpoint else []
    return _stacked([*defects, *ends])


def parameter_blocks(nlp: MultipleShootingNLP) -> tuple[Block, ...]:
    """The blocks of p, and of lam_p."""
    node, out = (nlp.width, nlp.samples), nlp.outputs
    data: list[tuple[str, int, tuple[int, ...]]] = [("A_1", 0, node)] if nlp.hard_endpoint else \
        [("Y", 0, (out, nlp.samples)), ("Q", 0, (out, nlp.width))]
    if "Q" in nlp.learned:
        del data[1]
    if nlp.weighted:
        data.append(("s", 0, (1, nlp.samples)))
    data += [(f"mu_{name}", 0, (1,)) for name in nlp.learned]
    first = ("X", 0, (nlp.inputs, nlp.samples)) if "P" in nlp.learned else ("A_0", 0, node)
    return _stacked([("lambda", 0, (1,)), ("effective_depth", 0, (1,)), ("epsilon", 0, (1,)),
                     ("rho", 0, (nlp.layers,)), first, *data])


def _stacked(parts: Iterable[tuple[str, int, tuple[int, ...]]]) -> tuple[Block, ...]:
    blocks, start = [], 0
    for name, layer, shape in parts:
        size = 1
        for side in shape:
            size *= side
        blocks.append(Block(name, layer, start, start + size, shape))
        start += size
    return tuple(blocks)
