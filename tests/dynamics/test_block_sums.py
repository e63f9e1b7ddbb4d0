"""Sums in one order: of any partition into runs of neighbours, to the last bit."""

import numpy as np
import pytest

from hamshoot.dynamics.block_sums import Node, branches, total


def _leaves(count, seed=0):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-8, 8, count)
    return [(float(s), s * rng.standard_normal((3, 2))) for s in scale]


def _nodes(leaves):
    return [Node(0, k, [number, array.copy()]) for k, (number, array) in enumerate(leaves)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 23])
def test_any_partition_has_the_same_sum(count):
    leaves = _leaves(count)
    whole = total(_nodes(leaves))
    np.testing.assert_allclose(whole[1], sum(array for _, array in leaves), rtol=1e-12)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cuts = np.sort(rng.integers(0, count + 1, rng.integers(0, 6)))
        nodes = [node for part in np.split(np.arange(count), cuts)
                 for node in branches([_nodes(leaves)[k] for k in part])]
        parts = total(nodes)
        assert parts[0] == whole[0]
        np.testing.assert_array_equal(parts[1], whole[1])


def test_a_run_of_neighbours_sends_few_nodes():
    leaves = _leaves(64)
    for a in range(64):
        for b in range(a + 1, 65):
            nodes = branches(_nodes(leaves)[a:b])
            assert len(nodes) <= 2 * 6
            covered = [k for n in nodes for k in range(n.number << n.level,
                                                       (n.number + 1) << n.level)]
            assert covered == list(range(a, b))
    assert len(branches(_nodes(leaves)[32:])) == 1


def test_arrays_that_may_not_be_written_to_are_added_too():
    nodes = _nodes(_leaves(4))
    for node in nodes:
        node.parts[1].flags.writeable = False
    before = nodes[0].parts[1].copy()
    np.testing.assert_array_equal(total(nodes)[1], total(_nodes(_leaves(4)))[1])
    np.testing.assert_array_equal(nodes[0].parts[1], before)
