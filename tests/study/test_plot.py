"""Figures show the numbers they claim to show, and nothing lies on top of anything."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from problems import between, teacher

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study import comparison_panels, path_panels, plot
from hamshoot.theory.closed_forms import one_sample_path

NAMES = ("optimal control", "gradient descent", "optimal control from descent", "adaptive steps")


def drawn(layers=10, width=4, samples=12, seed=0, history=5, scale=1.0, **kwargs):
    """A layered solution near the identity; its numbers are what the figures must show."""
    problem = teacher(dims=(4, 2, 4), samples=samples, width=width, **kwargs)
    rng = np.random.default_rng(seed)
    weights = np.zeros((layers, *problem.control_shape))
    weights[:, :, :width] = 3 * np.eye(width) + rng.standard_normal((width, width))
    weights = scale * (weights + 0.3 * rng.standard_normal(weights.shape))
    steps = rng.uniform(1, 1.4, layers)
    solution = solution_from_weights(
        problem, weights, steps / steps.sum(), status=hs.Status.MAX_ITER, success=False,
        method="drawn", seconds=2.0,
    )
    records = [
        hs.Record(k + 1, solution.objective + 0.5 * (k % 3) + 2.0**-k, 1.0, 0.1 + 0.3 * k)
        for k in range(history)
    ]
    return solution.replace(history=tuple(records))


def several(count, **kwargs):
    """Rows of different size, the largest first."""
    return {name: drawn(seed=k, scale=1.4 - 0.3 * k, **kwargs)
            for k, name in enumerate(NAMES[:count])}


def geodesic():
    """One sample turning: energies and singular values of this path are constant."""
    p = np.linspace(0, 1, 30)
    path = one_sample_path(p, [1.0, 0.2], [0.2, 1.0], 3.0)
    problem = between([1.0, 0.2], path.representations[-1], effective_depth=3.0, weight_decay=0.01)
    return hs.Solution(
        problem=problem, p=p, representations=path.representations, momenta=path.momenta,
        weights=path.weights, objective=0.01 * path.cost, loss=0.0, parameter_norm=6 * path.cost,
        success=True, status=hs.Status.CONVERGED, message="", nit=0, residuals={}, history=(),
        seconds=0.0, method="closed form", integrator="flow",
    )


def long_lines(ax):
    """Lines of data: neither the strokes of the layers nor single markers."""
    return [line for line in ax.lines
            if line.get_label() != "_layers" and len(line.get_xdata()) > 1]


# -- what is drawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "width"), [(10, 4), (40, 4), (10, 100)])
@pytest.mark.parametrize("of", ["representations", "weights"])
def test_lines_of_spectra_are_the_singular_values(of, layers, width):
    solution = drawn(layers, width)
    ax = plot.plot_spectra(solution, of)
    matrices = getattr(solution, of)
    middle = np.cumsum(solution.steps) - solution.steps / 2
    p = solution.p if of == "representations" else middle
    values = np.linalg.svd(matrices, compute_uv=False)
    lines = long_lines(ax)
    assert len(lines) == values.shape[1]
    for k, line in enumerate(lines):
        np.testing.assert_allclose(line.get_xdata(), p, atol=1e-12)
        np.testing.assert_allclose(line.get_ydata(), values[:, k], rtol=1e-9, atol=1e-9)
    assert ax.get_legend() is None
    shades = [sum(to_rgb(line.get_color())) for line in lines]
    assert all(a < b for a, b in itertools.pairwise(shades)), "the largest is the darkest"
    low, high = ax.get_ylim()
    assert low <= max(values.min(), 1e-4 * values.max())
    assert high >= values.max()


@pytest.mark.parametrize("colour", [None, "#009E73"])
def test_lines_of_energies_are_the_energies(colour):
    solution = drawn()
    energies = solution.energies(1e-2)
    ax = plot.plot_energies(solution, gamma0=1e-2, colour=colour)
    lines = {line.get_label(): line for line in long_lines(ax)}
    for label, values in {
        "Hamiltonian $H$": solution.hamiltonian, "kinetic energy": energies.kinetic,
        r"potential $-\tilde{L}\,\mathrm{COI}/2$": -1.5 * energies.cost_of_identity,
        "kinetic, stable": energies.stable_kinetic,
        "potential, stable": -1.5 * energies.stable_cost_of_identity,
    }.items():
        np.testing.assert_allclose(lines[label].get_ydata(), values, rtol=1e-9)
        np.testing.assert_allclose(lines[label].get_xdata(), solution.p[:-1])
    low, high = ax.get_ylim()
    for label in ("Hamiltonian $H$", "kinetic, stable", "potential, stable"):
        values = lines[label].get_ydata()
        assert low <= values.min() <= values.max() <= high
    looks = {(to_hex(line.get_color()), line.get_linestyle(), line.get_linewidth())
             for line in lines.values()}
    assert len(looks) == 5


@pytest.mark.parametrize("size", [1e1, 1e3, 1e7, 1e12])
def test_all_curves_of_energies_stay_inside_their_frame(size):
    """However far the plain energies run where K_p is nearly singular."""
    solution = drawn()
    kept = solution.energies(1e-3)
    wild = kept.kinetic.copy()
    wild[[2, 5]] = size * np.abs(kept.hamiltonian).max()
    energies = kept._replace(kinetic=wild, potential=kept.hamiltonian - wild)
    ax = Figure().subplots()
    ax.plot(energies.p, energies.kinetic, label="kinetic energy")
    ax.plot(energies.p, energies.potential, label="potential")
    path_panels.view_energies([ax], [energies], 3.0)
    low, high = ax.get_ylim()
    values = np.concatenate([line.get_ydata() for line in ax.lines])
    shown = values[np.isfinite(values)]
    assert low <= shown.min()
    assert shown.max() <= high
    # Far beyond the rest they have gaps, and the panel says so; else all is drawn.
    assert (len(shown) == len(values)) == (size < path_panels.REACH)
    told = [text.get_text()[:4] for text in ax.texts]
    assert told == ([] if size < path_panels.REACH else ["gaps"])
    assert 3 <= len([t for t in ax.get_yticks() if low <= t <= high]) <= 12


def test_constant_energies_have_a_view():
    solution = geodesic()
    ax = plot.plot_energies(solution)
    low, high = ax.get_ylim()
    H = solution.hamiltonian[0]
    assert np.ptp(solution.hamiltonian) < 1e-9
    assert low < H < high
    assert high - low > 0.1 * abs(H)


def test_convergence_ends_at_the_solution():
    solutions = several(2)
    ax = plot.plot_convergence(solutions)
    best = min(s.objective for s in solutions.values())
    for name, solution in solutions.items():
        line = next(line for line in ax.lines if line.get_label() == name)
        x, y = line.get_data()
        assert x[-1] == solution.seconds
        assert len(x) == len(solution.history) + 1
        assert np.all(np.diff(y) <= 0)
        expected = max(solution.objective - best, 1e-6 * best)
        assert y[-1] == pytest.approx(expected, rel=1e-9)
        # The first record lies 1 above the end, by construction.
        assert y[0] == pytest.approx(solution.objective + 1 - best, rel=1e-9)
    assert ax.get_yscale() == "log"


def test_records_of_a_smoothed_stage_do_not_undercut_the_solution():
    solution = drawn()
    early = hs.Record(1, 0.5 * solution.objective, 1.0, 0.05, "epsilon 0.1")
    solution = solution.replace(history=(early, *solution.history))
    better = solution.replace(objective=0.8 * solution.objective)
    ax = plot.plot_convergence({"a": solution, "b": better})
    line = next(line for line in ax.lines if line.get_label() == "a")
    np.testing.assert_allclose(line.get_ydata(), 0.2 * solution.objective, rtol=1e-9)


@pytest.mark.parametrize("history", [0, 1])
def test_a_history_of_one_record_is_drawn(history):
    ax = plot.plot_convergence(drawn(history=history))
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert dots[0].get_xdata()[0] == 2.0
    low, high = ax.get_ylim()
    assert low <= dots[0].get_ydata()[0] < high


def test_paths_are_projected_on_common_components():
    solutions = several(2)
    ax = plot.plot_paths(solutions, samples=[0, 5])
    lines = [line for line in long_lines(ax) if len(line.get_xdata()) == 11]
    assert len(lines) == 4
    drawn_points = np.array([line.get_xydata() for line in lines])
    states = np.array([s.representations[:, :, j] for s in solutions.values() for j in (0, 5)])
    # An orthogonal projection: no distance grows, and all lines use the same linear map.
    apart = np.linalg.norm(states - states[:1, :1], axis=2)
    assert np.all(np.linalg.norm(drawn_points - drawn_points[:1, :1], axis=2) <= apart + 1e-9)
    flat_states = states.reshape(-1, states.shape[-1])
    design = np.column_stack([flat_states, np.ones(len(flat_states))])
    flat_points = drawn_points.reshape(-1, 2)
    fit = np.linalg.lstsq(design, flat_points, rcond=None)[0]
    np.testing.assert_allclose(design @ fit, flat_points, atol=1e-9)
    np.testing.assert_allclose(fit[:-1].T @ fit[:-1], np.eye(2), atol=1e-9)
    # Samples start where both networks do.
    np.testing.assert_allclose(drawn_points[0, 0], drawn_points[2, 0], atol=1e-9)


def test_components_carry_the_most_variance():
    """With equal steps and one solution they are the textbook principal components."""
    solution = drawn()
    centre, directions, shares = comparison_panels.common_components({"a": solution})
    weight = np.gradient(solution.p) / np.gradient(solution.p).sum() / 12
    columns = np.concatenate(list(solution.representations), axis=1)
    weight = np.repeat(weight, 12)
    mean = columns @ weight
    spread = (columns - mean[:, None]) * np.sqrt(weight)
    u, s, _ = np.linalg.svd(spread, full_matrices=False)
    np.testing.assert_allclose(centre, mean, atol=1e-12)
    np.testing.assert_allclose(np.abs(directions @ u[:, :2]), np.eye(2), atol=1e-8)
    np.testing.assert_allclose(shares, s[:2] ** 2 / np.sum(s**2), rtol=1e-9)


def test_one_neuron_has_a_path_too():
    problem = hs.TrainingProblem([[1.0], [2.0]], [[2.0], [3.0]], effective_depth=2.0,
                                 weight_decay=0.1, width=1)
    solution = solution_from_weights(
        problem, np.full((1, 1, 2), 2.0).repeat(5, axis=0), np.full(5, 0.2),
        status=hs.Status.MAX_ITER, success=False, method="drawn",
    )
    line = long_lines(plot.plot_paths(solution, samples=[1]))[0]
    np.testing.assert_allclose(line.get_xdata(), solution.p)
    np.testing.assert_allclose(line.get_ydata(), solution.representations[:, 0, 1])


# -- colours, axes, legends ------------------------------------------------------------------------


def test_colours_are_distinct_and_in_a_fixed_order():
    palette = plot.colours(NAMES)
    assert list(palette.values()) == ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
    assert plot.colours(NAMES[:2]) == {k: palette[k] for k in NAMES[:2]}
    assert len(set(plot.colours(map(str, range(8))).values())) == 8


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_row_has_one_colour_in_all_panels(count):
    solutions = several(count)
    fig = plot.plot_comparison(solutions)
    palette, axes = plot.colours(solutions), fig.axes
    assert len(axes) == 3 * count + 2
    for column, name in enumerate(solutions):
        for row in range(3):
            first = long_lines(axes[row * count + column])[0]
            assert to_hex(first.get_color()) == palette[name].lower()
        for ax in axes[-2:]:
            line = next(line for line in ax.lines if line.get_label() == name)
            assert to_hex(line.get_color()) == palette[name].lower()
    for row in range(3):
        views = {ax.get_ylim() for ax in axes[row * count : (row + 1) * count]}
        assert len(views) == 1
        low, high = views.pop()
        largest = max(long_lines(ax)[0].get_ydata().max() for ax in
                      axes[row * count : (row + 1) * count])
        assert low < largest < high


def test_comparisons_take_rows_with_names():
    rows = [type("Row", (), dict(name=k, solution=v)) for k, v in several(2).items()]
    titles = [ax.get_title() for ax in plot.plot_comparison(rows).axes[:2]]
    assert titles == list(NAMES[:2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.plot_energies(drawn()).figure,
        lambda: plot.plot_convergence(several(4)).figure,
        lambda: plot.plot_paths(several(4)).figure,
        lambda: plot.figure(drawn()),
        lambda: plot.figure(geodesic()),
        lambda: plot.plot_comparison(several(2, layers=40)),
        lambda: plot.plot_comparison(several(4)),
    ],
    ids=["energies", "convergence", "paths", "figure", "geodesic", "two rows", "four rows"],
)
def test_legends_titles_and_labels_overlap_nothing(draw):
    fig = draw()
    fig.draw_without_rendering()
    page = fig.bbox
    axes = [ax.get_window_extent() for ax in fig.axes]
    boxes = []
    for ax in fig.axes:
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label]
        boxes += [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
        if ax.get_legend():
            boxes.append(ax.get_legend().get_window_extent())
    for box in boxes:
        assert not any(box.overlaps(area) for area in axes)
        assert page.x0 - 1 <= box.x0 < box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0 < box.y1 <= page.y1 + 1
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(a.overlaps(b) for a, b in itertools.combinations(axes, 2))


@pytest.mark.parametrize(
    "draw", [plot.plot_spectra, plot.plot_energies, plot.plot_convergence, plot.plot_paths]
)
def test_the_axes_given_are_the_axes_returned(draw):
    ax = Figure().subplots()
    assert draw(drawn(), ax=ax) is ax
    assert ax.lines


def test_panels_are_drawn_when_called():
    panels = plot.panels(drawn())
    assert set(panels) == {"spectra_representations", "spectra_weights", "energies", "convergence",
                           "paths", "predictions", "running_cost"}
    figures = {name: draw() for name, draw in panels.items()}
    labels = {name: fig.axes[0].get_ylabel() for name, fig in figures.items()}
    assert len(set(labels.values())) == 7


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys, numpy as np, hamshoot as hs\n"
        "from hamshoot.study import plot; from hamshoot.solution import evaluate\n"
        "assert not any(m.startswith('matplotlib') for m in sys.modules)\n"
        "p = hs.TrainingProblem(np.eye(2), np.eye(2), effective_depth=2., weight_decay=.1,"
        " width=2)\n"
        "s = evaluate.solution_from_weights(p, np.ones((5, 2, 3)), np.full(5, .2),"
        " status=hs.Status.MAX_ITER, success=False, method='m')\n"
        "plot.figure(s).savefig(__import__('io').BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"),
                                               ("svg", b"<?xml")])
def test_figures_are_saved_by_suffix_and_reproducibly(tmp_path, suffix, magic):
    solution = drawn()
    paths = [plot.save_figure(plot.figure(solution), tmp_path / f"{k}.{suffix}") for k in "ab"]
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(magic)
    assert first == second


def test_figures_are_saved_whole_or_not_at_all(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"before")
    broken = plot.figure(drawn())
    broken.axes[0].set_title("$\\nonsense{$")  # fails in the middle of drawing
    with pytest.raises(ValueError, match="nonsense"):
        plot.save_figure(broken, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda s: plot.plot_spectra(s, "momenta"), "of: expected one of representations, weights"),
        (lambda s: plot.plot_paths(s, samples=0), "samples: expected at least 1"),
        (lambda s: plot.plot_paths(s, samples=[12]), "samples: expected indices 0 to 11, got 12"),
        (lambda s: plot.plot_paths({"a": s, "b": drawn(samples=9)}), "one width and number"),
        (lambda s: plot.plot_comparison({}), "at least one"),
        (lambda s: plot.save_figure(plot.figure(s), "figure.bmp"), "path: expected a name ending"),
    ],
)
def test_bad_input_is_one_sentence(call, names):
    with pytest.raises(ValueError, match=names) as caught:
        call(drawn())
    assert "\n" not in str(caught.value)
