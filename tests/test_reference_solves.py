"""The numbers of today: reference solves, and files written by earlier versions."""

from pathlib import Path

import numpy as np
import pytest
import reference_solves

import hamshoot as hs

FILES = Path(__file__).with_name("files")


@pytest.fixture(scope="module")
def kept():
    return reference_solves.kept()


def test_every_reference_solve_is_kept(kept):
    assert list(kept) == list(reference_solves._SOLVES)


@pytest.mark.parametrize("name", reference_solves._SOLVES)
def test_reference_solves(name, kept):
    found = reference_solves.solve_all([name])[name]
    assert reference_solves.differences(name, found, kept[name]) == []


def test_a_difference_is_noticed(kept):
    numbers = kept["multiple_shooting_relu"]
    for field, changed in {"objective": numbers["objective"] * (1 + 1e-5), "status": "STALLED",
                           "hamiltonian": numbers["hamiltonian"] * (1 - 1e-5)}.items():
        other = {**numbers, field: changed}
        assert len(reference_solves.differences("name", other, numbers)) == 1
    assert reference_solves.differences("name", {**numbers, "iterations": 1}, numbers, exact=True)


def test_a_layered_solution_of_an_earlier_version_loads():
    solution = hs.Solution.load(FILES / "layers.npz")
    # As that version had them.
    expected = {"kinks": 20, "objective": 0.1507402766, "hamiltonian": 2.807422673}
    assert solution.status is hs.Status.CONVERGED
    assert solution.layers == 8
    assert solution.kinks == expected["kinks"]
    assert solution.objective == pytest.approx(expected["objective"], rel=1e-6)
    assert np.median(solution.hamiltonian) == pytest.approx(expected["hamiltonian"], rel=1e-6)
    assert solution.to_network().objective(solution.problem) == pytest.approx(
        solution.objective, rel=1e-12)


def test_a_path_of_an_earlier_version_loads(kept):
    solution = hs.Solution.load(FILES / "path.npz")
    assert solution.layers is None
    assert solution.problem.hard_endpoint
    assert np.median(solution.hamiltonian) == pytest.approx(
        kept["closed_form_one_sample"]["hamiltonian"], abs=1e-9)
    np.testing.assert_allclose(solution.at(1.0).representations, solution.problem.endpoint,
                               atol=1e-9)


def test_a_network_of_an_earlier_version_loads(kept):
    network, solution = (kind.load(FILES / f"{name}.npz") for kind, name in
                         ((hs.LeakyResNet, "network"), (hs.Solution, "layers")))
    assert network.objective(solution.problem) == pytest.approx(solution.objective, rel=1e-12)
    np.testing.assert_allclose(network.predict(solution.problem.X),
                               solution.to_network().predict(solution.problem.X), rtol=1e-12)
