"""Panels of predictions show what the network predicts, in the user's units."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from problems import teacher

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study import prediction_panels as panels
from hamshoot.study.plot import figure, plot_confusion, plot_predictions
from hamshoot.study.plot import panels as all_panels


def solved(problem, seed=0, layers=4, **options):
    weights = np.random.default_rng(seed).standard_normal((layers, *problem.control_shape))
    return solution_from_weights(problem, weights, np.full(layers, 1 / layers), method="given",
                                 status=hs.Status.MAX_ITER, success=False, **options)


def numbers(outputs=1, rows=20, held_out=5, **options):
    """A problem of a table whose targets are far from standardised."""
    rng = np.random.default_rng(1)
    X, X_test = rng.standard_normal((rows, 2)), rng.standard_normal((held_out, 2))
    Y, Y_test = (1000 + 50 * x @ np.ones((2, outputs)) * np.arange(1, outputs + 1)
                 for x in (X, X_test))
    test = dict(X_test=X_test, Y_test=Y_test) if held_out else {}
    names = [f"price {k}" for k in range(outputs)]
    return hs.TrainingProblem(X, Y, effective_depth=2.0, weight_decay=0.1, width=3,
                              standardize=True, target_names=names, **test, **options)


def classes(count=3, rows=30, held_out=9):
    rng = np.random.default_rng(2)
    X, X_test = rng.standard_normal((rows, 2)), rng.standard_normal((held_out, 2))
    Y, Y_test = (np.eye(count)[np.arange(len(x)) % count] for x in (X, X_test))
    test = dict(X_test=X_test, Y_test=Y_test) if held_out else {}
    return hs.TrainingProblem(X, Y, effective_depth=2.0, weight_decay=0.1, width=max(3, count),
                              classes=[f"class number {k}" for k in range(count)], **test)


def test_points_are_true_and_predicted_values_in_the_user_s_units():
    problem = numbers()
    solution = solved(problem)
    ax = plot_predictions(solution)
    network = solution.to_network()
    for line, X, Y in zip(ax.lines[:2], (problem.X, problem.X_test), (problem.Y, problem.Y_test),
                          strict=True):
        np.testing.assert_array_equal(line.get_xdata(), Y[:, 0])
        np.testing.assert_array_equal(line.get_ydata(), network.predict(X)[:, 0])
    diagonal = ax.lines[2]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert ax.get_xlim() == ax.get_ylim()
    assert "price 0" in ax.get_xlabel()
    low, high = ax.get_xlim()
    assert all(low < v < high for line in ax.lines[:2] for v in line.get_xydata().ravel())


def test_several_targets_are_drawn_in_deviations_or_one_by_name():
    problem = numbers(outputs=2)
    solution = solved(problem)
    ax = plot_predictions(solution)
    scaled = (problem.Y - problem.Y.mean(axis=0)) / problem.Y.std(axis=0)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), scaled.ravel(), atol=1e-12)
    assert "standard deviations" in ax.get_xlabel()
    for target in ("price 1", 1):
        np.testing.assert_array_equal(
            plot_predictions(solution, target=target).lines[0].get_xdata(), problem.Y[:, 1])
    for target in ("cost", 2, -1):
        with pytest.raises(ValueError, match="target: expected one of price 0, price 1"):
            plot_predictions(solution, target=target)


def test_many_rows_are_drawn_in_part(monkeypatch):
    monkeypatch.setattr(panels, "MOST_ROWS", 7)
    problem = numbers(held_out=0)
    ax = plot_predictions(solved(problem))
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), problem.Y[::3, 0])
    assert "20 rows" in ax.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize("held_out", [0, 9])
def test_the_confusion_counts_rows_by_true_and_predicted_class(held_out):
    problem = classes(held_out=held_out)
    solution = solved(problem)
    network = solution.to_network()
    X, Y = (problem.X_test, problem.Y_test) if held_out else (problem.X, problem.Y)
    counts = panels.confusion(network, X, Y)
    predicted, labels = network.predict_class(X), np.array(problem.classes)
    for i, true in enumerate(labels):
        for k, found in enumerate(labels):
            rows = (labels[np.argmax(Y, axis=1)] == true) & (predicted == found)
            assert counts[i, k] == rows.sum()
    ax = plot_confusion(solution)
    assert [text.get_text() for text in ax.texts] == [str(v) for v in counts.ravel()]
    assert f"{network.accuracy(X, Y):.1%} of {len(X)} rows" in ax.get_title()
    shares = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shares * counts.sum(axis=1, keepdims=True), counts, atol=1e-12)


def test_many_classes_have_no_numbers_and_no_more_labels_than_fit():
    ax = plot_confusion(solved(classes(count=45, rows=90, held_out=0)))
    assert not ax.texts
    assert 10 <= len(ax.get_xticks()) <= 20


def test_figures_have_the_panel_that_fits():
    assert "confusion" in all_panels(solved(classes()))
    assert "predictions" in all_panels(solved(numbers()))
    problem = teacher(dims=(3, 2, 3), samples=5, width=3)
    problem = problem.replace(Y=None, X_test=None, Y_test=None, endpoint=np.ones((3, 5)))
    hard = solved(problem, terminal=np.ones((3, 5)))
    assert not {"confusion", "predictions"} & set(all_panels(hard))
    with pytest.raises(ValueError, match="hard endpoint"):
        plot_predictions(hard)
    with pytest.raises(ValueError, match="with classes; plot_predictions draws"):
        plot_confusion(solved(numbers()))


@pytest.mark.parametrize("problem", [numbers(), numbers(outputs=3, held_out=0), classes()])
def test_nothing_overlaps_in_the_figure_of_a_solution(problem):
    fig = figure(solved(problem))
    fig.draw_without_rendering()
    boxes = []
    for ax in fig.axes:
        boxes.append(ax.get_window_extent())
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
        boxes += [t.get_window_extent() for t in texts if t.get_text()]
        if ax.get_legend():
            boxes.append(ax.get_legend().get_window_extent())
    for k, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[k + 1 :])
    page = fig.bbox
    assert all(page.x0 - 1 <= b.x0 < b.x1 <= page.x1 + 1 for b in boxes)


def test_the_axes_given_are_drawn_into():
    for draw, problem in ((plot_predictions, numbers()), (plot_confusion, classes())):
        ax = Figure().subplots()
        assert draw(solved(problem), ax=ax) is ax
