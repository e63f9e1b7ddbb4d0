"""What the slider moves are the samples and the singular values, to the last decimal written."""

import re

import numpy as np
import pytest
from pages import Reader, drawn

import hamshoot as hs
from hamshoot.report.drawing import Drawings
from hamshoot.report.walk import SAMPLES, SHARE, Walk, chosen_samples, walk_section
from hamshoot.support.html import written


def panels(solutions, shown=()):
    """The page's part, read."""
    return Reader(written(walk_section(solutions, shown, Drawings())))


def lines_of(read):
    """Points of the samples, (samples, K, 2)."""
    return np.array([[[float(x) for x in pair.split(",")] for pair in a["points"].split()]
                     for a in read.with_class("way")])


def test_distances_on_the_plane_are_those_of_the_components():
    solution = drawn(samples=10)
    points = lines_of(panels({"": solution}))
    samples, _ = chosen_samples(solution.problem)
    A = solution.representations
    columns = np.concatenate(list(A), axis=1)
    share = np.gradient(solution.p) / np.gradient(solution.p).sum() / A.shape[2]
    mean = np.sum(share[:, None] * A.sum(axis=2), axis=0)
    centred = (columns - mean[:, None]) * np.sqrt(np.repeat(share, A.shape[2]))
    components = np.linalg.svd(centred)[0][:, :2]
    true = np.einsum("wa,kwn->nka", components, A[:, :, samples])
    ours, theirs = (np.linalg.norm(np.diff(x, axis=1), axis=2) for x in (points, true))
    scale = ours.sum() / theirs.sum()
    np.testing.assert_allclose(ours, scale * theirs, atol=0.15)  # a decimal is written
    assert ours.max() > 20


def test_all_points_are_inside_their_drawing():
    read = panels({"a": drawn(seed=0), "b": drawn(seed=5)}, {"a"})
    points = lines_of(read)
    width, height = (float(x) for x in read.with_class("plane")[0]["viewbox"].split()[2:])
    assert points.min() >= 0
    assert points[..., 0].max() <= width
    assert points[..., 1].max() <= height


def test_bars_are_singular_values_on_a_logarithmic_scale():
    solution = drawn(samples=10)
    read = panels({"": solution})
    heights = [[float(x) for x in a["data-h"].split()] for a in read.with_class("bar")]
    width = solution.problem.width
    for values, bars in ((np.linalg.svd(solution.representations, compute_uv=False),
                          np.array(heights[:width]).T),
                         (np.linalg.svd(solution.weights, compute_uv=False),
                          np.array(heights[width:]).T)):
        assert bars.shape == values.shape
        tall = bars.max()
        shares = SHARE ** (1 - bars / tall)
        seen = values > 2 * SHARE * values.max()
        np.testing.assert_allclose(shares[seen], (values / values.max())[seen], rtol=0.02)
        assert tall == pytest.approx(92, abs=0.1)


def test_depths_layers_and_counts_are_told():
    solution = drawn()
    (panel,) = panels({"": solution}).with_class("walk")
    np.testing.assert_allclose([float(x) for x in panel["data-p"].split()], solution.p, atol=6e-5)
    assert panel["data-layers"] == "6"
    values = np.linalg.svd(solution.representations, compute_uv=False)
    assert [int(x) for x in panel["data-counts"].split()] == list(
        np.sum(values > 0.01 * values[:, :1], axis=1))


def test_before_any_script_the_samples_are_at_the_end():
    read = panels({"": drawn()})
    ends = [(float(a["cx"]), float(a["cy"])) for a in read.with_class("here")]
    np.testing.assert_array_equal(ends, lines_of(read)[:, -1])
    assert "hidden" in read.with_class("controls")[0]  # what needs the script shows with it


def test_many_layers_are_shown_at_fewer_depths():
    walked = Walk.of(drawn(layers=150))
    assert len(walked.p) == 81
    assert walked.states.shape[0] == 81


def test_samples_are_spread_over_classes_and_over_targets():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    common = dict(effective_depth=2.0, weight_decay=1e-2, width=4)
    problem = hs.TrainingProblem(rng.standard_normal((100, 2)), np.eye(3)[labels],
                                 classes=("a", "b", "c"), **common)
    samples, bins = chosen_samples(problem)
    assert len(set(samples)) == SAMPLES
    np.testing.assert_array_equal(bins, labels[samples])
    assert set(bins) == {0, 1, 2}
    values = rng.standard_normal(100)
    samples, bins = chosen_samples(
        hs.TrainingProblem(rng.standard_normal((100, 2)), values[:, None], **common))
    ranks = np.argsort(np.argsort(values))[samples]
    np.testing.assert_array_equal(bins, ranks // 20)
    assert {0, 4} <= set(bins)


def test_samples_are_named_for_those_who_point_at_them():
    titles = panels({"": drawn(samples=7)}).texts["title"]
    assert sorted(t for t in titles if re.match(r"sample \d", t)) == [
        f"sample {k}" for k in range(1, 8)]
