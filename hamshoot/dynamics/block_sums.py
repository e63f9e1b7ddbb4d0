"""Sums over the shards of a problem in one fixed order, whoever computed which part.

Rounding makes a sum depend on its order. The order here is a binary tree over the numbers of the
shards: whoever has several neighbours adds up whole branches, and what is left goes on. The result
is the same to the last bit for any number of threads, processes or hosts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Node(NamedTuple):
    """The sum over shards number·2ᵏ to (number + 1)·2ᵏ, k its level.

    Attributes
    ----------
    level, number : int
    parts : list
        A number, then arrays.
    """

    level: int
    number: int
    parts: list[Any]


def branches(nodes: Iterable[Node]) -> list[Node]:
    """Add up what belongs together: the fewest nodes for those given, in the order of the shards.

    The arrays of a left branch become the sum where they may be written to.
    """
    stack: list[Node] = []
    for node in nodes:
        while stack and node.number % 2 and stack[-1][:2] == (node.level, node.number - 1):
            node = Node(node.level + 1, node.number // 2, _sum(stack.pop().parts, node.parts))
        stack.append(node)
    return stack


def total(nodes: Iterable[Node]) -> list[Any]:
    """Sum of nodes that cover all shards, in their order."""
    stack = branches(nodes)
    parts = stack.pop().parts
    while stack:  # where the number of shards is no power of two
        parts = _sum(stack.pop().parts, parts)
    return parts


def _sum(left: list[Any], right: list[Any]) -> list[Any]:
    out = [left[0] + right[0]]
    for a, b in zip(left[1:], right[1:], strict=True):
        if a.flags.writeable:  # what came from another process may not be
            a += b
        else:
            a = a + b
        out.append(a)
    return out
