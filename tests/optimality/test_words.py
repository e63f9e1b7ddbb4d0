"""A certificate in words says what its numbers say, for and against."""

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from problems import teacher

import hamshoot as hs
from hamshoot.optimality import second_order_layers, second_order_path
from hamshoot.optimality.words import VERDICTS, headline, in_words
from hamshoot.solution.evaluate import solution_from_weights


@cache
def trained():
    """A network that is stationary nowhere."""
    problem = teacher()
    rng = np.random.default_rng(0)
    weights = 0.3 * rng.standard_normal((5, *problem.control_shape))
    weights[:, :, :problem.width] += 2.5 * np.eye(problem.width)
    return solution_from_weights(problem, weights, np.full(5, 0.2), status=hs.Status.TRAINED,
                                 success=True, method="test")


@cache
def solved():
    return hs.solve(teacher(samples=6, width=3, dims=(3, 1, 3)), layers=5)


def said(certificate):
    """Sentences by what they are about."""
    return {one.about: one for one in in_words(certificate.to_dict())}


def test_a_minimum_is_called_one():
    certificate = hs.certify(solved())
    assert certificate.holds
    words = said(certificate)
    count = len(certificate.bounds)
    assert headline(certificate.to_dict()) == f"Certified: all {count} checks hold."
    assert words["Checks"].verdict is words["First order"].verdict is True
    assert f"{certificate.stationarity:.1e}" in words["First order"].text
    assert f"J = {certificate.objective:.8g}" in words["Objective"].text
    assert words["Second order"].text.endswith(f"{certificate.second_order}.")
    assert words["Second order"].verdict is (
        True if certificate.second_order.startswith("strict local minimum") else None)


def test_a_trained_network_is_called_not_stationary():
    certificate = hs.certify(trained())
    words = said(certificate)
    assert words["First order"].verdict is False
    assert "not stationary" in words["First order"].text
    assert words["Checks"].verdict is False
    assert certificate.reasons[0] in words["Checks"].text
    assert headline(certificate.to_dict()) == f"Not certified: {certificate.reasons[0]}."


def test_what_was_tampered_with_is_named():
    certificate = hs.certify(trained().replace(objective=1.0))
    failed = certificate.failures
    assert [b.name for b in failed] == ["recorded against recomputed objective"]
    text = said(certificate)["Checks"].text
    assert text.startswith(f"1 of {len(certificate.bounds)} checks fail ({failed[0].name}); ")


@pytest.mark.parametrize(("value", "verdict", "words"), [
    (3e-14, True, "stationary to rounding"), (5e-9, True, "to the tolerance of 1e-06"),
    (3e-3, False, "near a stationary point, and not at one"), (1.4, False, "not stationary")])
def test_the_size_of_a_stationarity_is_put_into_words(value, verdict, words):
    sentence = said(replace(hs.certify(trained()), stationarity=value))["First order"]
    assert words in sentence.text
    assert sentence.verdict is verdict


def test_every_verdict_of_the_tests_has_its_words():
    openings = {opening for opening, _ in VERDICTS}
    quoted = set()
    for module in (second_order_layers.SecondOrder, second_order_path.PathSecondOrder):
        text = re.search(r"begins with (.*?)\.", module.__doc__, flags=re.DOTALL)[1]
        quoted |= set(re.findall(r'"([^"]+)"', text))
    assert quoted == openings


@pytest.mark.parametrize(("verdict", "good"), [
    ("strict local minimum of the network (proved): smallest eigenvalue 1.0e-03", True),
    ("saddle of the network: smallest eigenvalue -1.0e-03", False),
    ("concave kink: 2 activations on a kink at which J falls to first order", False),
    ("descent found: switching a dead neuron on couples 2 times the weight decay", False),
    ("no descent found in 20 tries", None), ("not decided: 5000 controls", None)])
def test_only_a_minimum_speaks_for_and_only_a_descent_against(verdict, good):
    sentence = said(replace(hs.certify(trained()), second_order=verdict))["Second order"]
    assert sentence.verdict is good
    assert verdict in sentence.text


def test_a_test_that_was_not_asked_for_is_not_called_undecided():
    text = said(hs.certify(trained(), second_order=False))["Second order"].text
    assert text == "Whether the point is a minimum was not asked."


def test_kinks_are_counted():
    certificate = replace(hs.certify(trained()), kinks=3, idle_kinks=1)
    text = said(certificate)["Kinks"].text
    assert text.startswith("3 activations lie exactly on the kink")
    assert "1 of them" in text
    assert "Kinks" not in said(replace(certificate, kinks=0))


def test_activations_that_miss_the_kink_are_told_where_the_network_is_not_stationary():
    certificate = replace(hs.certify(trained()), near_kinks=7)
    assert said(certificate)["Near kinks"].text.startswith("7 activations are within 1e-5")
    assert "Near kinks" not in said(replace(certificate, stationarity=1e-9))


def test_numbers_that_are_not_finite_are_called_so():
    broken = trained()
    broken = broken.replace(weights=np.full_like(broken.weights, np.nan))
    with np.errstate(all="ignore"):
        words = said(hs.certify(broken))
    for about in ("Objective", "First order", "Hamiltonian"):
        assert "not a finite number" in words[about].text
        assert words[about].verdict is False


def test_a_certificate_kept_as_json_reads_the_same():
    kept = json.loads(json.dumps(hs.certify(trained()).to_dict()))
    assert in_words(kept) == in_words(hs.certify(trained()).to_dict())
    assert hs.certify(trained()).in_words() == [one.text for one in in_words(kept)]
