"""--scheduler: the same results by a cluster, and one sentence where there is none."""

import json
import sys

import numpy as np
import pytest

import hamshoot as hs
from hamshoot.command import scheduler
from hamshoot.command.cli import main

QUICK = ["--layers", "10", "--effort", "quick", "--set", "solve.reheats=1"]


def _run(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, capsys.readouterr()


def test_the_same_by_a_cluster(tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    assert _run(["solve", *QUICK, "-o", "here"], capsys)[0] == 0
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None,
                                  protocol="tcp") as cluster:
        code, said = _run(["solve", *QUICK, "-o", "there", "--json", "--scheduler",
                           cluster.scheduler_address], capsys)
    assert code == 0
    here, there = (hs.Solution.load(tmp_path / name / "solution.npz") for name in ("here", "there"))
    np.testing.assert_array_equal(here.weights, there.weights)
    assert json.loads(said.out)["success"]


def test_one_sentence_where_nobody_answers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "ANSWERS", 0.3)
    for address in ("tcp://127.0.0.1:1", "nonsense://x", "tcp://127.0.0.1:port"):
        code, said = _run(["solve", *QUICK, "--scheduler", address], capsys)
        assert code == 2
        lines = [line for line in said.err.splitlines() if line.startswith("hamshoot: ")]
        assert lines == ["hamshoot: --scheduler: expected the address of a scheduler of Dask, such "
                         f"as tcp://host:8786, got '{address}', where none answers"]
    code, said = _run(["compare", *QUICK, "--workers", "2", "--scheduler", "tcp://a:1"], capsys)
    assert code == 2
    assert "--scheduler, --workers: expected one of them" in said.err
    assert not list(tmp_path.iterdir())


def test_what_to_install_where_dask_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, said = _run(["solve", "--scheduler", "tcp://a:1"], capsys)
    assert code == 2
    assert 'pip install "hamshoot[dask]"' in said.err
