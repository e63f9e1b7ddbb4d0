"""The benchmarks of gradient descent: schedules, shared beginnings, pieces that are run once."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from problems import teacher

from hamshoot.methods.common.starts import equidistant_steps, starting_weights
from hamshoot.methods.descent.optimizers import SCHEDULES, schedule_factors

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"


def small(*_):
    """A problem of milliseconds an epoch, whatever is asked for."""
    return teacher(effective_depth=2.0, weight_decay=2e-3, seed=0, lift="orthonormal",
                   readout="orthonormal")


@pytest.fixture
def paper_size(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "paper_size", raising=False)
    import paper_size

    return paper_size


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_share_of_the_run_has_the_factor_of_its_epoch(paper_size, schedule):
    shares = np.arange(50) / 50
    factors = [paper_size.factor(schedule, share) for share in shares]
    np.testing.assert_allclose(factors, schedule_factors(schedule, 50), atol=1e-12)


def test_runs_that_share_their_beginning_are_those_from_the_start(paper_size):
    import torch

    problem, rate = small(), 0.03
    weights = starting_weights(problem, equidistant_steps(8), "path", 0)
    shared = paper_size.holding(problem, weights, rate, 100)
    shared |= paper_size.cosine(problem, weights, rate, 100)
    ends = {}
    for (method, schedule), run in shared.items():
        alone = paper_size.Descent(problem, weights, rate, 100).go(schedule)
        assert (method, run.epoch) == ("adam", 100)
        assert run.last == alone.last
        assert [J for _, J in run.points][-1] == run.last
        ends[schedule] = run.last
    assert len(set(ends.values())) == 3
    network = paper_size.Network(problem, weights)
    optimizer = torch.optim.Adam(network.parameters, lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for _ in range(100):
        optimizer.zero_grad()
        network.objective().backward()
        optimizer.step()
        scheduler.step()
    assert ends["cosine"] == pytest.approx(network.objective().item(), rel=1e-4)


def test_a_tail_goes_on_from_where_adam_ended(paper_size):
    problem = small()
    weights = starting_weights(problem, equidistant_steps(8), "path", 0)
    run = paper_size.Descent(problem, weights, 0.03, 200).go("decay")
    tail = run.fork().tail()
    assert tail.rate in paper_size.TAIL_RATES
    assert tail.epoch == paper_size.TAIL
    assert tail.spent > run.spent
    assert tail.last < run.last
    assert tail.points[: len(run.points)] == run.points


def test_numbers_that_are_not_finite_end_a_run(paper_size):
    problem = small()
    weights = starting_weights(problem, equidistant_steps(8), "path", 0)
    run = paper_size.Descent(problem, weights, 1e30, 400).go("constant")
    assert run.epoch < 400
    assert all(np.isfinite(J) for _, J in run.points)


def test_a_piece_is_run_once_and_kept(paper_size, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paper_size, "RESULTS", tmp_path / "paper_size.json")
    monkeypatch.setattr(paper_size, "problem_of", small)
    monkeypatch.setattr(paper_size, "LAYERS", 4)
    monkeypatch.setattr(paper_size, "RATES", (0.03,))
    for _ in range(2):
        paper_size.tuned(0, "path", ["adam"], finalists=1, pilots=True, again=False)
    assert capsys.readouterr().out.count("...") == 2  # cosine, and what begins at a constant rate
    rows = json.loads((tmp_path / "paper_size.json").read_text())["runs"]
    assert sorted(r["schedule"] for r in rows) == sorted(SCHEDULES)
    assert {(r["method"], r["rate"], r["epochs"]) for r in rows} == {("adam", 0.03, 1000)}
    for schedule in SCHEDULES:
        assert paper_size.best_rates(0, "path", schedule, 2) == [0.03]


def test_the_committed_rows_are_told_apart(paper_size):
    rows = paper_size.load()["runs"]
    assert len({paper_size.key_of(r) for r in rows}) == len(rows) > 0
    assert all(r["schedule"] in SCHEDULES for r in rows if r["method"] in ("adam", "recipe"))


def test_the_baseline_is_never_the_worse_for_its_schedules(capsys):
    rows = json.loads((BENCHMARKS / "baseline.json").read_text(encoding="utf-8"))["rows"]
    assert {(r["problem"], r["epochs"]) for r in rows} >= {("built-in problem", 5000),
                                                           ("built-in problem", 50_000)}
    for row in rows:
        grid, cosine = row["grid"]["objective"], row["cosine"]["objective"]
        assert grid <= cosine * (1 + 1e-12)
        assert min(one["objective"] for one in row.get("in_full", {}).values() or [row["grid"]]
                   ) <= grid * (1 + 1e-12)
    module = runpy.run_path(str(BENCHMARKS / "baseline.py"))
    module["report"](rows)
    printed = capsys.readouterr().out
    first = [r for r in rows if (r["problem"], r["epochs"]) == ("built-in problem", 5000)]
    lower = sum(r["grid"]["objective"] < (1 - 1e-6) * r["cosine"]["objective"] for r in first)
    assert f"The grid ends lower in {lower} of {len(first)}, higher in 0" in printed
