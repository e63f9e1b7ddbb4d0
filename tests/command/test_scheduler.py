"""--scheduler: the same results by a cluster, and one sentence where there is none."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import problems
import pytest

import hamshoot as hs
from hamshoot.command import scheduler
from hamshoot.command.cli import main
from hamshoot.dynamics import block_executors
from hamshoot.methods.common import kept

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


@contextmanager
def processes(folder):
    """A scheduler and two workers, each a process: the scheduler's, and its address."""
    file = folder / f"scheduler-{len(list(folder.iterdir()))}.json"

    def start(name, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{name}", "--scheduler-file", str(file),
             "--no-dashboard", *arguments], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})

    started = [start("scheduler", "--port", "0"),
               start("worker", "--nthreads", "1", "--nworkers", "2")]
    try:
        while not file.is_file() or not file.read_text().rstrip().endswith("}"):
            time.sleep(0.1)
        yield started[0], json.loads(file.read_text())["address"]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["solve", "sweep"])
def test_where_the_scheduler_alone_is_killed_it_ends_and_goes_on_with_another(kind, tmp_path):
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    arguments = ["--set", "data.teacher={dims=[4,2,4], samples=12, test_samples=0}", "--set",
                 "problem.width=4", "--set", "problem.effective_depth=3", "--layers", "8",
                 "--effort", "default", "-o", str(out)]
    if kind == "sweep":
        arguments += ["--over", "weight_decay=0.002:0.1:6:log", "--search", "1"]

    def command(address):
        return subprocess.Popen([sys.executable, "-m", "hamshoot", kind, *arguments,
                                 "--scheduler", address], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    with processes(tmp_path) as (scheduler, address):
        process, line = command(address), "x"
        begun = "Point(" if kind == "sweep" else "iteration"
        while line and begun not in line:
            line = process.stderr.readline()
        scheduler.send_signal(signal.SIGKILL)
        printed, said = process.communicate(timeout=90)  # a third of that is Dask's patience
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "distributed" not in said
    assert " lost" in printed
    assert "The same command goes on from what is kept" in printed
    with processes(tmp_path) as (_, address):
        process = command(address)
        printed, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert "Going on from what an earlier run had kept" in said
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_gradients_whose_scheduler_is_killed_end_with_the_best_and_go_on_with_another(
        tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(block_executors, "LEAST_FLOPS", 0)
    monkeypatch.setattr(kept, "EVERY", 0.0)
    problem = problems.teacher("smooth_relu", samples=200, seed=0)

    def solve(executor, callback=None):
        method = hs.DirectSingleShooting(layers=6, optimizer="kronecker", executor=executor)
        return hs.solve(problem, method, callback=callback, journal=tmp_path / "journal")

    with processes(tmp_path) as (scheduler, address), \
            distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        first = []

        def callback(record):
            if record.stage.startswith("200 samples, 6 layers"):  # the whole problem
                first.append(record.objective)
            if len(first) == 30:
                scheduler.kill()

        lost = solve(client, callback)
    assert lost.status is hs.Status.WORKERS_LOST
    assert "the best iterate is kept" in lost.message
    assert lost.objective < first[0]
    again = []
    with processes(tmp_path) as (_, address), \
            distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2)
        whole = solve(client, again.append)
    alone = hs.DirectSingleShooting(layers=6, optimizer="kronecker").solve(problem)
    assert len(again) < alone.nit
    np.testing.assert_array_equal(whole.weights, alone.weights)


def test_what_to_install_where_dask_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, said = _run(["solve", "--scheduler", "tcp://a:1"], capsys)
    assert code == 2
    assert 'pip install "hamshoot[dask]"' in said.err
