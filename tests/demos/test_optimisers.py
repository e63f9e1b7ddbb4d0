"""The benchmark of optimisers: each is what its name says, and profiles count what they should."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from problems import teacher
from scipy.optimize import rosen, rosen_der

from hamshoot.methods.common.starts import starting_weights

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"
LAYERS = 6
problem = partial(teacher, effective_depth=2.0, weight_decay=2e-3, seed=0)


@pytest.fixture
def peers(monkeypatch):
    return imported(monkeypatch, "peers")


@pytest.fixture
def optimisers(monkeypatch):
    imported(monkeypatch, "peers")
    return imported(monkeypatch, "optimisers")


def imported(monkeypatch, name):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__(name)


@pytest.fixture
def setting(peers):
    return peers.Setting(problem(), LAYERS)


def start(setting):
    return starting_weights(setting.problem, setting.steps, "path", 0)


# -- updates against other copies of them ------------------------------------------------------


def test_muon_is_that_of_torch_up_to_its_half_precision(peers, setting):
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("a torch without Muon")
    W, epochs, rate = start(setting), 20, 0.03
    layers = [torch.nn.Parameter(torch.tensor(x.copy())) for x in W]
    optimizer = torch.optim.Muon(layers, lr=rate, weight_decay=0.0)
    for _ in range(epochs):
        _, G = setting.sweeps.gradient(np.array([x.detach().numpy() for x in layers]))
        for x, g in zip(layers, G, strict=True):
            x.grad = torch.tensor(g.copy())
        optimizer.step()
    loop = peers.Loop("muon", setting, W, rate)
    assert loop.advance(np.full(epochs, rate))
    theirs = np.array([x.detach().numpy() for x in layers])
    # torch orthogonalises in bfloat16, of eight bits.
    assert np.linalg.norm(loop.W - theirs) < 0.03 * np.linalg.norm(theirs - W)


def soap_in_numpy(setting, W, rates, beta=0.95):
    """Algorithm 3 of the paper, one layer after the other, written for reading."""
    W = W.copy()
    states = [dict(m=np.zeros_like(x), v=np.zeros_like(x), L=0.0, R=0.0) for x in W]
    for t, rate in enumerate(rates):
        gradients = setting.sweeps.gradient(W)[1].copy()
        for x, g, s in zip(W, gradients, states, strict=True):
            if t:
                s["m"] = beta * s["m"] + (1 - beta) * g
                turned = s["QL"].T @ g @ s["QR"]
                s["v"] = beta * s["v"] + (1 - beta) * turned**2
                correction = 1 - beta**t
                step = s["QL"].T @ s["m"] @ s["QR"] / correction
                step /= np.sqrt(s["v"] / correction) + 1e-8
                x -= rate * s["QL"] @ step @ s["QR"].T
            s["L"], s["R"] = (beta * s["L"] + (1 - beta) * g @ g.T,
                              beta * s["R"] + (1 - beta) * g.T @ g)
            if t == 0:
                s["QL"], s["QR"] = np.linalg.eigh(s["L"])[1], np.linalg.eigh(s["R"])[1]
            elif t % 10 == 0:
                for factor, basis, axis in (("L", "QL", 0), ("R", "QR", 1)):
                    size = np.diag(s[basis].T @ s[factor] @ s[basis])
                    order = np.argsort(-size)
                    s["v"] = np.take(s["v"], order, axis)
                    s[basis] = np.linalg.qr(s[factor] @ s[basis][:, order])[0]
    return W


def test_soap_is_its_paper_s_algorithm(peers, setting):
    # Not longer: what of the right factor is zero but for rounding turns as rounding says.
    W, rates = start(setting), np.full(15, 0.01)
    loop = peers.Loop("soap", setting, W, 0.01)
    assert loop.advance(rates)
    expected = soap_in_numpy(setting, W, rates)
    assert np.linalg.norm(expected - W) > 0.1
    np.testing.assert_allclose(loop.W, expected, atol=1e-3 * np.linalg.norm(expected - W))


def test_plain_msa_takes_the_control_that_maximises_the_hamiltonian(peers, setting):
    W = start(setting)
    loop = peers.Loop("msa", setting, W, 1.0)
    assert loop.advance(np.ones(1))
    setting.sweeps.gradient(W)
    B, S = setting.sweeps.momenta, setting.sweeps.arguments[-6]
    expected = setting.problem.effective_depth * B @ S.transpose(0, 2, 1)
    np.testing.assert_allclose(loop.W, expected, rtol=1e-9, atol=1e-9)


def test_extended_msa_maximises_the_augmented_hamiltonian(peers, setting):
    W, penalty, p = start(setting), 3.0, setting.problem
    loop = peers.Loop("extended msa", setting, W, penalty)
    assert loop.advance(np.ones(1))
    setting.sweeps.gradient(W)
    B, S = setting.sweeps.momenta, setting.sweeps.arguments[-6]
    mu = penalty * 2 / (p.n_samples * p.weight_decay)
    St = S.transpose(0, 2, 1)
    slope = B @ St - loop.W / p.effective_depth - mu * (loop.W - W) @ S @ St
    assert np.abs(slope).max() < 1e-8 * np.abs(B @ St).max()


def test_diverged_runs_end(peers, setting):
    assert not peers.Loop("msa", setting, 1e9 * start(setting), 1.0).advance(np.ones(3))


@pytest.mark.parametrize("scaled", [False, True])
def test_bfgs_finds_minima(peers, scaled):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 12))
    hessian = root @ root.T + np.eye(12)
    for value, least in ((lambda v: (0.5 * v @ hessian @ v, hessian @ v), np.zeros(12)),
                         (lambda v: (rosen(v), rosen_der(v)), np.ones(12))):
        ends = []
        peers.bfgs_run(value, 2 + 0.1 * rng.standard_normal(12), scaled, ends.append)
        assert min(ends) < 1e-12, least


def test_gauss_newton_by_cg_ends_at_the_minimum_of_a_quadratic(peers, monkeypatch):
    hessian_free = imported(monkeypatch, "hessian_free")
    p = problem(activation="linear")
    one = peers.Setting(p, 1)
    A0, Y = p.block(0, p.n_samples)
    S = np.vstack([A0, np.ones(p.n_samples)])  # A_1 = (1 − L̃)A_0 + WS: ridge regression
    c = p.weight_decay / p.effective_depth * p.n_samples / 2
    Q = p.readout
    Y = Y - (1 - p.effective_depth) * Q @ A0
    system = np.kron(Q.T @ Q, S @ S.T) + c * np.eye(Q.shape[1] * len(S))
    exact = np.linalg.solve(system, (Q.T @ Y @ S.T).ravel()).reshape(one.sweeps.shape)
    for iterations, power in hessian_free.CG_SETTINGS:
        method = hessian_free.GaussNewton(one, None)
        method.iterations, method.power = iterations, power
        ends = []
        method.run(np.zeros(exact.size), ends.append)
        assert min(ends) == pytest.approx(one.sweeps.objective(exact), rel=1e-9)


# -- time --------------------------------------------------------------------------------------


def test_what_is_found_after_the_limit_does_not_count(peers):
    trace = peers.Trace(1.0)
    trace.note(3.0, 0.5)
    trace.note(2.0, 1.5)
    trace.note(2.5, 0.9)
    trace.note(2.7, 0.95)
    assert trace.points == [(0.5, 3.0), (0.9, 2.5)]
    with pytest.raises(peers.Over):
        peers.Trace(0.0).look(1.0)


@pytest.mark.parametrize("method", ["hamshoot, quick", "L-BFGS", "L-BFGS-B, SciPy", "Adam",
                                    "self-scaled BFGS", "trust-krylov, SciPy",
                                    "Gauss–Newton–CG"])
def test_an_optimiser_keeps_its_seconds(optimisers, monkeypatch, method):
    monkeypatch.setattr(optimisers, "warm", lambda method: None)
    monkeypatch.setattr(optimisers, "problem_of", lambda name: (problem(), LAYERS))
    for limit in (1.0, 4.0, 16.0):  # how long a run takes is the machine's affair
        row = optimisers.measured("any 0", method, limit)
        assert 0 < row["objective"] < np.inf
        assert row["trace"][-1][0] <= limit
        if row["runs"] > 1:
            break
    assert row["runs"] > 1
    assert [t for t, _ in row["trace"]] == sorted(t for t, _ in row["trace"])
    assert row["trace"][-1][1] == pytest.approx(row["objective"], rel=1e-7)


# -- profiles ----------------------------------------------------------------------------------


def row_of(problem, method, *trace):
    return {"problem": problem, "method": method, "limit": 5.0, "runs": 1, "end": "",
            "objective": trace[-1][1], "trace": [list(point) for point in trace]}


def test_a_problem_is_solved_when_a_trace_comes_near_the_lowest_of_all(optimisers):
    rows = [row_of("a 0", "one", (0.1, 2.0), (0.5, 1.005), (2.0, 1.0)),
            row_of("a 0", "two", (0.2, 1.02)),
            row_of("a 1", "one", (0.3, 3.0)), row_of("a 1", "two", (0.4, 2.0))]
    assert optimisers.solve_times(rows, 1e-2) == {"one": [0.5, np.inf], "two": [np.inf, 0.4]}
    assert optimisers.solve_times(rows, 1e-3) == {"one": [2.0, np.inf], "two": [np.inf, 0.4]}


def test_only_problems_that_all_have_finished_are_gathered(optimisers, monkeypatch, tmp_path):
    monkeypatch.setattr(optimisers, "PARTS", tmp_path)
    monkeypatch.setattr(optimisers, "methods_of", lambda size: ["one", "two"])
    monkeypatch.setattr(optimisers, "measured", lambda problem, method, seconds: dict(
        row_of(problem, method, (0.1, 1.0)), limit=seconds))
    names = optimisers.names_of("small", 2)
    for name, method in ((names[0], "one"), (names[0], "two"), (names[1], "one")):
        assert optimisers.do("small", name, method, 5.0)
    assert optimisers.do("small", names[0], "one", 5.0) == ""
    assert [row["problem"] for row in optimisers.gathered("small", 5.0)] == [names[0]] * 2
    assert optimisers.gathered("small", 3.0) == []


def test_a_thinned_trace_keeps_its_end(optimisers):
    points = [(0.1, 1.0), (0.2, 0.99999), (0.3, 0.5), (0.4, 0.49999999)]
    assert optimisers.thinned(points) == [[0.1, 1.0], [0.3, 0.5], [0.4, 0.49999999]]


def test_a_shortened_trace_has_the_same_profile(optimisers):
    rng = np.random.default_rng(0)
    rows = [row_of("a 0", str(k), *zip(np.sort(rng.uniform(0, 5, 300)),
                                       1 + np.sort(rng.exponential(0.5, 300))[::-1] ** 3,
                                       strict=True)) for k in range(5)]
    lowest = min(row["objective"] for row in rows)
    short = [dict(row, trace=optimisers.shortened(row["trace"], lowest)) for row in rows]
    assert max(len(row["trace"]) for row in short) < 40
    for tolerance in optimisers.TOLERANCES:
        assert optimisers.solve_times(short, tolerance) == optimisers.solve_times(rows, tolerance)


def test_the_first_few_problems_are_of_all_kinds(optimisers):
    assert [name.split()[0] for name in optimisers.names_of("small", 3)] == list(
        optimisers.TEACHERS)
    assert len(set(optimisers.names_of("small", 60))) == 60
    problem, layers = optimisers.problem_of(optimisers.names_of("small", 1)[0])
    assert (problem.width, problem.n_samples, layers) == (6, 30, 20)
    assert problem.weight_decay == pytest.approx(7e-3)


# -- what is committed -------------------------------------------------------------------------


def committed():
    return json.loads((BENCHMARKS / "optimisers.json").read_text(encoding="utf-8"))


def test_the_committed_sentences_are_those_of_the_committed_numbers(optimisers):
    record = committed()
    for size, run in record["runs"].items():
        rows = [row for row in record["rows"] if row["size"] == size]
        assert record["findings"][size] == optimisers.findings(size, rows)
        assert run["problems"] == len(optimisers.by_problem(rows)) == len(run["seeds"])
        for tolerance in ("1e-2", "1e-3"):
            assert (BENCHMARKS / f"optimisers_{size}_{tolerance}.png").exists()


def test_the_committed_page_is_that_of_the_committed_numbers(optimisers):
    page = (BENCHMARKS / "optimisers.md").read_text(encoding="utf-8")
    assert page == "\n".join(optimisers.page(committed()))
