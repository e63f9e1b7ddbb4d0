"""Natural mistakes of a newcomer, one sentence each: what was given, and what to write."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.solution.evaluate import solution_from_weights
from hamshoot.study.compare import Comparison, Row

MAKE = r"hs\.TrainingProblem\(X, Y, effective_depth=…"


@cache
def names():
    """What a session has by the time of the mistake."""
    X = np.random.default_rng(0).standard_normal((6, 3))
    problem = hs.TrainingProblem(X, X[:, :1], effective_depth=2.0, weight_decay=0.1, width=3,
                                 activation="linear")
    solution = solution_from_weights(problem, np.zeros((5, 3, 4)), np.full(5, 0.2), method="given",
                                     status=hs.Status.STALLED, success=False)
    return dict(
        hs=hs, X=X, Y=X[:, :1], problem=problem, solution=solution,
        network=solution.to_network(), method=hs.DirectMultipleShooting(layers=5),
        comparison=Comparison(problem, (Row("first", solution), Row("second", solution))),
        options=dict(effective_depth=2.0, weight_decay=0.1, width=3))


CASES = [
    ("hs.solve(X, Y)", rf"solve: expected a TrainingProblem, got an array.*{MAKE}"),
    ("hs.solve(X.tolist())", MAKE),
    ("hs.solve('train.csv')", r"got 'train\.csv'; read the file first.*from_csv"),
    ("hs.solve(None)", "expected a TrainingProblem, got None"),
    ("hs.solve(solution)", r"write hs\.solve\(solution\.problem, initial_guess=solution\)"),
    ("hs.solve(network)", r"hs\.solve\(problem, initial_guess=network\)"),
    ("hs.solve(comparison)", r"write hs\.solve\(comparison\.problem\)"),
    ("hs.solve(hs.TrainingProblem)", "got the class TrainingProblem itself"),
    ("hs.solve(problem, 20)", "a number of layers is written layers=20"),
    ("hs.solve(problem, hs.IndirectShooting)", r"write hs\.IndirectShooting\(\)"),
    ("hs.solve(problem, hs.Adam())", r"gradient descent is hs\.train"),
    ("hs.solve(problem, solution)", "a guess is written initial_guess=…"),
    ("hs.solve(problem, 'adam')", "expected one of auto, indirect, .*got 'adam'"),
    ("hs.solve(problem, layer=10)", r"layer: .*did you mean layers\?"),
    ("hs.solve(problem, layers=[5, 10])", r"layers: expected an integer >= 1, got \[5, 10\]"),
    ("hs.solve(problem, initial_guess=problem)", "initial_guess: .*got a TrainingProblem"),
    ("hs.solve(problem, initial_guess='s.npz')", r"load it first: hs\.Solution\.load"),
    ("hs.solve(problem, layers=5, callback=5)", "callback: expected a function.*got 5"),
    ("hs.solve(problem, method, tol=1e-6)", "tol: give options to the method object"),
    ("method.solve(X, Y)", MAKE),
    ("method.build(solution)", "expected a TrainingProblem, got a Solution"),
    ("method.diagnostics(problem, problem)", "diagnose: expected a Solution, got a Training"),
    ("hs.DirectSingleShooting(layers=5).solve(X)", MAKE),
    ("hs.IndirectShooting().solve(X)", MAKE),
    ("hs.certify(problem)", r"solve it first: hs\.certify\(hs\.solve\(problem\)\)"),
    ("hs.certify(comparison)", r"choose a row: hs\.certify\(comparison\.best\.solution\)"),
    ("hs.certify([solution, solution])", "one at a time"),
    ("hs.certify('s.npz')", r"load it first: hs\.certify\(hs\.Solution\.load\(path\)\)"),
    ("hs.diagnose(problem)", r"solve it first: hs\.diagnose"),
    ("hs.plot(comparison)", r"hs\.plot\.plot_comparison\(comparison\), got hs\.plot\(a Comp"),
    ("hs.plot(solution)", r"hs\.plot\.figure\(solution\)"),
    ("hs.plot.figure(comparison)", r"choose a row: hs\.plot\.figure\(comparison\.best\.solution"),
    ("hs.plot.plot_comparison([solution, solution])", "mapping of name to Solution, {'first': …"),
    ("hs.plot.plot_comparison(solution, solution)", "several solutions as one mapping"),
    ("hs.plot.plot_comparison({'a': problem})", "expected a Solution, got a TrainingProblem"),
    ("hs.plot.plot_paths(problem)", "got a TrainingProblem; solve it first"),
    ("hs.plot.plot_convergence(5)", "mapping of name to Solution, got 5"),
    ("hs.plot.plot_spectra(comparison)", "choose a row"),
    ("hs.plot.plot_energies(problem)", "solve it first"),
    ("hs.plot.plot_predictions(problem)", "solve it first"),
    ("hs.plot.save_figure(solution, 'a.png')", r"save_figure: expected a Figure, got a Solution"),
    ("hs.compare(solution)", r"write hs\.compare\(solution\.problem\)"),
    ("hs.compare(solution, solution)", r"write hs\.compare\(solution\.problem\)"),
    ("hs.compare(X, Y)", MAKE),
    ("hs.compare(problem, solution)", r"hs\.plot\.plot_comparison\({'first'"),
    ("hs.compare(problem, [method])", "a method is written method=…"),
    ("hs.compare(problem, 'single_shooting')", "a method is written method=…"),
    ("hs.compare(problem, 5, optimizer='adam')", r"expected Adam.*got 'adam'"),
    ("hs.train(X, Y)", rf"train: .*{MAKE}"),
    ("hs.train(problem, optimizer=hs.Adam)", "got the class Adam itself"),
    ("hs.validate(X, Y)", rf"validate: .*{MAKE}"),
    ("hs.validate(solution)", r"write hs\.validate\(solution\.problem\)"),
    ("hs.TrainingProblem('data.csv', **options)", "read the file with TrainingProblem.from_csv"),
    ("hs.TrainingProblem(X, 'price', **options)", r"take the column: frame\['price'\]"),
    ("hs.teacher_problem(6)", r"dims: expected at least two integers >= 1, as \(6, 2, 6\), got 6"),
    ("solution.save()", r"save: expected the name of a file.*got none"),
    ("solution.save('')", "save: expected the name of a file"),
    ("solution.save(problem)", "save: expected the name of a file.*got TrainingProblem"),
    ("solution.save('nowhere/s.npz')", "No such directory: 'nowhere'"),
    ("solution.predict(X)", r"see solution\.to_network\(\)\.predict\(X\)"),
    ("solution.plot()", r"see hs\.plot\.figure\(solution\)"),
    ("solution.J", r"see solution\.objective"),
    ("network.predict(problem)", "X: expected numbers in a 2-D array, got TrainingProblem"),
    ("network.polish(X)", "problem: expected a TrainingProblem"),
    ("hs.LeakyResNet.from_solution(problem)", "from_solution: expected a Solution"),
    ("hs.LeakyResNet.from_weights(X, solution.weights)", "from_weights: expected a TrainingPro"),
    ("hs.fit(problem)", r"did you mean hs\.solve\?"),
    ("hs.load('s.npz')", r"did you mean hs\.Solution\.load\?"),
    ("hs.sovle(problem)", r"did you mean hs\.solve\?"),
]


@pytest.mark.parametrize(("call", "says"), CASES, ids=[call for call, _ in CASES])
def test_a_mistake_gets_one_sentence(call, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError, AttributeError, FileNotFoundError),
                       match=says) as error:
        eval(call, dict(names()))
    words = str(error.value)
    assert "\n" not in words
    assert len(words) < 330
    assert list(tmp_path.iterdir()) == []


def test_tables_are_told_of_by_their_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": [1.0, 2.0], "city": ["Bern", "Basel"], "price": [3.0, 4.0]})
    options = names()["options"]
    with pytest.raises(TypeError, match=r"got a DataFrame of shape \(2, 3\); take its columns"):
        hs.solve(frame)
    with pytest.raises(ValueError, match=r"a DataFrame of shape.*with words in city; leave them"):
        hs.TrainingProblem(frame, frame["price"], **options)
    good = hs.TrainingProblem(frame[["size"]], frame["price"], **options)
    np.testing.assert_array_equal(good.X, [[1.0], [2.0]])


def test_what_looks_like_a_mistake_and_is_none_goes_through():
    """A comparison may be drawn as it is, and methods of one's own solve."""
    drawn = hs.plot.plot_comparison(names()["comparison"])
    assert [ax.get_title() for ax in drawn.axes[:2]] == ["first", "second"]
    own = SimpleNamespace(solve=lambda problem, initial_guess, callback: names()["solution"])
    assert hs.solve(names()["problem"], own) is names()["solution"]
