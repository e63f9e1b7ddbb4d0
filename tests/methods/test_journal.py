"""A solve or comparison that is cut short anywhere goes on from its journal, to the same end."""

from functools import partial

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.methods.common import kept
from hamshoot.support.journal import Journal, current, kept_in, key_of

teacher = partial(problems.teacher, samples=8, width=3, effective_depth=2.0, seed=0)
METHODS = {
    "search": (lambda: teacher(), hs.DirectSingleShooting(layers=5, effort="quick")),
    "multiple": (lambda: teacher("linear"), hs.DirectMultipleShooting(layers=4, effort="quick")),
    "levels": (lambda: teacher("smooth_relu", samples=80, width=4),
               hs.DirectSingleShooting(layers=8, optimizer="kronecker")),
    "geodesic": (lambda: teacher("smooth_relu", samples=4, width=2, weight_decay=0.02,
                                 epsilon=0.05),
                 hs.IndirectShooting(segments=20, effort="quick")),
}


#: Methods whose steps are long, and records that a kill may cost: those of walks are kept together.
LONG = {
    "levels": METHODS["levels"],
    "trust region": (lambda: teacher("tanh", samples=40), hs.DirectSingleShooting(
        layers=6, optimizer="gauss_newton", gradient_tol=1e-9)),
    "held": (lambda: teacher("relu", samples=40, width=4), hs.DirectSingleShooting(
        layers=4, optimizer="kronecker", effort="quick")),
    "guess": (lambda: teacher("relu"), hs.DirectSingleShooting(layers=6)),
    "endpoint": (lambda: problems.between([1.0, 0.5], [0.3, 0.8], "relu"),
                 hs.DirectMultipleShooting(layers=6, effort="quick", warm_up=False)),
}


class Killed(BaseException):
    """Not caught by anybody, as a process is killed."""


@pytest.fixture(autouse=True)
def everything_is_kept(monkeypatch):
    monkeypatch.setattr(kept, "LEAST_SECONDS", 0.0)


def killed_after(count, hear=lambda record: None):
    left = count

    def callback(record):
        nonlocal left
        hear(record)
        left -= 1
        if left < 0:
            raise Killed

    return callback


def same(one, other):
    assert one.status is other.status
    assert one.objective == other.objective
    for name in ("p", "weights", "representations", "momenta"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.nit == other.nit
    assert [(r.objective, r.stage) for r in one.history] == [
        (r.objective, r.stage) for r in other.history]


@pytest.mark.parametrize("name", METHODS)
def test_a_solve_that_is_killed_goes_on_to_the_same_end(name, tmp_path):
    make, method = METHODS[name]
    undisturbed = hs.solve(make(), method)
    heard = 0
    for share in (0.4, 0.9):
        with pytest.raises(Killed):
            # Only the iterations that are made now are heard: those of before are in the journal.
            hs.solve(make(), method, journal=tmp_path / "j",
                     callback=killed_after(int(share * undisturbed.nit) - heard))
        files = len(list((tmp_path / "j").iterdir()))
        heard = sum(len(np.load(p)[kept.NUMBERS]) for p in (tmp_path / "j").glob("*.npz"))
    assert files > 0
    records = []
    again = hs.solve(make(), method, journal=tmp_path / "j", callback=records.append)
    same(again, undisturbed)
    assert len(records) < undisturbed.nit
    assert again.seconds >= again.history[-1].seconds
    assert [r.seconds for r in again.history] == sorted(r.seconds for r in again.history)


@pytest.mark.parametrize("name", LONG)
def test_a_step_that_is_killed_in_the_middle_goes_on_there(name, tmp_path, monkeypatch):
    """With its state kept at every iteration, what a kill costs is a few of them."""
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(kept, "SHARE", 1e9)
    monkeypatch.setattr("os.fsync", lambda handle: None)  # the time that a disk takes
    monkeypatch.setattr("hamshoot.methods.single_shooting.level_search.CHEAP", 0.0)
    make, method = LONG[name]
    guess = None
    if name == "guess":
        rng = np.random.default_rng(3)
        guess = rng.standard_normal((6, *make().control_shape))
    undisturbed = hs.solve(make(), method, initial_guess=guess)
    heard = []
    for _ in range(3):
        with pytest.raises(Killed):
            hs.solve(make(), method, journal=tmp_path / "j", initial_guess=guess,
                     callback=killed_after(undisturbed.nit // 5, heard.append))
    again = hs.solve(make(), method, journal=tmp_path / "j", initial_guess=guess,
                     callback=heard.append)
    same(again, undisturbed)
    assert undisturbed.nit <= len(heard) <= 1.2 * undisturbed.nit + 3
    assert (name == "held") == ("held_rounds" in undisturbed.extra)
    assert not list((tmp_path / "j").glob("*-midway.npz"))
    for key in ("evaluations", "products", "held_rounds", "escape_objectives"):
        assert again.extra.get(key) == undisturbed.extra.get(key)


def test_a_comparison_that_is_killed_keeps_its_rows(tmp_path):
    compare = partial(hs.compare, teacher(test_samples=5), 5, seed=1, method_options={
        "effort": "quick"}, optimizer=hs.Adam(epochs=60, sgd_epochs=5, rate=0.1, schedule="decay"))
    undisturbed = compare(same_seconds=False)

    def killed(row):
        if row.name == "gradient descent":
            raise Killed

    with pytest.raises(Killed):
        compare(same_seconds=False, journal=tmp_path, on_row=killed)
    stages = set()
    again = compare(same_seconds=False, journal=tmp_path,
                    callback=lambda record: stages.add(record.stage.split(":")[0]))
    assert {row.name for row in again.rows} - stages == {"optimal control", "gradient descent"}
    for one, other in zip(again.rows, undisturbed.rows, strict=True):
        same(one.solution, other.solution)
        assert one.solution.problem is again.problem
        assert one.cpu_seconds >= 0
    # Other settings are other rows.
    stages.clear()
    hs.compare(again.problem, 6, seed=1, method_options={"effort": "quick"}, journal=tmp_path,
               same_seconds=False, longer=False, optimizer=hs.Adam(epochs=20, rate=0.1),
               callback=lambda record: stages.add(record.stage.split(":")[0]))
    assert {"optimal control", "gradient descent"} <= stages


def test_a_damaged_step_is_made_again_and_a_full_disk_ends_the_keeping(tmp_path, monkeypatch):
    make, method = METHODS["search"]
    undisturbed = hs.solve(make(), method, journal=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    same(hs.solve(make(), method, journal=tmp_path), undisturbed)

    said = []
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "below", said.append)
    with kept_in(journal):
        same(method.solve(make()), undisturbed)
    assert journal.kept == 0
    assert len(said) == 1
    assert said[0].startswith("What is done cannot be kept for a later run")


def test_the_journal_of_a_solve_is_the_current_one_and_no_longer(tmp_path):
    seen = []
    assert current() is None
    hs.solve(teacher(), METHODS["search"][1], journal=tmp_path,
             callback=lambda record: seen.append(current()))
    assert {journal.directory for journal in seen} == {tmp_path}
    assert current() is None


def test_keys_differ_where_inputs_do():
    parts = [(), (1,), (1.0,), ("1",), (True,), (None,), ([1, 2], 3), ([1], 2, 3), (1, 2, 3),
             (np.arange(4),), (np.arange(4.0),), (np.arange(4).reshape(2, 2),), ({"a": 1},),
             ({"a": "1"},), (b"1",), (float("nan"),), (1 + 1e-15,), (-0.0,), (0.0,)]
    keys = [key_of(*one) for one in parts]
    assert len(set(keys)) == len(keys)
    assert keys == [key_of(*one) for one in parts]
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of(np.arange(6.0)[::2]) == key_of(np.array([0.0, 2.0, 4.0]))
